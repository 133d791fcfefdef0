package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// pauseImage is what the controller gives pods that hold an address.
const pauseImage = "registry.k8s.io/pause:3.10@sha256:ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a"

func handed(m *v1alpha1.PodMigration) bool { return m.Status.HandedOver }

// settled tells that the source is quiet and there is nothing to do but to wait.
func settled(w *world) bool {
	m, p := w.move(), w.pod(oldName)
	return v1alpha1.Finished(m) && leasing(m) && p != nil && runsOnly(p, pauseImage)
}

func service() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}},
	}
}

// policy selects by a label that nobody else selects by.
func policy(by map[string]string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "guard"},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: by}},
	}
}

// asks has the pod ask to keep its connections, where there is a Service and a NetworkPolicy.
func (s scenario) asks(p *corev1.Pod) []client.Object {
	p.Annotations[v1alpha1.AnnotationKeepConnections] = s.keeps
	if s.required {
		p.Annotations[v1alpha1.AnnotationKeepConnectionsRequired] = "true"
	}
	p.Labels["tier"] = "front"
	p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.1.5"}}
	p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	if s.never {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	return []client.Object{service(), policy(map[string]string{"tier": "front"})}
}

// probe is the target's agent asking the network.
func (w *world) probe(c *v1alpha1.ConnectionsStatus) {
	c.State, c.Reason, c.NewAddress = v1alpha1.ConnectionsKept, v1alpha1.ReasonProbed, "10.0.2.9"
	if w.notCarried {
		c.State, c.Reason, c.Message, c.NewAddress = v1alpha1.ConnectionsClosed, v1alpha1.ReasonNotCarried, "nothing came back", ""
	}
}

// leasePatched looks at the moments in which the source changes hands, and its image.
func (w *world) leasePatched(was, is *corev1.Pod) {
	w.t.Helper()
	var m *v1alpha1.PodMigration
	for _, x := range w.moves() {
		if x.Status.Source.PodUID == is.UID {
			m = &x
		}
	}
	if was.Spec.Containers[0].Image != is.Spec.Containers[0].Image && (m == nil || !leasing(m) || !m.Status.Source.Ended || !runsOnly(is, pauseImage)) {
		w.t.Errorf("pod %s was given image %s", is.Name, is.Spec.Containers[0].Image)
	}
	if m == nil || !released(m, is) || released(m, was) {
		return
	}
	p := w.pod(m.Status.Target.PodName)
	if !leasing(m) || p == nil || p.Labels[v1alpha1.LabelReplacement] == "" {
		w.t.Errorf("the source was let go for no lease, or after its owner had the replacement %+v", p)
	}
	if ref := controllerOf(was); ref != nil && !w.held(ownerHold(ref.UID)) {
		w.t.Error("the source was let go while its owner was not on hold")
	}
	if ref := controllerOf(is); ref == nil || ref.UID != m.UID || len(is.OwnerReferences) != 1 || len(is.Finalizers) > 0 {
		w.t.Errorf("the source was let go with owners %v, finalizers %v", is.OwnerReferences, is.Finalizers)
	}
	if is.Labels["tier"] == "" {
		w.t.Errorf("NetworkPolicies do not know the source any more: labels %v", is.Labels)
	}
	w.uncounted(was, is)
}

// uncounted: nobody counts a pod that holds an address.
func (w *world) uncounted(was, is *corev1.Pod) {
	w.t.Helper()
	by := []map[string]string{{"app": "web"}} // the Service, the Deployment and the budget
	switch ref := controllerOf(was); {
	case ofJob(was):
		by = append(by, map[string]string{batchv1.ControllerUidLabel: "uid-" + jobName})
	case ref != nil:
		by = append(by, map[string]string{"pod-template-hash": "5d4"})
	}
	for _, s := range by {
		if labels.SelectorFromSet(s).Matches(labels.Set(is.Labels)) {
			w.t.Errorf("labels %v: selected by %v", is.Labels, s)
		}
	}
}

// leaseDeleted: the source goes only when nobody has its address any more, and all know.
func (w *world) leaseDeleted(m *v1alpha1.PodMigration) {
	w.t.Helper()
	if leasing(m) {
		w.t.Errorf("the source was deleted while its address was leased: %+v", m.Status.Conditions)
	}
	is, p := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAddressLeased), w.pod(m.Status.Source.PodName)
	if is == nil || p == nil || p.DeletionTimestamp != nil {
		return
	}
	if w.now.Before(is.LastTransitionTime.Add(10 * time.Second)) {
		w.t.Errorf("the source was deleted at %s, the lease has ended at %s", w.now, is.LastTransitionTime)
	}
	if until := m.Status.Connections.Until.Add(10 * time.Second); w.maySend(m) && w.now.Before(until) {
		w.t.Errorf("the source was deleted at %s, and the target may send from its address until %s", w.now, until)
	}
}

// movedDeleted: the moved pod's sandbox goes only when the source's node has heard that the lease has
// ended, and sends nothing more to its address.
func (w *world) movedDeleted(m *v1alpha1.PodMigration) {
	w.t.Helper()
	if by := newest(m, w.moves()); by.UID != m.UID && m.Status.Connections.TurnedTo == by.UID {
		return // it is sent to another place
	}
	is := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAddressLeased)
	if is != nil && (leasing(m) || w.now.Before(is.LastTransitionTime.Add(10*time.Second))) {
		w.t.Errorf("pod %s was deleted at %s, to which its old address may be sent on: %+v", m.Status.Target.PodName, w.now, *is)
	}
}

// maySend: nobody has said that the target's kernel lets nothing of the old address out any more.
func (w *world) maySend(m *v1alpha1.PodMigration) bool {
	n := &corev1.Node{}
	w.must(client.IgnoreNotFound(w.api.Get(context.Background(), client.ObjectKey{Name: m.Status.Target.Node}, n)))
	boot := n.Status.NodeInfo.BootID // of a node whose object is gone, or made anew, nothing is known
	return (boot == "" || boot == m.Status.Target.BootID) && !m.Status.Connections.TargetLeft
}

func (w *world) checkLease(s scenario, m *v1alpha1.PodMigration) {
	w.t.Helper()
	if w.held(ownerHold("uid-web-5d4")) {
		w.t.Error("the ReplicaSet is on hold still")
	}
	if m == nil {
		return
	}
	reason := ""
	if c := m.Status.Connections; c != nil && c.State == v1alpha1.ConnectionsClosed {
		reason = c.Reason
	}
	if reason != s.closed {
		w.t.Errorf("connections were closed for the reason %q, want %q", reason, s.closed)
	}
	is := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAddressLeased)
	switch {
	case is == nil && s.lease == "":
	case is == nil || is.Status != metav1.ConditionFalse || is.Reason != s.lease:
		w.t.Errorf("the lease: %+v, want one that has ended for the reason %q", is, s.lease)
	case !m.Status.Connections.LeaseEnded || m.Status.Connections.LeaseReason != s.lease:
		w.t.Errorf("connections %+v, want a lease that has ended for the reason %q", m.Status.Connections, s.lease)
	}
}

// reboots is a node that comes back.
func reboots(name string) func(*world) {
	return func(w *world) {
		n := node(name)
		w.must(w.api.Get(context.Background(), client.ObjectKeyFromObject(n), n))
		n.Status.NodeInfo.BootID = "boot-again"
		w.must(w.api.Status().Update(context.Background(), n))
	}
}

// evictedByKubelet is what a node under pressure makes of a pod: its object stays.
func evictedByKubelet(w *world) {
	p := w.pod(oldName)
	p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted"
	w.must(w.api.Status().Update(context.Background(), p))
}

// guards makes a policy of the labels during the lease.
func guards(by map[string]string) func(*world) {
	return func(w *world) {
		p := policy(by)
		p.Name = "late"
		w.must(w.api.Create(context.Background(), p))
	}
}

var strangeKind = schema.GroupVersionKind{Group: "cilium.io", Version: "v2", Kind: "CiliumNetworkPolicy"}

// GroupsAndMaybeResources are what the API server serves besides its own.
func (w *world) GroupsAndMaybeResources() (*metav1.APIGroupList, map[schema.GroupVersion]*metav1.APIResourceList, map[schema.GroupVersion]error, error) {
	v := strangeKind.GroupVersion()
	resources := map[schema.GroupVersion]*metav1.APIResourceList{}
	if w.stale {
		return &metav1.APIGroupList{}, resources, map[schema.GroupVersion]error{v: errors.New("stale")}, nil
	}
	resources[v] = &metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "ciliumnetworkpolicies", Kind: strangeKind.Kind}}}
	return &metav1.APIGroupList{}, resources, nil, nil
}

// strange is of a kind that nobody here knows.
type strange struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
}

func (s *strange) DeepCopyObject() runtime.Object { c := *s; return &c }

type strangeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []strange `json:"items"`
}

func (s *strangeList) DeepCopyObject() runtime.Object { c := *s; return &c }

func addStrange(scheme *runtime.Scheme) error {
	v := strangeKind.GroupVersion()
	scheme.AddKnownTypeWithName(strangeKind, &strange{})
	scheme.AddKnownTypeWithName(v.WithKind("CiliumNetworkPolicyList"), &strangeList{})
	return nil
}

// foreignPolicy is one of a kind that nobody here knows, in another namespace.
func foreignPolicy(w *world) {
	w.must(w.api.Create(context.Background(), &strange{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "strange"}}))
}

// counts makes a Service of the labels during the lease.
func counts(by map[string]string) func(*world) {
	return func(w *world) {
		s := service()
		s.Name, s.Spec.Selector = "late", by
		w.must(w.api.Create(context.Background(), s))
	}
}

func completes(name string) func(*world) {
	return func(w *world) {
		p := w.pod(name)
		p.Status.Phase = corev1.PodSucceeded
		w.must(w.api.Status().Update(context.Background(), p))
	}
}

// refusedJobs tells that the record says so of a source that its Job does not lose, and that the Job is
// on hold no more.
func refusedJobs(w *world) bool {
	c := meta.FindStatusCondition(w.move().Status.Conditions, v1alpha1.ConditionComplete)
	return c != nil && c.Reason == ReasonNotReleased && !w.held(ownerHold("uid-"+jobName))
}

func leaseScenarios() []scenario {
	const (
		last = v1alpha1.ReasonLastConnection
		gone = ReasonSourceGone
	)
	moved := []string{newName}
	denied := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, oldName, errors.New("images from elsewhere are not allowed"))
	down := apierrors.NewServiceUnavailable("the server is currently unable to handle the request")
	broken := apierrors.NewInternalError(errors.New("failed calling webhook"))
	during := func(then func(*world)) players { return players{endless: true, at: settled, then: then} }
	away := func(then func(*world)) players {
		return players{endless: true, targetAway: true, at: settled, then: then}
	}
	losesTarget := func(w *world) { w.must(w.api.Delete(context.Background(), node("n2"))) }
	all := []scenario{
		{name: "lease", lease: last, pods: moved},
		{name: "lease of a bare pod", bare: true, lease: last, pods: moved},
		{name: "lease of a Job's pod", job: true, lease: last, pods: moved},
		{name: "lease with a budget", calm: true, budget: budget(1), lease: last, pods: moved},
		{name: "lease until its time is over", calm: true, players: players{endless: true}, lease: v1alpha1.ReasonLeaseOver, pods: moved},
		{name: "lease whose source never ends", calm: true, players: players{endless: true, neverEnds: true}, lease: v1alpha1.ReasonLeaseOver, pods: moved},
		{name: "lease whose holder is deleted", calm: true, players: during(gracefully(deletes(oldName))), lease: gone, pods: moved},
		{name: "lease whose holder is deleted at once", calm: true, players: during(deletes(oldName)), lease: gone, pods: moved},
		{name: "lease whose holder is evicted", calm: true, players: during(gracefully(evicts)), lease: gone, pods: moved},
		{name: "lease whose holder's node is drained", calm: true, players: during(gracefully(drains)), lease: gone, pods: moved},
		{name: "lease whose holder is evicted by kubelet", calm: true, players: during(evictedByKubelet), lease: gone, pods: moved},
		{name: "lease whose holder's node is gone", calm: true, players: during(losesNode), lease: gone, pods: moved},
		{name: "lease whose holder's node object is gone", calm: true, players: during(losesSourceNode), lease: gone, pods: moved},
		{name: "lease whose holder's node boots", calm: true, players: during(reboots("n1")), lease: gone, pods: moved},
		{name: "lease whose pod is deleted", calm: true, players: during(deletes(newName)), lease: ReasonReplacementGone, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "lease whose pod ends", calm: true, bare: true, players: during(completes(newName)), lease: ReasonReplacementGone, pods: moved},
		{name: "lease whose pod's node boots", calm: true, players: during(reboots("n2")), lease: ReasonReplacementGone, pods: moved},
		{name: "lease whose pod's node is gone", calm: true, players: during(losesTarget), lease: ReasonReplacementGone, pods: moved},
		{name: "lease that is given up", players: during(cancels), gone: true, pods: moved},
		{name: "lease that is given up, the target's agent is away", calm: true, players: away(cancels), gone: true, pods: moved},
		{name: "lease whose pod is deleted, the target's agent is away", calm: true, players: away(deletes(newName)), lease: ReasonReplacementGone, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "lease whose pod ends, the target's agent is away", calm: true, bare: true, players: away(completes(newName)), lease: ReasonReplacementGone, pods: moved},
		{name: "lease whose pod's node boots, its agent is away", calm: true, players: away(reboots("n2")), lease: ReasonReplacementGone, pods: moved},
		{name: "lease whose pod's node is gone, its agent is away", calm: true, players: away(losesTarget), lease: ReasonReplacementGone, pods: moved},
		{name: "lease, cancelled too late", calm: true, players: players{endless: true, when: committed, then: cancels}, gone: true, pods: moved},
		{name: "lease, source deleted before the hand-over", calm: true, players: players{when: resumed, then: gracefully(deletes(oldName))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, lease: gone, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "lease, replacement deleted before the hand-over", calm: true, players: players{when: resumed, then: deletes(newName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, lease: ReasonReplacementGone, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "lease, scaled to 0 before the hand-over", calm: true, players: players{when: resumed, then: gracefully(scales(0))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, lease: gone},
		{name: "lease whose image's webhook is away until the move is complete", calm: true, players: players{when: committed,
			then: func(w *world) {
				w.refusesImage = broken
				w.at, w.then = func(w *world) bool { return v1alpha1.Finished(w.move()) }, func(w *world) { w.refusesImage = nil }
			}}, lease: last, pods: moved},
		{name: "lease whose image is refused late", calm: true, players: players{when: committed, then: func(w *world) { w.refusesImage = denied }}, lease: ReasonHolderRefused, pods: moved},
		{name: "lease whose image is altered late", calm: true, players: players{when: committed, then: func(w *world) { w.mirrors = true }}, lease: ReasonHolderRefused, pods: moved},
		{name: "lease, a policy comes between", calm: true, players: players{when: committed, then: guards(map[string]string{"app": "web"})}, lease: ReasonNotReleased, pods: moved},
		{name: "lease, a policy of another kind comes between", calm: true, players: players{when: committed, then: foreignPolicy}, lease: ReasonNotReleased, pods: moved},
		{name: "lease during which a policy comes, of a label that was taken off", players: during(guards(map[string]string{"app": "web"})), lease: ReasonPoliciesDiffer, pods: moved},
		{name: "lease during which a policy comes, of the holder's label", calm: true, players: during(guards(map[string]string{v1alpha1.LabelLease: "uid-move"})), lease: ReasonPoliciesDiffer, pods: moved},
		{name: "lease during which a policy comes, of both pods", calm: true, players: during(guards(map[string]string{"tier": "front"})), lease: v1alpha1.ReasonLeaseOver, pods: moved},
		{name: "lease during which a Service comes that counts the holder", calm: true, players: during(counts(map[string]string{"tier": "front"})), lease: ReasonNotReleased, pods: moved},
		{name: "lease during which a policy of another kind comes", calm: true, players: during(foreignPolicy), lease: ReasonForeignPolicies, pods: moved},
		{name: "no lease: a policy of another kind", calm: true, before: foreignPolicy, closed: ReasonForeignPolicies, pods: moved},
		{name: "no lease: policies of another kind are not told", calm: true, players: players{unlistable: denied}, closed: ReasonForeignPolicies, pods: moved},
		{name: "no lease: policies of another kind are not told now", calm: true, players: players{unlistable: down}, closed: ReasonForeignPolicies, pods: moved},
		{name: "no lease: whether there are kinds of policies is not told", calm: true, players: players{stale: true}, closed: ReasonForeignPolicies, pods: moved},
		{name: "lease, policies of another kind are not told between", calm: true, players: players{when: committed, then: func(w *world) { w.unlistable = denied }}, lease: ReasonNotReleased, pods: moved},
		{name: "lease during which policies of another kind are not told", calm: true, players: during(func(w *world) { w.unlistable = down }), lease: v1alpha1.ReasonLeaseOver, pods: moved},
		{name: "lease during which kinds of policies are not told", calm: true, players: during(func(w *world) { w.stale = true }), lease: v1alpha1.ReasonLeaseOver, pods: moved},
		{name: "lease, release refused", players: players{refusesRelease: denied}, lease: ReasonNotReleased, pods: moved},
		{name: "lease, release refused, the target's agent is away", calm: true, players: players{refusesRelease: denied, targetAway: true}, lease: ReasonNotReleased, pods: moved},
		{name: "lease of a Job's pod, release refused", calm: true, job: true, players: players{refusesRelease: broken, at: refusedJobs, then: func(w *world) { w.refusesRelease = nil }}, lease: ReasonNotReleased, pods: moved},
		{name: "lease, a webhook for its release is away for a moment", calm: true, players: players{refusesRelease: refusals()[2], at: waitsFor("WaitingForRelease", "says no"), then: func(w *world) { w.refusesRelease = nil }}, lease: last, pods: moved},
		{name: "lease of a bare pod, release refused", calm: true, bare: true, players: players{refusesRelease: denied}, lease: ReasonNotReleased, pods: moved},
		{name: "lease, release altered", calm: true, players: players{relabels: true}, lease: ReasonNotReleased, pods: moved},
		{name: "lease, its mark taken off", calm: true, players: players{strips: true}, lease: ReasonNotReleased, pods: moved},
		{name: "lease of a Job's pod, its mark taken off", calm: true, job: true, players: players{strips: true}, lease: ReasonNotReleased, pods: moved},
		{name: "lease of a bare pod, its mark taken off", calm: true, bare: true, players: players{strips: true}, lease: ReasonNotReleased, pods: moved},
		{name: "lease, hold refused", calm: true, players: players{refuses: refusals()[0], at: waitsFor("WaitingForHold", "a pod of it"), then: func(w *world) { w.refuses = nil }}, lease: last, pods: moved},
		{name: "lease lost with the target", calm: true, players: players{targetLost: true}, phase: v1alpha1.PhaseLost, reason: "TargetLost", pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "lease whose target dies after the commit", calm: true, players: players{targetDies: true}, phase: v1alpha1.PhaseReturned, reason: "Returned", pods: []string{oldName}},
		{name: "no lease: not carried", calm: true, players: players{notCarried: true}, closed: v1alpha1.ReasonNotCarried, pods: moved},
		{name: "no lease: older agents", calm: true, players: players{notAsked: true}, closed: ReasonNotProbed, pods: moved},
		{name: "no lease: not carried, but required", calm: true, required: true, players: players{notCarried: true}, closed: v1alpha1.ReasonNotCarried,
			phase: v1alpha1.PhaseAborted, reason: ReasonConnectionsNotKept, pods: []string{oldName}},
		{name: "no lease: a StatefulSet's pod", calm: true, set: true, old: ownName, closed: ReasonNameNeeded, pods: []string{ownName}},
		{name: "no lease: a pod that keeps its name", calm: true, bare: true, keep: true, closed: ReasonNameNeeded, pods: []string{oldName}},
		{name: "no lease: never restarted", calm: true, job: true, never: true, closed: ReasonNeverRestarted, pods: moved},
		{name: "no lease: image refused", calm: true, players: players{refusesImage: denied}, closed: ReasonHolderRefused, pods: moved},
		{name: "no lease: image altered", calm: true, players: players{mirrors: true}, closed: ReasonHolderRefused, pods: moved},
		{name: "no lease: image refused, but required", calm: true, required: true, players: players{refusesImage: denied},
			phase: v1alpha1.PhaseRejected, reason: ReasonHolderRefused, pods: []string{oldName}},
		{name: "no lease: a StatefulSet's pod, but required", calm: true, required: true, set: true, old: ownName,
			phase: v1alpha1.PhaseRejected, reason: ReasonNameNeeded, pods: []string{ownName}},
	}
	for i := range all {
		s := &all[i]
		if s.keeps = "30s"; s.phase == "" && !s.gone {
			s.phase, s.reason = v1alpha1.PhaseCompleted, "Moved"
		}
	}
	return all
}

// The move is complete when the owner has the pod; its record stays as long as the lease, and then
// as long as that of any other move.
func TestRecordStaysWithTheLease(t *testing.T) {
	w := named("lease").begin(t, fault{})
	w.endless, w.r.Config.KeepFor = true, time.Minute
	finished := false
	for range 400 {
		m := w.move()
		if m == nil {
			break
		}
		if v1alpha1.Finished(m) {
			finished = true
			if leasing(m) && !slices.Contains(m.Finalizers, v1alpha1.Finalizer) {
				t.Fatal("nothing keeps the record while the lease lives")
			}
			if p := w.pod(oldName); leasing(m) && (p == nil || p.DeletionTimestamp != nil) {
				t.Fatal("the source is gone while its address is leased")
			}
			if !leasing(m) && w.pod(oldName) == nil && since(m, w.now, v1alpha1.ConditionAddressLeased) > w.r.Config.KeepFor+2*time.Second {
				t.Fatal("the record stays for ever")
			}
		}
		if _, err := w.r.Reconcile(context.Background(), w.request()); err != nil {
			t.Fatal(err)
		}
		w.play()
		w.now = w.now.Add(time.Second)
	}
	if m := w.move(); !finished || m != nil {
		t.Errorf("finished %t, the record is %+v", finished, m)
	}
}

// The lease is counted from when the controller has seen that the pod runs, which is after the
// target has begun to count, and a margin more.
func TestLeaseTime(t *testing.T) {
	w := named("lease until its time is over").begin(t, fault{})
	m := w.run()
	var begun, ended time.Time
	for _, e := range m.Status.Timeline {
		switch e.Step {
		case "AddressLeased":
			begun = e.At.Time
		case "LeaseEnded":
			ended = e.At.Time
		}
	}
	until := m.Status.Connections.Until.Time
	if want := begun.Add(30*time.Second + leaseMargin); begun.IsZero() || !until.Equal(want) || ended.Before(until) || ended.After(until.Add(2*time.Second)) {
		t.Errorf("leased at %s until %s, ended at %s; want until %s", begun, until, ended, want)
	}
}

// lease lets everybody act until the source is quiet, and nothing is to be done but to wait.
func (w *world) lease() {
	w.t.Helper()
	for !settled(w) {
		if _, err := w.r.Reconcile(context.Background(), w.request()); err != nil {
			w.t.Fatal(err)
		}
		w.play()
		w.now = w.now.Add(time.Second)
		if w.now.Sub(start) > time.Minute {
			w.t.Fatalf("no lease: %+v", w.move().Status.Conditions)
		}
	}
}

// served fails unless the Service has a pod.
func (w *world) served() {
	w.t.Helper()
	var pods corev1.PodList
	w.must(w.api.List(context.Background(), &pods, client.InNamespace(testNamespace), client.MatchingLabels(service().Spec.Selector)))
	if !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return podReady(&p) && p.DeletionTimestamp == nil }) {
		w.t.Errorf("at %s the Service has no pod that is ready", w.now.Sub(start))
	}
}

// Its Services have the source, whose address leads to the replacement, until they have that.
func TestServedThroughout(t *testing.T) {
	for _, name := range []string{"lease", "lease of a bare pod", "lease of a Job's pod"} {
		t.Run(name, func(t *testing.T) {
			w := named(name).begin(t, fault{})
			w.endless, w.unready = true, 10
			for !settled(w) {
				if _, err := w.r.Reconcile(context.Background(), w.request()); err != nil {
					t.Fatal(err)
				}
				w.served()
				w.play()
				w.served()
				w.now = w.now.Add(time.Second)
				if w.now.Sub(start) > time.Minute {
					t.Fatalf("no lease: %+v", w.move().Status.Conditions)
				}
			}
		})
	}
}

// A source is kept for a replacement that is not ready for so long, and no longer.
func TestEndsForNoReplacement(t *testing.T) {
	s := named("lease")
	s.keeps = "1h"
	w := s.begin(t, fault{})
	w.endless, w.unready = true, 1000
	for !w.move().Status.Source.Ended {
		if _, err := w.r.Reconcile(context.Background(), w.request()); err != nil {
			t.Fatal(err)
		}
		w.play()
		w.now = w.now.Add(time.Second)
		if w.now.Sub(start) > 5*time.Minute {
			t.Fatalf("the source is kept for ever: %+v", w.move().Status.Conditions)
		}
	}
	if d, most := sinceDecided(w.move(), w.now), w.r.Config.ReadyDeadline; d < most || d > most+5*time.Second {
		t.Errorf("the source was ended %s after the commit, want %s", d, most)
	}
}

// The lease ends before the sandbox of the pod on the target can go: its own address may be another's
// soon, and nothing is to be sent on to that.
func TestLeaseEndsBeforeItsPod(t *testing.T) {
	for name, goes := range map[string]func(*corev1.Pod){
		"the pod is being deleted": nil,
		"its containers have ended": func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
		},
	} {
		w := named("lease").begin(t, fault{})
		w.endless = true
		w.lease()
		p := w.pod(newName)
		if goes != nil {
			goes(p)
			w.must(w.api.Status().Update(context.Background(), p))
		} else {
			p.Finalizers = append(p.Finalizers, grace)
			w.must(w.api.Update(context.Background(), p))
			deletes(newName)(w)
		}
		for range 2 {
			if _, err := w.r.Reconcile(context.Background(), w.request()); err != nil {
				t.Fatal(err)
			}
		}
		if c := w.move().Status.Connections; !c.LeaseEnded || c.LeaseReason != ReasonReplacementGone || w.pod(newName) == nil {
			t.Errorf("%s: lease ended %v, %s, while the pod is there: %v", name, c.LeaseEnded, c.LeaseReason, w.pod(newName) != nil)
		}
	}
}

// An owner that goes between release and adoption takes the pod with it.
func TestSetGoesBetweenReleaseAndAdoption(t *testing.T) {
	w := named("lease").begin(t, fault{})
	w.when, w.then = resumed, func(w *world) {
		source := w.pod(oldName)
		source.Labels, source.OwnerReferences = map[string]string{v1alpha1.LabelLease: "uid-move"}, []metav1.OwnerReference{leaseOwner(w.move())}
		w.must(w.api.Update(context.Background(), source))
		w.must(w.api.Delete(context.Background(), replicaSet()))
	}
	m := w.run()
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionComplete)
	if m.Status.Phase != v1alpha1.PhaseAborted || c.Reason != ReasonOwnerGone || w.pod(newName) != nil || w.pod(oldName) != nil {
		t.Errorf("phase %s, %+v; pods left: %t, %t", m.Status.Phase, c, w.pod(newName) != nil, w.pod(oldName) != nil)
	}
}

// A deletion of the source after it was let go is no wish about the pod that has moved.
func TestReleasedSourceSaysNothing(t *testing.T) {
	w := named("lease").begin(t, fault{})
	w.when, w.then = resumed, func(w *world) {
		source := w.pod(oldName)
		source.Labels, source.OwnerReferences = map[string]string{v1alpha1.LabelLease: "uid-move"}, []metav1.OwnerReference{leaseOwner(w.move())}
		w.must(w.api.Update(context.Background(), source))
		var held corev1.ConfigMap
		w.must(w.api.Get(context.Background(), client.ObjectKey{Namespace: system, Name: v1alpha1.HoldsConfigMap}, &held))
		held.Data = map[string]string{ownerHold("uid-web-5d4"): holder(w.move())}
		w.must(w.api.Update(context.Background(), &held))
		gracefully(deletes(oldName))(w)
	}
	if m := w.run(); m.Status.Phase != v1alpha1.PhaseCompleted || w.pod(newName) == nil || m.Status.Connections.LeaseReason != ReasonSourceGone {
		t.Errorf("phase %s, %+v", m.Status.Phase, m.Status.Conditions)
	}
}

// A release that something alters ends the lease, whenever that is seen: not only by the call that
// has made it, whose word may be lost.
func TestAlteredReleaseIsSeenLater(t *testing.T) {
	for _, name := range []string{"lease, release altered", "lease, its mark taken off"} {
		s := named(name)
		w := s.begin(t, fault{})
		w.run()
		for call := 1; call <= w.calls; call++ {
			for _, mode := range []string{"after", "conflict"} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, mode, call), func(t *testing.T) {
					w := s.begin(t, fault{at: call, mode: mode})
					s.check(t, w, w.run())
				})
			}
		}
	}
}

// What scales a Deployment counts pods by its selector alone, so also one that its ReplicaSet has no more.
func TestDeploymentCountsHolder(t *testing.T) {
	w := named("lease").begin(t, fault{})
	w.endless = true
	w.lease()
	d := deployment()
	w.must(w.api.Get(context.Background(), client.ObjectKeyFromObject(d), d))
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front"}}
	w.must(w.api.Update(context.Background(), d))
	if m := w.run(); m.Status.Connections.LeaseReason != ReasonNotReleased {
		t.Errorf("the lease ended for the reason %s, want %s", m.Status.Connections.LeaseReason, ReasonNotReleased)
	}
}

// The owner of a pod whose replacement is gone is not kept from making one while the source waits for
// the end of a lease that the target's agent, which is away, has not heard of.
func TestNobodyIsOnHoldForTheEndOfALease(t *testing.T) {
	w := named("lease, release refused, the target's agent is away").begin(t, fault{})
	w.at, w.then = func(w *world) bool { return keepsAddress(w.move()) && !leasing(w.move()) }, deletes(newName)
	for range 20 {
		if _, err := w.r.Reconcile(context.Background(), w.request()); err != nil {
			t.Fatal(err)
		}
		w.play()
		w.now = w.now.Add(time.Second)
	}
	if m := w.move(); w.pod(newName) != nil || leasing(m) || w.pod(oldName) == nil || leaseLeft(m, Facts{Now: w.now, TargetNode: node("n2")}) <= 0 {
		t.Fatalf("the source waits for nothing: %+v", m.Status.Conditions)
	}
	if c := meta.FindStatusCondition(w.move().Status.Conditions, v1alpha1.ConditionComplete); c == nil || c.Reason != "WaitingForTarget" || !strings.Contains(c.Message, "holds the old address until the agent on node n2") {
		t.Errorf("nobody is told for whom it waits: %+v", c)
	}
	if w.held(ownerHold("uid-web-5d4")) {
		t.Error("the ReplicaSet is on hold still")
	}
}

// Only a node that tells of another boot can send nothing any more: that its object is gone, or was
// made anew and says nothing yet, tells nothing of its kernel.
func TestWhenTheTargetCanSendNoMore(t *testing.T) {
	m := wish()
	until := metav1.NewMicroTime(start.Add(time.Minute))
	m.Status.Target.Resumed, m.Status.Target.BootID = true, "boot-n2"
	m.Status.Connections = &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsKept, LeaseEnded: true, Until: &until}
	setCondition(m, start, v1alpha1.ConditionAddressLeased, false, ReasonReplacementGone, "")
	anew := func(boot string) *corev1.Node {
		n := node("n2")
		n.Status.NodeInfo.BootID = boot
		return n
	}
	for name, c := range map[string]struct {
		node *corev1.Node
		want time.Duration
	}{
		"the same boot": {node("n2"), 70 * time.Second}, // 60 s and the margin
		"another boot":  {anew("boot-again"), 10 * time.Second},
		"says nothing":  {anew(""), 70 * time.Second},
		"no object":     {nil, 70 * time.Second},
	} {
		if got := leaseLeft(m, Facts{Now: start, TargetNode: c.node}); got != c.want {
			t.Errorf("%s: the source stays for %s, want %s", name, got, c.want)
		}
	}
}
