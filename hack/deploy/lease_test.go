package deploy

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/record"
	"k8s.io/kubectl/pkg/drain"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/controller"
)

const pause = "registry.example/pause:3.10@sha256:ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a"

// leasing is one move of a ReplicaSet's pod that asks to keep its connections: by the controller
// with the chart's rights, under the chart's policies. Scheduler, kubelets and agents are played.
type leasing struct {
	*cluster
	r      *controller.Reconciler
	move   *v1alpha1.PodMigration
	source *corev1.Pod
	// from and to are the nodes.
	from, to string
	later    time.Duration // by how much the controller's clock is ahead
}

func newLeasing(t *testing.T) *leasing {
	c := newCluster(t)
	ctx := t.Context()
	if err := c.admin.Create(ctx, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.RuntimeClassName}, Handler: "drover"}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		n := &corev1.Node{}
		c.get("", name, n)
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		n.Status.NodeInfo.BootID = "boot-" + name
		c.status(n)
		a := c.pod(Namespace, "agent-"+name+"-"+c.ns, "default", name)
		a.Labels = map[string]string{"app.kubernetes.io/name": "lease-agent"}
		if err := c.admin.Update(ctx, a); err != nil {
			t.Fatal(err)
		}
		c.runs(a)
	}
	by := map[string]string{"app": "web"}
	hashed := map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: "5d4"}
	one := int32(1)
	spec := corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "web-5d4"}, Spec: appsv1.ReplicaSetSpec{
		Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: hashed}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: hashed}, Spec: spec}}}
	c.make(rs)
	c.make(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "web"}, Spec: corev1.ServiceSpec{Selector: by, Ports: []corev1.ServicePort{{Port: 80}}}})
	// Nobody may evict a pod of the set.
	c.make(&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "other"},
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}})
	class := v1alpha1.RuntimeClassName
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "web-5d4-abcde", Labels: hashed,
		Annotations:     map[string]string{v1alpha1.AnnotationMigrate: "true", v1alpha1.AnnotationKeepConnections: "10m"},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}}, Spec: spec}
	p.Spec.NodeName, p.Spec.RuntimeClassName = "n1", &class
	c.make(p)
	c.runs(p)
	as := c.program("drover-controller", "n1")
	l := &leasing{cluster: c, source: p, move: c.wish("m", p.Name, ""), from: "n1", to: "n2"}
	kinds, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		t.Fatal(err)
	}
	agents, err := labels.Parse("app.kubernetes.io/name=lease-agent")
	if err != nil {
		t.Fatal(err)
	}
	l.r = &controller.Reconciler{Reader: as, Kinds: kinds, Writer: as, Status: as, Events: &record.FakeRecorder{}, Now: func() time.Time { return time.Now().Add(l.later) },
		Config: controller.Config{Namespace: Namespace, AgentSelector: agents, PauseImage: pause, CarryEarlierAddresses: true, KeepFor: -1}.WithDefaults()}
	c.make(l.move)
	return l
}

func (c *cluster) get(namespace, name string, o client.Object) {
	c.Helper()
	if err := c.admin.Get(c.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) status(o client.Object) {
	c.Helper()
	if err := c.admin.Status().Update(c.Context(), o); err != nil {
		c.Fatal(err)
	}
}

// runs is kubelet's word that the pod is ready.
func (c *cluster) runs(p *corev1.Pod) {
	c.Helper()
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.1.5", PodIPs: []corev1.PodIP{{IP: "10.0.1.5"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "c", Image: "i", ImageID: "x", ContainerID: "containerd://c0ffee", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}
	c.status(p)
}

// steps lets the controller work until the record is as wanted.
func (l *leasing) steps(what string, is func(*v1alpha1.PodMigration) bool) {
	l.Helper()
	l.until(what, func(ctx context.Context) bool {
		if _, err := l.r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(l.move)}); err != nil {
			l.Fatalf("%s: %v", what, err)
		}
		l.get(l.ns, l.move.Name, l.move)
		return is(l.move)
	})
}

func (l *leasing) say(who client.Client, do func(*v1alpha1.PodMigrationStatus)) {
	l.Helper()
	l.get(l.ns, l.move.Name, l.move)
	do(&l.move.Status)
	if err := who.Status().Update(l.Context(), l.move); err != nil {
		l.Fatal(err)
	}
}

// leased carries the move so far that its source is kept for its address alone.
func (l *leasing) leased() (moved *corev1.Pod) {
	l.Helper()
	source, target := l.program("drover-agent", l.from), l.program("drover-agent", l.to)
	l.steps("the replacement is not made", func(m *v1alpha1.PodMigration) bool { return m.Status.Target.PodUID != "" })
	moved = &corev1.Pod{}
	l.get(l.ns, l.move.Status.Target.PodName, moved)
	if err := l.admin.SubResource("binding").Create(l.Context(), moved, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: l.to}}); err != nil {
		l.Fatal(err)
	}
	l.steps("the target is not named", func(m *v1alpha1.PodMigration) bool { return m.Status.Target.Node == l.to })
	type st = v1alpha1.PodMigrationStatus
	at := metav1.NowMicro()
	l.say(target, func(s *st) { s.Target.Waiting, s.Target.BootID = true, "boot-"+l.to })
	l.say(target, func(s *st) { s.Connections.State, s.Connections.NewAddress = v1alpha1.ConnectionsKept, "10.0.2.9" })
	l.say(source, func(s *st) { s.Source.Offered = true })
	l.say(target, func(s *st) { s.Decision, s.DecisionBy, s.DecidedAt = v1alpha1.Commit, "target "+l.to, &at })
	l.say(target, func(s *st) { s.Target.Starting = true })
	l.say(target, func(s *st) { s.Target.Resumed = true })
	l.say(source, func(s *st) { s.Source.Ended = true })
	l.get(l.ns, moved.Name, moved)
	l.runs(moved)
	l.steps("the move is not completed", v1alpha1.Finished)
	l.get(l.ns, moved.Name, moved)
	l.get(l.ns, l.source.Name, l.source)
	return moved
}

// The set's pod is the moved one, and the pod that holds the old address is nobody's and quiet.
func TestControllerLeasesAddresses(t *testing.T) {
	l := newLeasing(t)
	moved := l.leased()
	if ref := metav1.GetControllerOf(moved); ref == nil || ref.Name != "web-5d4" || moved.Labels["app"] != "web" {
		t.Errorf("the moved pod: owners %v, labels %v", moved.OwnerReferences, moved.Labels)
	}
	s := l.source
	if !metav1.IsControlledBy(s, l.move) || s.Labels["app"] != "" || s.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != "" || s.Spec.Containers[0].Image != pause || s.DeletionTimestamp != nil {
		t.Errorf("the source: owners %v, labels %v, image %s", s.OwnerReferences, s.Labels, s.Spec.Containers[0].Image)
	}
	var holds corev1.ConfigMap
	l.get(Namespace, v1alpha1.HoldsConfigMap, &holds)
	if held := slices.Collect(func(yield func(string) bool) {
		for key, by := range holds.Data {
			if by == l.ns+"/m/"+string(l.move.UID) && !yield(key) {
				return
			}
		}
	}); len(held) > 0 {
		t.Errorf("on hold still: %v", held)
	}
	// The target's agent has no connections any more, and says a moment later that it has left; which
	// the source's cannot say.
	source, target := l.program("drover-agent", "n1"), l.program("drover-agent", "n2")
	l.say(target, func(s *v1alpha1.PodMigrationStatus) {
		s.Connections.LeaseEnded, s.Connections.LeaseReason = true, v1alpha1.ReasonLastConnection
	})
	l.steps("the end of the lease is not told", func(m *v1alpha1.PodMigration) bool {
		return slices.ContainsFunc(m.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == v1alpha1.ConditionAddressLeased && c.Status == metav1.ConditionFalse && c.Reason == v1alpha1.ReasonLastConnection
		})
	})
	l.get(l.ns, l.move.Name, l.move)
	l.move.Status.Connections.TargetLeft = true
	if err := source.Status().Update(t.Context(), l.move); err == nil || !strings.Contains(err.Error(), "that it has left") {
		t.Errorf("the source says that the target has left: %v", err)
	}
	l.say(target, func(s *v1alpha1.PodMigrationStatus) { s.Connections.TargetLeft = true })
	l.later = time.Minute
	l.steps("the source is not deleted", func(m *v1alpha1.PodMigration) bool { return len(m.Finalizers) == 0 })
	if err := l.admin.Get(t.Context(), client.ObjectKeyFromObject(l.source), &corev1.Pod{}); !apierrors.IsNotFound(err) {
		t.Errorf("the source: %v, want not found", err)
	}
}

// A pod that moves again, to a third node, takes its first address along: each agent says of
// it what its node does, in the record of its own move, and the controller ends the lease.
func TestControllerTakesAddressesAlong(t *testing.T) {
	first := newLeasing(t)
	second := &leasing{cluster: first.cluster, r: first.r, source: first.leased(), from: "n2", to: "n3"}
	second.move = first.wish("m2", second.source.Name, "")
	first.make(second.move)
	second.leased()
	leased := func(m *v1alpha1.PodMigration) bool { return !m.Status.Connections.LeaseEnded }
	if all := second.move.Status.Connections.Earlier; len(all) != 1 || all[0].UID != first.move.UID || all[0].Node != "n1" || !slices.Equal(all[0].Addresses, first.move.Status.Connections.OldAddresses) {
		t.Fatalf("along goes %+v", all)
	}
	first.steps("the first lease has ended", leased)
	first.say(first.program("drover-agent", "n1"), func(s *v1alpha1.PodMigrationStatus) { s.Connections.TurnedTo = second.move.UID })
	second.say(first.program("drover-agent", "n3"), func(s *v1alpha1.PodMigrationStatus) {
		e := &s.Connections.Earlier[0]
		e.Ended, e.TargetLeft, e.EndReason = true, true, v1alpha1.ReasonLastConnection
	})
	first.steps("the end of the first lease is not told", func(m *v1alpha1.PodMigration) bool {
		c := m.Status.Connections
		return c.LeaseEnded && c.TargetLeft && c.LeaseReason == v1alpha1.ReasonLastConnection
	})
	first.later = time.Minute
	first.steps("the first source is not deleted", func(m *v1alpha1.PodMigration) bool { return len(m.Finalizers) == 0 })
	second.steps("the second lease has ended", leased)
	first.get(first.ns, second.source.Name, second.source)
	if second.source.DeletionTimestamp != nil {
		t.Error("what holds the second address is being deleted")
	}
}

// kubectl drain empties a node on which addresses are held, without --force and without to ask a
// budget: the leases end, the pods that have moved are left alone.
func TestDrainEndsLeases(t *testing.T) {
	l := newLeasing(t)
	moved := l.leased()
	d := &drain.Helper{Ctx: t.Context(), Client: l.set, Out: io.Discard, ErrOut: io.Discard, GracePeriodSeconds: -1,
		IgnoreAllDaemonSets: true, PodSelector: v1alpha1.LabelLease + "=" + string(l.move.UID)}
	found, errs := d.GetPodsForDeletion("n1")
	if len(errs) > 0 {
		t.Fatalf("kubectl drain would not go on: %v", errs)
	}
	if pods := found.Pods(); len(pods) != 1 || pods[0].UID != l.source.UID {
		t.Fatalf("it found %v, want the source", pods)
	}
	if err := d.EvictPod(found.Pods()[0], policyv1.SchemeGroupVersion); err != nil {
		t.Fatal(err)
	}
	l.get(l.ns, l.source.Name, l.source)
	if l.source.DeletionTimestamp == nil {
		t.Fatal("the source is not being deleted")
	}
	l.steps("the lease is not ended", func(m *v1alpha1.PodMigration) bool { return m.Status.Connections.LeaseEnded })
	if c := l.move.Status.Connections; c.LeaseReason != controller.ReasonSourceGone {
		t.Errorf("the lease ended for the reason %s: %s", c.LeaseReason, c.LeaseMessage)
	}
	l.say(l.program("drover-agent", "n2"), func(s *v1alpha1.PodMigrationStatus) { s.Connections.TargetLeft = true })
	l.later = time.Minute
	l.steps("the record is not let go", func(m *v1alpha1.PodMigration) bool { return len(m.Finalizers) == 0 })
	l.get(l.ns, moved.Name, moved)
	if moved.DeletionTimestamp != nil || l.move.Status.Phase != v1alpha1.PhaseCompleted {
		t.Errorf("the moved pod: %+v, phase %s", moved.ObjectMeta, l.move.Status.Phase)
	}
}

// A policy of a kind that Drover does not know, which the cluster did not even have when the
// controller began, ends the lease.
func TestForeignPoliciesEndLeases(t *testing.T) {
	l := newLeasing(t)
	l.leased()
	definition := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "ciliumnetworkpolicies.cilium.io"},
		"spec": map[string]any{
			"group": "cilium.io", "scope": "Namespaced",
			"names": map[string]any{"kind": "CiliumNetworkPolicy", "plural": "ciliumnetworkpolicies"},
			"versions": []any{map[string]any{"name": "v2", "served": true, "storage": true, "schema": map[string]any{
				"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
		},
	}}
	l.make(definition)
	policy := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": map[string]any{"namespace": l.ns, "name": "strange"}}}
	l.until("the kind is not served", func(ctx context.Context) bool { return l.admin.Create(ctx, policy) == nil })
	t.Cleanup(func() { // the next test's controller would see them, too
		for _, o := range []client.Object{policy, definition} {
			if err := l.admin.Delete(context.Background(), o); err != nil {
				t.Error(err)
			}
		}
	})
	l.steps("the lease is not ended", func(m *v1alpha1.PodMigration) bool { return m.Status.Connections.LeaseEnded })
	if c := l.move.Status.Connections; c.LeaseReason != controller.ReasonForeignPolicies || !strings.Contains(c.LeaseMessage, l.ns+"/strange") {
		t.Errorf("the lease ended for the reason %s: %s", c.LeaseReason, c.LeaseMessage)
	}
}
