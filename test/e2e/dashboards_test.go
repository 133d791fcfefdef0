package e2e

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/dashboards/catalog"
	"github.com/drover-project/drover/hack/dashboards/result"
	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/cluster"
)

var dashboardsOut = flag.String("dashboards.out", "", "directory that TestDashboardsAndRulesHaveData writes the panels' data to")

// While a pod is placed near its peer, starved and moved, every query of every dashboard gives
// data in the real Prometheus, every rule is evaluated, every recording has a value, and whatever
// an alert reads is there, so that it can fire. The metrics that Prometheus knows of are those of docs.
func TestDashboardsAndRulesHaveData(t *testing.T) {
	ctx, c, ns := scene(t, "boards")
	loadRules(ctx, t, c)
	_, url, err := c.Lab.URLs()
	check(t, err)
	p := result.Prometheus{URL: url, From: time.Now(), Step: 5 * time.Second, Path: "node"}
	load(ctx, t, c, p, ns)
	if *dashboardsOut != "" {
		check(t, cluster.Eventually(ctx, "there is enough to draw", func(ctx context.Context) (bool, string) {
			p.To = time.Now()
			scrapes, err := p.Ask(ctx, p.Expr(`max(count_over_time(up{pod=~"drover-controller-.+"}[$__range])) >= 65`), true) // one every 2 s
			return err == nil && len(scrapes) > 0, fmt.Sprint(err)
		}))
	}

	for _, d := range dashboards.All() {
		t.Run(d.Name, func(t *testing.T) { board(ctx, t, p, d) })
	}
	t.Run("cases", func(t *testing.T) { cases(ctx, t, c) })
	t.Run("rules", func(t *testing.T) { rules(ctx, t, p) })
	t.Run("metrics", func(t *testing.T) { served(ctx, t, p) })
	t.Run("namespaces", func(t *testing.T) {
		p.To = time.Now()
		var names []string
		for _, s := range must[[]result.Labelled](t)(p.Ask(ctx, dashboards.NamespacesQuery, true)) {
			names = append(names, s.Labels["namespace"])
		}
		if !slices.Contains(names, ns) || slices.Contains(names, "") {
			t.Errorf("namespaces to choose from: %v, want the pods', %s among them", names, ns)
		}
	})
}

// load is the demo's: a service is placed near its peer, starved by a neighbour, and moved; beside
// it a pod that is never ready.
func load(ctx context.Context, t *testing.T, c *cluster.Cluster, p result.Prometheus, ns string) {
	t.Helper()
	act := values("act")
	act["scheduler"].(map[string]any)["extraArgs"] = []any{"--drover-node-metrics=50"}
	check(t, c.Upgrade(ctx, act))
	t.Cleanup(func() { // the next test finds all as this one has
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		check(t, c.Upgrade(ctx, values("observe")))
		check(t, c.Measured(ctx))
	})
	t.Cleanup(func() { delays(context.Background(), t, c, time.Millisecond, time.Millisecond, time.Millisecond) })
	delays(ctx, t, c, time.Millisecond, 5*time.Millisecond, 4*time.Millisecond) // the demo's
	check(t, c.Measured(ctx))

	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "db", Node: c.Nodes()[0], Silent: true})))
	db := must[*corev1.Pod](t)(c.Ready(ctx, ns, "db"))
	// kubelet asks another node's pod instead: connections from a node to a pod.
	unwell := c.Pod(cluster.Ticker{Namespace: ns, Name: "unwell", Node: c.Nodes()[1], Silent: true})
	get := unwell.Spec.Containers[0].ReadinessProbe.HTTPGet
	get.Host, get.Path = db.Status.PodIP, "/nowhere"
	check(t, c.Client.Create(ctx, unwell))
	// What plugins say has no rate before a second pod is placed, when the first was scraped.
	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "web", Silent: true})))
	must[*corev1.Pod](t)(c.Ready(ctx, ns, "web"))
	check(t, soon(ctx, "the placement of web is scraped", func(ctx context.Context) (bool, string) {
		p.To = time.Now()
		got, err := p.Ask(ctx, "drover_scheduler_chosen_plugin_points_count > 0", true)
		return err == nil && len(got) > 0, fmt.Sprint(err)
	}))
	counter := c.Deployment(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 32, Peers: "app=db", Movable: true})
	counter.Spec.Template.Annotations[v1alpha1.AnnotationLogPattern] = "(?i)timeout"
	check(t, c.Client.Create(ctx, counter))
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	check(t, c.Client.Create(ctx, c.Neighbour(ns, "noisy", pod.Spec.NodeName, 8)))
	m := must[*v1alpha1.PodMigration](t)(c.Ordered(ctx, ns))
	if m = must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m)); m.Status.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("phase %s: %s", m.Status.Phase, m.Status.DecisionMessage)
	}
}

// soon waits for what a few scrapes and evaluations bring.
func soon(ctx context.Context, what string, ok func(context.Context) (bool, string)) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return cluster.Eventually(ctx, what, ok)
}

// board holds that every panel has data, by either path, and keeps those of the first.
func board(ctx context.Context, t *testing.T, p result.Prometheus, d dashboards.Dashboard) {
	kept := result.Board{Name: d.Name, Step: p.Step.Seconds()}
	for _, panel := range d.Panels {
		paths := []string{"node"}
		if d.Path && slices.ContainsFunc(panel.Queries, func(q dashboards.Query) bool { return strings.Contains(q.Expr, "$path") }) {
			paths = append(paths, "pod")
		}
		for i, path := range paths {
			p.Path = path
			var got result.Panel
			err := soon(ctx, fmt.Sprintf("panel %d, %s, has data by the %s path", panel.ID, panel.Title, path), func(ctx context.Context) (bool, string) {
				p.To = time.Now()
				var err error
				got, err = p.Panel(ctx, panel)
				return err == nil, fmt.Sprint(err)
			})
			if err != nil {
				t.Error(err)
				continue
			}
			if i == 0 {
				kept.Panels = append(kept.Panels, got.Keep(panel.Kind))
			}
		}
	}
	kept.Seconds = p.To.Sub(p.From).Round(time.Second).Seconds()
	if *dashboardsOut != "" && !t.Failed() {
		check(t, os.MkdirAll(*dashboardsOut, 0o755))
		check(t, os.WriteFile(filepath.Join(*dashboardsOut, d.Name+".json"), must[[]byte](t)(kept.JSON()), 0o644))
	}
}

// cases are what the rules make of series that are made up: promtool evaluates them.
func cases(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	b := base64.StdEncoding.EncodeToString(must[[]byte](t)(os.ReadFile(filepath.Join("rules", "cases.yaml"))))
	out, err := c.Lab.ExecInNode(ctx, lab.ControlPlane, "sh", "-c", "mkdir -p /tmp/cases && cp /var/lib/prometheus/rules/drover.yaml /tmp/cases && echo "+b+
		" | base64 -d >/tmp/cases/cases.yaml && promtool test rules /tmp/cases/cases.yaml")
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// rules holds that Prometheus evaluates every rule, and that what they read is there.
func rules(ctx context.Context, t *testing.T, p result.Prometheus) {
	want := len(dashboards.Recordings()) + len(dashboards.Alerts())
	check(t, soon(ctx, "every rule is evaluated", func(ctx context.Context) (bool, string) {
		var all struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		if err := p.Get(ctx, "/api/v1/rules", &all); err != nil {
			return false, err.Error()
		}
		well, bad := 0, ""
		for _, g := range all.Groups {
			for _, r := range g.Rules {
				if r.Health == "ok" {
					well++
				} else {
					bad += fmt.Sprintf("; %s is %s: %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		return well == want && bad == "", fmt.Sprintf("%d rules of %d are evaluated%s", well, want, bad)
	}))
	gives := func(what, expr string) {
		t.Helper()
		err := soon(ctx, what+" has data", func(ctx context.Context) (bool, string) {
			p.To = time.Now()
			got, err := p.Ask(ctx, expr, false)
			return err == nil && len(got) > 0, fmt.Sprintf("%d series of %s (%v)", len(got), expr, err)
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, r := range dashboards.Recordings() {
		gives("recording "+r.Record, r.Record)
	}
	for _, a := range dashboards.Alerts() {
		for _, s := range must[[]dashboards.Selector](t)(dashboards.Selectors(a.Expr)) {
			gives("alert "+a.Name, s.Text)
		}
	}
}

// served holds that the metrics of docs are those that Prometheus has scraped, of the same type.
func served(ctx context.Context, t *testing.T, p result.Prometheus) {
	want := map[string]string{}
	for _, m := range must[[]catalog.Metric](t)(catalog.Scan("../..")) {
		want[m.Name] = string(m.Type)
	}
	check(t, soon(ctx, "all metrics are known to Prometheus", func(ctx context.Context) (bool, string) {
		var got map[string][]struct{ Type string }
		if err := p.Get(ctx, "/api/v1/metadata", &got); err != nil {
			return false, err.Error()
		}
		var wrong []string
		for name, is := range want {
			if len(got[name]) == 0 && name == "drover_node_network_capacity_bytes_per_second" {
				continue // the lab's devices do not tell their speed
			} else if len(got[name]) == 0 {
				wrong = append(wrong, name+" is not served")
			} else if got[name][0].Type != is {
				wrong = append(wrong, fmt.Sprintf("%s is a %s, docs/metrics.md says %s", name, got[name][0].Type, is))
			}
		}
		for name := range got {
			if strings.HasPrefix(name, "drover_") && want[name] == "" {
				wrong = append(wrong, name+" is not in docs/metrics.md")
			}
		}
		slices.Sort(wrong)
		return len(wrong) == 0, strings.Join(wrong, "; ")
	}))
}
