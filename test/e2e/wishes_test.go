package e2e

import (
	"context"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/controller"
	"github.com/drover-project/drover/test/cluster"
)

// changing is an owner of one pod, and that pod on its way.
type changing struct {
	c     *cluster.Cluster
	owner client.Object
	pod   *corev1.Pod
	move  *v1alpha1.PodMigration
}

// revision is what a rolling update changes.
const revision = "e2e/revision"

// What the owner, or a user, wants in the middle of a move is what there is in the end,
// whether the move had been decided by then or not: so many pods, all ready, all of the
// newest template, nothing else, nothing on hold.
func TestOwnersWishWins(t *testing.T) {
	kinds := map[string]func(*cluster.Cluster, cluster.Ticker) client.Object{
		"deployment":  func(c *cluster.Cluster, t cluster.Ticker) client.Object { return c.Deployment(t) },
		"statefulset": func(c *cluster.Cluster, t cluster.Ticker) client.Object { return c.StatefulSet(t) },
	}
	wishes := map[string]struct {
		does     func(ctx context.Context, t *testing.T, m changing)
		replicas int
		revision string
	}{
		"delete the pod": {func(ctx context.Context, t *testing.T, m changing) { check(t, m.c.Client.Delete(ctx, m.pod)) }, 1, ""},
		"scale to 0":     {func(ctx context.Context, t *testing.T, m changing) { m.patch(ctx, t, `{"spec":{"replicas":0}}`) }, 0, ""},
		"scale to 2":     {autoscale, 2, ""},
		"roll": {func(ctx context.Context, t *testing.T, m changing) {
			m.patch(ctx, t, `{"spec":{"template":{"metadata":{"annotations":{"`+revision+`":"2"}}}}}`)
		}, 1, "2"},
		"move again": {moveAgain, 1, ""},
	}
	for kind, make := range kinds {
		for name, wish := range wishes {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				ctx, c, ns := scene(t, "wish")
				m := changing{c: c, owner: make(c, cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 64, Movable: true, CPU: "20m"})}
				check(t, c.Client.Create(ctx, m.owner))
				m.pod = must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
				m.move = must[*v1alpha1.PodMigration](t)(c.Order(ctx, m.pod, other(m.pod.Spec.NodeName)))
				must[*v1alpha1.PodMigration](t)(c.Until(ctx, m.move, "the create waits", createWaits))
				wish.does(ctx, t, m)
				end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m.move))
				t.Logf("phase %s: %s", end.Status.Phase, meta.FindStatusCondition(end.Status.Conditions, v1alpha1.ConditionComplete).Message)
				m.whole(ctx, t, wish.replicas, wish.revision)
			})
		}
	}
}

func (m changing) patch(ctx context.Context, t *testing.T, body string) {
	t.Helper()
	check(t, m.c.Client.Patch(ctx, m.owner, client.RawPatch(types.StrategicMergePatchType, []byte(body))))
}

// autoscale does what a HorizontalPodAutoscaler does.
func autoscale(ctx context.Context, t *testing.T, m changing) {
	t.Helper()
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 2}}
	scale.Namespace, scale.Name = m.owner.GetNamespace(), m.owner.GetName()
	check(t, m.c.Client.SubResource("scale").Update(ctx, m.owner, client.WithSubResourceBody(scale)))
}

// moveAgain: a second wish for the pod is rejected, the first goes on.
func moveAgain(ctx context.Context, t *testing.T, m changing) {
	t.Helper()
	second := must[*v1alpha1.PodMigration](t)(m.c.Ended(ctx, must[*v1alpha1.PodMigration](t)(m.c.Order(ctx, m.pod, ""))))
	c := meta.FindStatusCondition(second.Status.Conditions, v1alpha1.ConditionAccepted)
	if second.Status.Phase != v1alpha1.PhaseRejected || c == nil || c.Reason != controller.ReasonAlreadyMigrating && c.Reason != controller.ReasonPodNotFound {
		t.Errorf("the second wish: phase %s, %+v", second.Status.Phase, c)
	}
}

// whole waits until the owner has what it wants, and nobody else is there.
func (m changing) whole(ctx context.Context, t *testing.T, replicas int, rev string) {
	t.Helper()
	ns := m.owner.GetNamespace()
	check(t, cluster.Eventually(ctx, fmt.Sprintf("%d pods of revision %q", replicas, rev), func(ctx context.Context) (bool, string) {
		var pods corev1.PodList
		if err := m.c.Client.List(ctx, &pods, client.InNamespace(ns)); err != nil {
			return false, err.Error()
		}
		good, says := len(pods.Items) == replicas, ""
		for i := range pods.Items {
			p := &pods.Items[i]
			good = good && p.DeletionTimestamp == nil && cluster.IsReady(p) && p.Annotations[revision] == rev && len(p.OwnerReferences) == 1
			says += fmt.Sprintf("%s ready %t revision %q; ", p.Name, cluster.IsReady(p), p.Annotations[revision])
		}
		return good, says
	}))
	check(t, cluster.Eventually(ctx, "the owner's status", func(ctx context.Context) (bool, string) {
		if err := m.c.Client.Get(ctx, client.ObjectKeyFromObject(m.owner), m.owner); err != nil {
			return false, err.Error()
		}
		var has, ready int32
		switch o := m.owner.(type) {
		case *appsv1.Deployment:
			has, ready = o.Status.Replicas, o.Status.ReadyReplicas
		case *appsv1.StatefulSet:
			has, ready = o.Status.Replicas, o.Status.ReadyReplicas
		}
		return has == int32(replicas) && ready == has, fmt.Sprintf("%d pods, %d ready", has, ready)
	}))
	check(t, m.c.NothingOnHold(ctx, ns))
}
