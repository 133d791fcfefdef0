package e2e

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
)

// A pod of higher priority that finds no room takes that of the moving pod, as it takes any
// other's, on either end of the move: then its owner has a pod elsewhere, one.
func TestPreemptionInTheMiddle(t *testing.T) {
	for name, end := range map[string]func(m changing) string{
		"of the source":      func(m changing) string { return m.pod.Spec.NodeName },
		"of the replacement": func(m changing) string { return m.move.Spec.TargetNode },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, c, ns := scene(t, "preempted")
			m := changing{c: c, owner: c.Deployment(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 64, Movable: true, CPU: "200m"})}
			check(t, c.Client.Create(ctx, m.owner))
			m.pod = must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
			m.move = must[*v1alpha1.PodMigration](t)(c.Order(ctx, m.pod, other(m.pod.Spec.NodeName)))
			must[*v1alpha1.PodMigration](t)(c.Until(ctx, m.move, "the create waits", createWaits))
			preempt(ctx, t, c, end(m))
			ended := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m.move))
			t.Logf("phase %s: %s", ended.Status.Phase, meta.FindStatusCondition(ended.Status.Conditions, v1alpha1.ConditionComplete).Message)
			m.whole(ctx, t, 1, "")
		})
	}
}

// preempt starts a pod on the node, of higher priority than any ordinary one and a little larger
// than the room that is left, and waits until it has its place.
func preempt(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	_, _, ns := scene(t, "preemptor")
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: ns}, Value: 1000}
	check(t, c.Client.Create(ctx, class))
	t.Cleanup(func() { check(t, c.Client.Delete(context.Background(), class)) })
	room := must[resource.Quantity](t)(free(ctx, c, node))
	room.Add(resource.MustParse("100m"))
	p := c.Pod(cluster.Ticker{Namespace: ns, Name: "urgent", Silent: true, CPU: room.String()})
	p.Spec.PriorityClassName = class.Name
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	check(t, c.Client.Create(ctx, p))
	must[*corev1.Pod](t)(c.Ready(ctx, ns, p.Name))
}

// free is the CPU of a node that no pod has requested.
func free(ctx context.Context, c *cluster.Cluster, node string) (resource.Quantity, error) {
	var n corev1.Node
	if err := c.Client.Get(ctx, client.ObjectKey{Name: node}, &n); err != nil {
		return resource.Quantity{}, fmt.Errorf("read node %s: %w", node, err)
	}
	var pods corev1.PodList
	if err := c.Client.List(ctx, &pods); err != nil {
		return resource.Quantity{}, fmt.Errorf("list pods: %w", err)
	}
	room := n.Status.Allocatable.Cpu().DeepCopy()
	for _, p := range pods.Items {
		if p.Spec.NodeName != node {
			continue
		}
		for _, container := range p.Spec.Containers {
			room.Sub(*container.Resources.Requests.Cpu())
		}
	}
	return room, nil
}
