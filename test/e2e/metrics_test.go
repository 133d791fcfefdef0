package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/test/cluster"
)

// Every program's metrics reach Prometheus: one of each kind, from as many instances as
// there are.
func TestMetricsAreScraped(t *testing.T) {
	ctx, c, ns := scene(t, "metrics")
	// The scheduler's picture is as old as the last pod that it placed.
	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "app", Silent: true})))
	must[*corev1.Pod](t)(c.Ready(ctx, ns, "app"))
	_, prometheus, err := c.Lab.URLs()
	check(t, err)
	for query, want := range map[string]int{
		"count(drover_route_time_seconds{path=\"node\"})":             6, // each of three to two
		"count(drover_route_time_seconds{path=\"pod\"})":              6,
		"count(drover_gossip_members)":                                4, // agents and scheduler
		"count(drover_gossip_nodes{phase=\"normal\"} == 3)":           4,
		"count(count by (key) (drover_gossip_key_info))":              1,
		"count(drover_node_cpu_used_cores)":                           3,
		"count(drover_held_containers)":                               3,
		"count(drover_scheduler_view_nodes)":                          1,
		"count(drover_migration_phase{phase=\"completed\"})":          1, // the controller
		"min(drover_scheduler_view_nodes)":                            3,
		"count(count by (pod) (drover_node_pressure_ratio))":          3,
		"count(drover_route_kernel_stamps == 1)":                      6, // of three, by two paths
		"count(drover_connection_source{source='tracepoint'} == 1)":   3,
		"count(up{namespace=\"drover-system\"} == 1)":                 5,
		"count(drover_gossip_records_total{result=\"accepted\"} > 0)": 4,
	} {
		check(t, cluster.Eventually(ctx, query, func(ctx context.Context) (bool, string) {
			got, err := ask(ctx, prometheus, query)
			if err != nil {
				return false, err.Error()
			}
			return got == fmt.Sprint(want), fmt.Sprintf("is %s, want %d", got, want)
		}))
	}
}

// ask gives the value of an instant query with one result; "" when it has none.
func ask(ctx context.Context, base, query string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/query?query="+url.QueryEscape(query), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var r struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return "", fmt.Errorf("prometheus: %s: %w", resp.Status, err)
	}
	if len(r.Data.Result) == 0 {
		return "", nil
	}
	return fmt.Sprint(r.Data.Result[0].Value[1]), nil
}
