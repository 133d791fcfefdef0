package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/witness"
)

// In the mode "observe", the default, an agent says what it would move and why, and moves
// nothing. In the mode "act" it moves the same pod away from the same neighbour; memory
// and counter go on.
func TestContentionIsNoticedThenThePodIsMoved(t *testing.T) {
	ctx, c, ns := scene(t, "starve")
	check(t, c.Client.Create(ctx, c.Deployment(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 32, Movable: true})))
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	was := must[witness.Tick](t)(c.Status(ctx, pod))
	heard(ctx, t, c, was.Instance, 10)
	from := pod.Spec.NodeName
	noisy := c.Neighbour(ns, "noisy", from, 8)
	check(t, c.Client.Create(ctx, noisy))

	check(t, cluster.Eventually(ctx, "an agent says that it would move the pod", func(ctx context.Context) (bool, string) {
		events := &corev1.EventList{}
		if err := c.Client.List(ctx, events, client.InNamespace(ns)); err != nil {
			return false, err.Error()
		}
		for _, e := range events.Items {
			if e.Reason == "WouldMigrate" && e.InvolvedObject.UID == pod.UID {
				t.Log(e.Message)
				return strings.Contains(e.Message, from), e.Message
			}
		}
		return false, fmt.Sprintf("%d events, none WouldMigrate", len(events.Items))
	}))
	all := &v1alpha1.PodMigrationList{}
	check(t, c.Client.List(ctx, all, client.InNamespace(ns)))
	if len(all.Items) != 0 {
		t.Fatalf("in the mode observe there are %d moves", len(all.Items))
	}

	check(t, c.Upgrade(ctx, values("act")))
	t.Cleanup(func() { check(t, c.Upgrade(context.Background(), values("observe"))) })
	// The agents are replaced one by one meanwhile: a move to a node whose new agent is not ready is rejected,
	// and ordered anew a minute later.
	m := must[*v1alpha1.PodMigration](t)(c.Ordered(ctx, ns))
	check(t, cluster.Eventually(ctx, "a move that is not rejected", func(ctx context.Context) (bool, string) {
		if err := c.Client.List(ctx, all, client.InNamespace(ns)); err != nil {
			return false, err.Error()
		}
		for i := range all.Items {
			if m = &all.Items[i]; v1alpha1.Finished(m) && m.Status.Phase != v1alpha1.PhaseRejected {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%d moves, the last: %v", len(all.Items), m.Status.Conditions)
	}))
	if m.Spec.Reason != "Contention" || m.Spec.PodUID != pod.UID || m.Spec.TargetNode == from {
		t.Errorf("the agent ordered %+v", m.Spec)
	}
	if m.Status.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("phase %s: %s: %v", m.Status.Phase, m.Status.DecisionMessage, m.Status.Conditions)
	}
	after := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	if after.Spec.NodeName == from {
		t.Fatalf("the pod is still on %s", from)
	}
	last, _ := c.Witness.Last(was.Instance)
	heard(ctx, t, c, was.Instance, last.Seq+50) // 50 ticks sum the whole heap
	is := must[witness.Tick](t)(c.Status(ctx, after))
	if is.Instance != was.Instance || is.Now != was.Start {
		t.Errorf("before %+v, after %+v: want the same process with its memory", was, is)
	}
	if fault := c.Witness.Account(was.Instance).Fault(); fault != "" {
		t.Error(fault)
	}
	check(t, c.AllKnow(ctx, after, after.Spec.NodeName))
}
