package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/cluster"
)

// Equal nodes, different delays: a pod goes to the node nearest to its peer's; when the
// delays are swapped, the next one goes to the other.
func TestPodGoesNearestToItsPeer(t *testing.T) {
	ctx, c, ns := scene(t, "near")
	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "db", Node: "n1", Silent: true})))
	must[*corev1.Pod](t)(c.Ready(ctx, ns, "db"))
	check(t, c.Cordon(ctx, "n1", true)) // the peer's own node would win always
	t.Cleanup(func() { check(t, c.Cordon(context.Background(), "n1", false)) })
	t.Cleanup(func() { delays(context.Background(), t, c, time.Millisecond, time.Millisecond, time.Millisecond) })

	for i, near := range []string{"n2", "n3"} {
		d2, d3 := time.Millisecond, 8*time.Millisecond
		if near == "n3" {
			d2, d3 = d3, d2
		}
		delays(ctx, t, c, d2, d3, 4*time.Millisecond)
		seen(ctx, t, c, d2, d3)
		check(t, c.Idle(ctx, near, 0.3)) // a near node with less room than the far one is rightly passed by
		name := fmt.Sprintf("app%d", i)
		check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: name, Peers: "app=db", Silent: true})))
		pod := must[*corev1.Pod](t)(c.Ready(ctx, ns, name))
		if pod.Spec.NodeName != near {
			out, _ := c.Tool(ctx, "explain", name, "-n", ns)
			t.Fatalf("with n1-n2 at %v and n1-n3 at %v, %s went to %s, want %s\n%s", d2, d3, name, pod.Spec.NodeName, near, out)
		}
		out, err := c.Tool(ctx, "explain", name, "-n", ns)
		if err != nil || !strings.HasPrefix(out, "DECIDED ") || !strings.Contains(out, near+" (chosen)") || !strings.Contains(out, "NodeResourcesFit") {
			t.Errorf("explain does not tell what was decided: %v\n%s", err, out)
		}
	}
}

// Without a single measurement pods are scheduled all the same.
func TestPodsScheduleWithoutMeasurements(t *testing.T) {
	ctx, c, ns := scene(t, "blind")
	agents := &appsv1.DaemonSet{}
	agents.Namespace, agents.Name = "drover-system", "drover-agent"
	patch := func(ctx context.Context, selector string) error {
		return c.Client.Patch(ctx, agents, client.RawPatch(types.MergePatchType,
			[]byte(`{"spec":{"template":{"spec":{"nodeSelector":`+selector+`}}}}`)))
	}
	check(t, patch(ctx, `{"drover.dev/nowhere":"true"}`))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		check(t, patch(ctx, "null"))
		check(t, c.Measured(ctx))
	})
	check(t, cluster.Eventually(ctx, "no agent is left", func(ctx context.Context) (bool, string) {
		pods := &corev1.PodList{}
		err := c.Client.List(ctx, pods, client.InNamespace("drover-system"), client.MatchingLabels{"app.kubernetes.io/name": "drover-agent"})
		return err == nil && len(pods.Items) == 0, fmt.Sprintf("%d agents, %v", len(pods.Items), err)
	}))
	for _, peers := range []string{"", "app=nobody"} {
		name := "blind" + fmt.Sprint(len(peers))
		check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: name, Peers: peers, Silent: true})))
		must[*corev1.Pod](t)(c.Ready(ctx, ns, name))
	}
}

// delays sets the three links, one way.
func delays(ctx context.Context, t *testing.T, c *cluster.Cluster, d12, d13, d23 time.Duration) {
	t.Helper()
	for _, l := range []struct {
		a, b string
		d    time.Duration
	}{{"n1", "n2", d12}, {"n1", "n3", d13}, {"n2", "n3", d23}} {
		check(t, c.Lab.SetDelay(ctx, l.a, l.b, l.d))
	}
}

// seen waits until every agent's picture shows n1's new route times: at least the round
// trip of what was set, and on the right side of the middle between the two.
func seen(ctx context.Context, t *testing.T, c *cluster.Cluster, d2, d3 time.Duration) {
	t.Helper()
	middle := d2 + d3 // twice the mean one-way delay
	check(t, cluster.Eventually(ctx, "the new delays are measured", func(ctx context.Context) (bool, string) {
		views, err := c.Pictures(ctx)
		if err != nil {
			return false, err.Error()
		}
		for _, s := range views {
			for _, pair := range [][2]model.NodeID{{"n2", "n1"}, {"n3", "n1"}, {"n1", "n2"}, {"n1", "n3"}} {
				d, other := d2, pair[0]
				if other == "n1" {
					other = pair[1]
				}
				if other == "n3" {
					d = d3
				}
				n := s.Nodes[pair[0]]
				for _, by := range []model.Path{model.PathNode, model.PathPod} {
					rtt := n.State.RoutesBy(by)[pair[1]].RTT
					if rtt < 2*d || (d < middle/2) != (rtt < middle) {
						return false, fmt.Sprintf("%s to %s: %v by the %s path with %v one way", pair[0], pair[1], rtt, by, d)
					}
				}
			}
		}
		return true, ""
	}))
}
