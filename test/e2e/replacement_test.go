package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
)

// replicas starts a Deployment of so many tickers behind a Service, and gives one of its pods.
func replicas(ctx context.Context, t *testing.T, c *cluster.Cluster, ns string, n int32) *corev1.Pod {
	t.Helper()
	d := c.Deployment(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 64, Movable: true})
	d.Spec.Replicas = &n
	check(t, c.Client.Create(ctx, d))
	check(t, c.Client.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "counter"},
		Spec: corev1.ServiceSpec{
			Selector: d.Spec.Selector.MatchLabels,
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}))
	check(t, settledOn(ctx, c, ns, n))
	pods := &corev1.PodList{}
	check(t, c.Client.List(ctx, pods, client.InNamespace(ns), client.MatchingLabels(d.Spec.Selector.MatchLabels)))
	// The lab's first node has the control plane's work; a pod that is elsewhere is moved.
	i := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool { return p.Spec.NodeName != "n1" })
	return &pods.Items[max(i, 0)]
}

// settledOn waits until the set has so many pods, all of them ready, and the Service all of them.
func settledOn(ctx context.Context, c *cluster.Cluster, ns string, n int32) error {
	return cluster.Eventually(ctx, fmt.Sprintf("%d pods and endpoints", n), func(ctx context.Context) (bool, string) {
		sets := &appsv1.ReplicaSetList{}
		eps := &discoveryv1.EndpointSliceList{}
		if err := c.Client.List(ctx, sets, client.InNamespace(ns)); err != nil {
			return false, err.Error()
		}
		if err := c.Client.List(ctx, eps, client.InNamespace(ns)); err != nil {
			return false, err.Error()
		}
		if len(sets.Items) != 1 || sets.Items[0].Status.Replicas != n || sets.Items[0].Status.ReadyReplicas != n {
			return false, fmt.Sprintf("%d sets", len(sets.Items))
		}
		ready := int32(0)
		for i := range eps.Items {
			ready += int32(len(readyEndpoints(&eps.Items[i])))
		}
		return ready == n, fmt.Sprintf("%d ready endpoints", ready)
	})
}

// readyEndpoints are the UIDs of the pods to which a client may be sent.
func readyEndpoints(s *discoveryv1.EndpointSlice) []types.UID {
	var out []types.UID
	for _, e := range s.Endpoints {
		if e.TargetRef != nil && e.Conditions.Ready != nil && *e.Conditions.Ready {
			out = append(out, e.TargetRef.UID)
		}
	}
	return out
}

// The replacement has its labels from its creation: its owner makes no third pod for it,
// nobody is sent to it before it runs, and there is a ready endpoint until then.
func TestReplacementHasItsLabelsFromTheStart(t *testing.T) {
	for _, n := range []int32{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			ctx, c, ns := scene(t, fmt.Sprintf("labels-%d", n))
			pod := replicas(ctx, t, c, ns, n)
			pods := must[*cluster.History](t)(c.Follow(ctx, &corev1.PodList{}, ns))
			eps := must[*cluster.History](t)(c.Follow(ctx, &discoveryv1.EndpointSliceList{}, ns))
			moves := must[*cluster.History](t)(c.Follow(ctx, &v1alpha1.PodMigrationList{}, ns))
			m := must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, other(pod.Spec.NodeName)))
			end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m))
			if end.Status.Phase != v1alpha1.PhaseCompleted {
				t.Fatalf("phase %s: %s", end.Status.Phase, end.Status.DecisionMessage)
			}
			for _, cond := range end.Status.Conditions {
				t.Logf("%s=%s %s: %s", cond.Type, cond.Status, cond.Reason, cond.Message)
			}
			check(t, settledOn(ctx, c, ns, n))
			check(t, pods.Until(ctx, "the owner has the replacement", func(e watch.Event) bool {
				p, is := e.Object.(*corev1.Pod)
				return is && p.UID == end.Status.Target.PodUID && metav1.GetControllerOf(p) != nil
			}))
			check(t, eps.Until(ctx, "the replacement is the source's heir in the Service", func(e watch.Event) bool {
				s, is := e.Object.(*discoveryv1.EndpointSlice)
				ready := []types.UID{}
				if is {
					ready = readyEndpoints(s)
				}
				return len(ready) == int(n) && slices.Contains(ready, end.Status.Target.PodUID) && !slices.Contains(ready, end.Status.Source.PodUID)
			}))
			samePods(t, pods.End(), end, int(n))
			endpoints(t, eps.End(), end, committedAt(t, moves.End(), m.UID))
		})
	}
}

// samePods: none but those from before and the replacement, whose labels are as said.
func samePods(t *testing.T, events []watch.Event, m *v1alpha1.PodMigration, n int) {
	t.Helper()
	seen := map[types.UID]string{}
	for _, e := range events {
		p, is := e.Object.(*corev1.Pod)
		if !is {
			t.Fatalf("watch of pods: %+v", e.Object)
		}
		seen[p.UID] = p.Name
		if p.UID != m.Status.Target.PodUID {
			continue
		}
		_, marked := p.Labels[v1alpha1.LabelReplacement]
		_, hashed := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		if p.Labels["app"] != "counter" || marked == hashed || hashed != (metav1.GetControllerOf(p) != nil) {
			t.Errorf("labels of the replacement %v, owners %v", p.Labels, p.OwnerReferences)
		}
	}
	if len(seen) != n+1 {
		t.Errorf("%d pods were seen, want %d and the replacement: %v", len(seen), n, seen)
	}
}

// committedAt is the revision in which the move was first seen to be committed: from then on
// the copy may run.
func committedAt(t *testing.T, events []watch.Event, uid types.UID) uint64 {
	t.Helper()
	for _, e := range events {
		if m, is := e.Object.(*v1alpha1.PodMigration); is && m.UID == uid && m.Status.Decision == v1alpha1.Commit {
			return must[uint64](t)(cluster.Revision(m))
		}
	}
	t.Fatal("the move was never seen to be committed")
	return 0
}

// endpoints: the replacement is no ready one while it is held, and until the commit there is one
// always. Afterwards the two kubelets tell, each in its time, that the source has ended and that
// the replacement is ready.
func endpoints(t *testing.T, events []watch.Event, m *v1alpha1.PodMigration, committed uint64) {
	t.Helper()
	for _, e := range events {
		s, is := e.Object.(*discoveryv1.EndpointSlice)
		if !is {
			t.Fatalf("watch of EndpointSlices: %+v", e.Object)
		}
		at := must[uint64](t)(cluster.Revision(s))
		ready := readyEndpoints(s)
		if len(ready) == 0 && at < committed {
			t.Errorf("no ready endpoint at revision %d, before the commit at %d", at, committed)
		}
		if at < committed && slices.Contains(ready, m.Status.Target.PodUID) {
			t.Errorf("the replacement was a ready endpoint at revision %d, before the commit at %d", at, committed)
		}
	}
}

// A budget counts the frozen pod as disrupted: its sibling is not evicted meanwhile, and is
// again when the move has ended.
func TestSiblingIsNotEvictedWhileThePodIsFrozen(t *testing.T) {
	ctx, c, ns := scene(t, "budget")
	pod := replicas(ctx, t, c, ns, 2)
	b := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "counter"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &intstr.IntOrString{IntVal: 1}, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "counter"}},
		},
	}
	check(t, c.Client.Create(ctx, b))
	check(t, allows(ctx, c, b, 1))
	pods := &corev1.PodList{}
	check(t, c.Client.List(ctx, pods, client.InNamespace(ns), client.MatchingLabels{"app": "counter"}))
	sibling := &pods.Items[slices.IndexFunc(pods.Items, func(p corev1.Pod) bool { return p.UID != pod.UID })]
	evict := func() error {
		return c.Client.SubResource("eviction").Create(ctx, sibling, &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}})
	}
	check(t, evict())
	history := must[*cluster.History](t)(c.Follow(ctx, &policyv1.PodDisruptionBudgetList{}, ns))
	m := must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, other(pod.Spec.NodeName)))
	now := must[*v1alpha1.PodMigration](t)(c.Seen(ctx, m, createWaits))
	tries := 0
	for ; !now.Status.Target.Resumed && !v1alpha1.Finished(now); tries++ {
		err := evict()
		check(t, c.Client.Get(ctx, client.ObjectKeyFromObject(m), now))
		if !now.Status.Target.Resumed && !apierrors.IsTooManyRequests(err) {
			t.Errorf("the sibling's eviction before the copy runs: %v, want too many requests", err)
		}
	}
	end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m))
	if end.Status.Phase != v1alpha1.PhaseCompleted || tries < 2 {
		t.Fatalf("phase %s after %d evictions: %s", end.Status.Phase, tries, end.Status.DecisionMessage)
	}
	t.Logf("%d evictions were refused; %+v", tries-1, *end.Status.Budget)
	check(t, allows(ctx, c, b, 1))
	check(t, evict())
	check(t, c.Client.Get(ctx, client.ObjectKeyFromObject(b), b))
	if len(b.Status.DisruptedPods) != 0 {
		t.Errorf("entries are left in the budget: %v", b.Status.DisruptedPods)
	}
	for _, e := range history.End() {
		if b, is := e.Object.(*policyv1.PodDisruptionBudget); is {
			t.Logf("healthy %d of %d, allowed %d, disrupted %v", b.Status.CurrentHealthy, b.Status.ExpectedPods, b.Status.DisruptionsAllowed, b.Status.DisruptedPods)
		}
	}
}

// allows waits until the disruption controller allows so many.
func allows(ctx context.Context, c *cluster.Cluster, b *policyv1.PodDisruptionBudget, n int32) error {
	return cluster.Eventually(ctx, fmt.Sprintf("the budget allows %d", n), func(ctx context.Context) (bool, string) {
		if err := c.Client.Get(ctx, client.ObjectKeyFromObject(b), b); err != nil {
			return false, err.Error()
		}
		return b.Status.ObservedGeneration == b.Generation && b.Status.DisruptionsAllowed == n, fmt.Sprintf("%+v", b.Status)
	})
}
