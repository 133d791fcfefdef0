package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/cluster"
)

// The pod path is measured in the kernel between all nodes, from the companions' addresses, and
// goes on being so when a companion is replaced.
func TestPodPathFollowsItsCompanion(t *testing.T) {
	ctx, c, ns := scene(t, "podpath")
	check(t, c.Measured(ctx))
	before := companions(ctx, t, c, "")
	told(ctx, t, c, before, time.Time{})

	gone := before["n2"]
	check(t, c.Client.Delete(ctx, gone))
	after := companions(ctx, t, c, gone.UID)
	// Everybody's figures of the ways to and from the new one are later than it.
	told(ctx, t, c, after, time.Now())
	if after["n2"].Status.PodIP == gone.Status.PodIP {
		t.Errorf("the new companion has the old one's address %s: nothing was to be followed", gone.Status.PodIP)
	}

	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "app", Node: "n1", Silent: true})))
	must[*corev1.Pod](t)(c.Ready(ctx, ns, "app"))
	for _, args := range [][]string{{"status"}, {"explain", "app", "-n", ns}} {
		out, err := c.Tool(ctx, args...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		t.Logf("%v:\n%s", args, out)
		want := "POD PATH"
		if args[0] == "explain" {
			want = "   pod   "
		}
		if !strings.Contains(out, want) {
			t.Errorf("%v lacks %q", args, want)
		}
	}
}

// companions waits until every node has a companion that runs, none of them the one with that UID.
func companions(ctx context.Context, t *testing.T, c *cluster.Cluster, not types.UID) map[string]*corev1.Pod {
	t.Helper()
	found := map[string]*corev1.Pod{}
	check(t, cluster.Eventually(ctx, "a companion on every node", func(ctx context.Context) (bool, string) {
		pods := &corev1.PodList{}
		if err := c.Client.List(ctx, pods, client.InNamespace("drover-system"), client.MatchingLabels{"app.kubernetes.io/name": "drover-path"}); err != nil {
			return false, err.Error()
		}
		clear(found)
		for i := range pods.Items {
			if p := &pods.Items[i]; p.UID != not && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
				found[p.Spec.NodeName] = p
			}
		}
		return len(found) == len(c.Nodes()), fmt.Sprintf("%d of %d", len(found), len(c.Nodes()))
	}))
	return found
}

// told waits until every agent hears that the pod path is measured from these pods, by figures
// that are later than that.
func told(ctx context.Context, t *testing.T, c *cluster.Cluster, pods map[string]*corev1.Pod, since time.Time) {
	t.Helper()
	check(t, cluster.Eventually(ctx, "the pod path between the companions", func(ctx context.Context) (bool, string) {
		views, err := c.Views(ctx)
		if err != nil {
			return false, err.Error()
		}
		for by, s := range views {
			for from, pod := range pods {
				state := s.Nodes[model.NodeID(from)].State
				if state.PodAddress != pod.Status.PodIP {
					return false, fmt.Sprintf("%s holds %q for the end of the pod path on %s, which is %s", by, state.PodAddress, from, pod.Status.PodIP)
				}
				for to := range pods {
					r := state.PodRoutes[model.NodeID(to)]
					if from != to && (r.Samples < 10 || r.Stamp != model.StampKernel || !r.At.After(since)) {
						return false, fmt.Sprintf("%s holds %+v for the pod path from %s to %s", by, r, from, to)
					}
				}
			}
		}
		return true, ""
	}))
}
