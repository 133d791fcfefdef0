package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
)

// A malformed annotation gets one clear line on the pod, and the pod is scheduled.
func TestMalformedPeersAreToldAndThePodIsScheduled(t *testing.T) {
	ctx, c, ns := scene(t, "peers")
	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "odd", Peers: "app=db:-1", Silent: true})))
	must[*corev1.Pod](t)(c.Ready(ctx, ns, "odd"))
	check(t, cluster.Eventually(ctx, "an event about the annotation", func(ctx context.Context) (bool, string) {
		var events eventsv1.EventList
		if err := c.Client.List(ctx, &events, client.InNamespace(ns)); err != nil {
			return false, err.Error()
		}
		for _, e := range events.Items {
			if e.Reason == "InvalidPeers" && e.Regarding.Name == "odd" {
				return strings.Contains(e.Note, `"app=db:-1"`) && !strings.Contains(e.Note, "\n"), e.Note
			}
		}
		return false, fmt.Sprintf("%d events, none InvalidPeers", len(events.Items))
	}))
}

// The switch stops new moves, also those that users ask for, and nothing changes.
func TestThePauseSwitchStopsNewMoves(t *testing.T) {
	ctx, c, ns := scene(t, "paused")
	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "counter", Movable: true})))
	pod := must[*corev1.Pod](t)(c.Ready(ctx, ns, "counter"))
	pause := func(ctx context.Context, on string) error {
		cm := &corev1.ConfigMap{}
		cm.Namespace, cm.Name = "drover-system", v1alpha1.PauseConfigMap
		return c.Client.Patch(ctx, cm, client.RawPatch(types.MergePatchType, []byte(`{"data":{"paused":"`+on+`"}}`)))
	}
	check(t, pause(ctx, "true"))
	t.Cleanup(func() { check(t, pause(context.Background(), "false")) })
	m := must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, other(pod.Spec.NodeName)))
	end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m))
	if a := meta.FindStatusCondition(end.Status.Conditions, v1alpha1.ConditionAccepted); end.Status.Phase != v1alpha1.PhaseRejected || a == nil || a.Reason != "Paused" {
		t.Errorf("phase %s, condition %+v, want rejected because paused", end.Status.Phase, a)
	}
	if now := must[*corev1.Pod](t)(c.Ready(ctx, ns, "counter")); now.UID != pod.UID || now.Spec.NodeName != pod.Spec.NodeName {
		t.Errorf("the pod is %s on %s now", now.UID, now.Spec.NodeName)
	}
}
