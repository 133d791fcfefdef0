package e2e

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/witness"
)

// A Deployment's pod and a bare one are moved by hand: memory and counter go on, no tick
// is doubled or lost, everybody knows where it is; after a crash it starts fresh.
func TestMoveByHand(t *testing.T) {
	for _, kind := range []string{"deployment", "bare"} {
		t.Run(kind, func(t *testing.T) {
			ctx, c, ns := scene(t, "hand-"+kind)
			tick := cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 64, Movable: true}
			var object client.Object = c.Pod(tick)
			if kind == "deployment" {
				object = c.Deployment(tick)
			}
			check(t, c.Client.Create(ctx, object))
			before := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
			was := must[witness.Tick](t)(c.Status(ctx, before))
			heard(ctx, t, c, was.Instance, 10)
			to := other(before.Spec.NodeName)

			out, err := c.Tool(ctx, "migrate", before.Name, "-n", ns, "--to", to, "--wait")
			if err != nil {
				t.Fatalf("kubectl drover migrate: %v\n%s", err, out)
			}
			t.Log("\n" + out)
			after := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
			if after.Spec.NodeName != to || after.UID == before.UID {
				t.Fatalf("after the move the pod is %s on %s, want another object on %s", after.Name, after.Spec.NodeName, to)
			}
			if kind == "deployment" && (len(after.OwnerReferences) != 1 || after.OwnerReferences[0].UID != before.OwnerReferences[0].UID) {
				t.Errorf("owner of the moved pod: %v, want that of the old one: %v", after.OwnerReferences, before.OwnerReferences)
			}
			last, _ := c.Witness.Last(was.Instance)
			heard(ctx, t, c, was.Instance, last.Seq+50) // 50 ticks sum the whole heap
			is := must[witness.Tick](t)(c.Status(ctx, after))
			if is.Instance != was.Instance || is.Start != was.Start || is.Now != is.Start || is.Seq < was.Seq {
				t.Errorf("before %+v, after %+v: want the same process with its memory", was, is)
			}
			if fault := c.Witness.Account(was.Instance).Fault(); fault != "" {
				t.Error(fault)
			}
			check(t, c.AllKnow(ctx, after, to))
			for _, name := range []string{after.Name, before.Name} {
				if out, err := c.Tool(ctx, "where", name, "-n", ns); err != nil || !strings.Contains(out, after.Name+" is on "+to) {
					t.Errorf("kubectl drover where %s: %v\n%s", name, err, out)
				}
			}
			crashStartsFresh(ctx, t, c, after, is.Instance)
		})
	}
}

// crashStartsFresh: the checkpoint is spent; a crash never rolls back to it.
func crashStartsFresh(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod, instance string) {
	t.Helper()
	check(t, c.Crash(ctx, pod))
	check(t, cluster.Eventually(ctx, "the crashed container starts fresh", func(ctx context.Context) (bool, string) {
		now, err := c.Status(ctx, pod)
		if err != nil {
			return false, err.Error()
		}
		return now.Instance != instance, "instance " + now.Instance
	}))
	now := must[*corev1.Pod](t)(c.OnlyPod(ctx, pod.Namespace, pod.Labels["app"]))
	if now.UID != pod.UID {
		t.Errorf("after the crash pod %s has another UID: it was replaced, want restarted", pod.Name)
	}
	if n := now.Status.ContainerStatuses[0].RestartCount; n < 1 {
		t.Errorf("restart count %d after a crash", n)
	}
}

// A pod that was moved can be moved again, and back.
func TestMoveThereAndBack(t *testing.T) {
	ctx, c, ns := scene(t, "back")
	check(t, c.Client.Create(ctx, c.Deployment(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 16, Movable: true})))
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	was := must[witness.Tick](t)(c.Status(ctx, pod))
	first := pod.Spec.NodeName
	epoch := int64(0)
	for _, to := range []string{other(first), first} {
		m := must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, to))
		m = must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m))
		if m.Status.Phase != v1alpha1.PhaseCompleted || m.Status.Epoch <= epoch {
			t.Fatalf("move to %s: phase %s, epoch %d after %d: %s", to, m.Status.Phase, m.Status.Epoch, epoch, m.Status.DecisionMessage)
		}
		epoch = m.Status.Epoch
		pod = must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	}
	is := must[witness.Tick](t)(c.Status(ctx, pod))
	if pod.Spec.NodeName != first || is.Instance != was.Instance || is.Now != was.Start {
		t.Errorf("after two moves %+v on %s, before %+v on %s", is, pod.Spec.NodeName, was, first)
	}
	check(t, c.AllKnow(ctx, pod, first))
}

// heard waits until the witness has heard tick seq of an instance.
func heard(ctx context.Context, t *testing.T, c *cluster.Cluster, instance string, seq uint64) {
	t.Helper()
	check(t, c.Witness.Await(ctx, instance, seq))
}

// other gives a node that is not the given one.
func other(node string) string {
	if node == "n2" {
		return "n3"
	}
	return "n2"
}
