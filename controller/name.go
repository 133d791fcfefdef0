package controller

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/drover-project/drover/api/v1alpha1"
)

// A pod that keeps its name moves twice, for no two objects can hold one name: first under
// another name, then, once the first object is gone, back to its own by a second
// PodMigration, a child of the first (docs/decisions/0010). At every moment the process that
// runs has its object, so either step can be aborted as any other. From before the first
// object is deleted until the end the name is on hold.

// keepsName tells whether the pod wants its own name back after this move. hand is what
// its owner gets.
func keepsName(m *v1alpha1.PodMigration, p *corev1.Pod, hand HandOver) bool {
	ref := ownerIn(hand)
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	return !returnsName(m) && (ofStatefulSet(ref) || ref == nil && p.Annotations[v1alpha1.AnnotationKeepName] == "true" && !ended)
}

// returnsName tells that the move is the second step, whose source is its parent's target.
func returnsName(m *v1alpha1.PodMigration) bool { return m.Spec.KeepName != "" }

// parentOf is the first step that m is the second of; nil: there is none among all.
func parentOf(m *v1alpha1.PodMigration, all []v1alpha1.PodMigration, p *corev1.Pod) *v1alpha1.PodMigration {
	for i := range all {
		if isChildOf(m, &all[i], p) {
			return &all[i]
		}
	}
	return nil
}

// isChildOf tells whether m is the second step of parent, of that pod.
func isChildOf(m, parent *v1alpha1.PodMigration, p *corev1.Pod) bool {
	return returnsName(m) && metav1.IsControlledBy(m, parent) && parent.Status.Target.Resumed &&
		parent.Status.Target.PodUID == p.UID && parent.Status.Source.PodName == m.Spec.KeepName
}

// giveName is the hand-over of a pod that keeps its name: the source goes, then the second
// step is made, and made again until one has succeeded.
func (r *Reconciler) giveName(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p, source *corev1.Pod, hand HandOver) (ctrl.Result, error) {
	name := m.Status.Source.PodName
	if why, err := r.nameUnwanted(ctx, m, hand); err != nil {
		return ctrl.Result{}, err
	} else if why != nil {
		if source != nil && source.DeletionTimestamp == nil {
			// Its owner deletes it, or leaves it as an orphan.
			return r.await(ctx, m, f, refuse("WaitingForOwner", "%s; waiting for what becomes of the pod", why.Message))
		}
		return r.discard(ctx, m, f, p, why)
	}
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return r.discard(ctx, m, f, p, refuse(ReasonReplacementFailed, "moved to node %s, where pod %s then ended: %s %s",
			m.Status.Target.Node, p.Name, p.Status.Reason, p.Status.Message))
	}
	if slices.ContainsFunc(m.Status.Source.Containers, func(c v1alpha1.MovingContainer) bool { return runningID(p, c.Name) == "" }) {
		return r.await(ctx, m, f, refuse("WaitingForReady", "the pod runs on node %s; waiting until kubelet there says so of pod %s", m.Status.Target.Node, p.Name))
	}
	held, no, err := r.hold(ctx, m, nameHold(m.Namespace, name), nameProbe(p, name))
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case no != nil:
		return r.await(ctx, m, f, refuse("WaitingForName",
			"pod %s runs on node %s as %s; it cannot get its name back while the API server refuses a pod %s (asked by a dry run): let it be created, or, to end this, delete pod %s. It says: %v",
			name, m.Status.Target.Node, p.Name, name, p.Name, no))
	case !held:
		return ctrl.Result{RequeueAfter: again}, nil
	}
	if setCondition(m, f.Now, v1alpha1.ConditionNameHeld, true, "Held", fmt.Sprintf("nobody makes a pod %s until the moved one has its name back", name)) {
		note(m, f.Now, "NameHeld", name)
		if err := r.save(ctx, m); err != nil {
			return ctrl.Result{}, err
		}
	}
	if source != nil {
		return r.removeSource(ctx, m, f, source)
	}
	if f.Pod != nil {
		return r.clearName(ctx, m, f, hand)
	}
	return r.order(ctx, m, f, p)
}

// nameProbe is a pod that would be created under the name, but for the hold.
func nameProbe(p *corev1.Pod, name string) *corev1.Pod {
	probe := &corev1.Pod{Spec: *p.Spec.DeepCopy()}
	probe.Namespace, probe.Name = p.Namespace, name
	probe.Spec.NodeName = ""
	probe.Spec.Priority, probe.Spec.PreemptionPolicy, probe.Spec.Overhead = nil, nil, nil
	return probe
}

// nameUnwanted tells that the owner has no more use for the pod.
func (r *Reconciler) nameUnwanted(ctx context.Context, m *v1alpha1.PodMigration, hand HandOver) (*Refusal, error) {
	ref := ownerIn(hand)
	if ref == nil {
		return nil, nil
	}
	set, err := r.statefulSet(ctx, m.Namespace, ref.Name)
	if err != nil || orphans(set, ref) {
		return nil, err
	}
	revision := ""
	if set != nil {
		revision = set.Status.UpdateRevision // an old one the set replaces itself, once it has the pod
	}
	return judgeStatefulSet(m.Status.Source.PodName, revision, ref, set), nil
}

// clearName: the name is another pod's, made before the hold was known to every API
// server. If it is the owner's, the owner has the moved one in its place.
func (r *Reconciler) clearName(ctx context.Context, m *v1alpha1.PodMigration, f Facts, hand HandOver) (ctrl.Result, error) {
	if ref := ownerIn(hand); ref != nil && ownerUID(f.Pod) == ref.UID {
		return r.remove(ctx, f.Pod)
	}
	return r.await(ctx, m, f, refuse(ReasonNameTaken, "another pod %s was made meanwhile: delete it, and pod %s gets its name back", f.Pod.Name, m.Status.Target.PodName))
}

// order makes the second step. The first try is to the node where the pod is, then, if the
// user did not name that node, every other try is to another.
func (r *Reconciler) order(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p *corev1.Pod) (ctrl.Result, error) {
	last, tries, err := r.child(ctx, m)
	if err != nil {
		return ctrl.Result{}, err
	}
	if last != nil {
		if left := nameBackoff(tries) - since(last, f.Now, v1alpha1.ConditionComplete); left > 0 {
			return r.await(ctx, m, f, waitingForName(m, last, tries))
		}
	}
	if err := r.unlabel(ctx, p); err != nil {
		return ctrl.Result{}, err
	}
	to := p.Spec.NodeName
	if m.Spec.TargetNode == "" && tries%2 == 1 {
		to = ""
	}
	child := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: m.Namespace,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "PodMigration", Name: m.Name, UID: m.UID, Controller: new(bool),
			}},
		},
		Spec: v1alpha1.PodMigrationSpec{
			PodName: p.Name, PodUID: p.UID, TargetNode: to, KeepName: m.Status.Source.PodName, PostCopy: m.Spec.PostCopy,
			Reason: m.Spec.Reason, Message: fmt.Sprintf("gives pod %s, moved by PodMigration %s, its name back", p.Name, m.Name),
		},
	}
	*child.OwnerReferences[0].Controller = true
	if err := r.makeStep(ctx, m, child, tries+1); err != nil {
		return ctrl.Result{}, fmt.Errorf("order the second step of PodMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// makeStep makes the child under the number, or under a higher one if somebody else has a record
// of that name. One of the same number is this step, made by a call whose answer was lost.
func (r *Reconciler) makeStep(ctx context.Context, m, child *v1alpha1.PodMigration, number int) error {
	for ; ; number++ {
		next := child.DeepCopy()
		next.Name = childName(m, number)
		err := r.Writer.Create(ctx, next)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		var there v1alpha1.PodMigration
		found, err := r.get(ctx, m.Namespace, next.Name, &there)
		if err != nil || found && metav1.IsControlledBy(&there, m) {
			return err
		}
	}
}

func childName(m *v1alpha1.PodMigration, number int) string {
	return v1alpha1.MoveName(m.Name, fmt.Sprintf("%.8s-%d", m.UID, number))
}

// waitingForName tells why the last try failed, and what can be done.
func waitingForName(m, last *v1alpha1.PodMigration, tries int) *Refusal {
	reason, message := "WaitingForName", ""
	if c := meta.FindStatusCondition(last.Status.Conditions, v1alpha1.ConditionComplete); c != nil {
		message = c.Message
		if c.Reason == ReasonUnschedulable || c.Reason == ReasonNotBound {
			reason = "WaitingForRoom"
		}
	}
	return refuse(reason, "pod %s runs on node %s as %s; try %d to give it its name back has failed (%s); the next begins %s after that. To end this, delete pod %s: its owner then makes a fresh one",
		m.Status.Source.PodName, m.Status.Target.Node, m.Status.Target.PodName, tries, message, nameBackoff(tries), m.Status.Target.PodName)
}

// nameBackoff is how long after so many failed tries the next one begins.
func nameBackoff(tries int) time.Duration {
	return min(5*time.Minute, 2*time.Second<<min(max(tries-1, 0), 10))
}

// child is the newest second step of the move; nil: there is none.
func (r *Reconciler) child(ctx context.Context, m *v1alpha1.PodMigration) (newest *v1alpha1.PodMigration, number int, _ error) {
	all, err := r.moves(ctx, m.Namespace)
	if err != nil {
		return nil, 0, err
	}
	for i := range all {
		c := &all[i]
		if !returnsName(c) || !metav1.IsControlledBy(c, m) {
			continue
		}
		if n, err := strconv.Atoi(c.Name[strings.LastIndex(c.Name, "-")+1:]); err == nil && n > number {
			newest, number = c, n
		}
	}
	return newest, number, nil
}

// named tells that the second step is under way, or how it ended. done: the hand-over has
// nothing else to do in this turn.
func (r *Reconciler) named(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (done bool, _ ctrl.Result, _ error) {
	child, tries, err := r.child(ctx, m)
	switch {
	case err != nil:
		return true, ctrl.Result{}, err
	case child == nil:
		return false, ctrl.Result{}, nil
	case !v1alpha1.Finished(child):
		result, err := r.await(ctx, m, f, refuse("GettingName", "pod %s runs on node %s as %s; PodMigration %s (try %d) gives it its name back",
			m.Status.Source.PodName, m.Status.Target.Node, m.Status.Target.PodName, child.Name, tries))
		return true, result, err
	case child.Status.HandedOver:
		m.Status.HandedOver = true
		note(m, f.Now, "HandedOver", "")
		setCondition(m, f.Now, v1alpha1.ConditionDecided, true, "Committed", "committed by "+m.Status.DecisionBy)
		result, err := r.finish(ctx, m, f, Refusal{"Moved", namedOutcome(m, child)})
		return true, result, err
	}
	p := f.replacement(m)
	if p != nil && meta.IsStatusConditionTrue(child.Status.Conditions, v1alpha1.ConditionNameDeleted) {
		result, err := r.discard(ctx, m, f, p, refuse(ReasonPodTerminating, "moved to node %s, but pod %s was deleted while it got its name back: a deletion counts for both",
			m.Status.Target.Node, m.Status.Source.PodName))
		return true, result, err
	}
	return false, ctrl.Result{}, nil
}

func namedOutcome(m, child *v1alpha1.PodMigration) string {
	s, c := &m.Status, &child.Status
	line := fmt.Sprintf("pod %s moved from node %s to node %s and has its name", s.Source.PodName, s.Source.Node, c.Target.Node)
	if s.FrozenTime != nil && c.FrozenTime != nil {
		line += fmt.Sprintf("; frozen for %s and %s", s.FrozenTime.Duration.Round(time.Millisecond), c.FrozenTime.Duration.Round(time.Millisecond))
	}
	return line
}

// holdsName tells that the name is on hold: the source is deleted by this move.
func holdsName(m *v1alpha1.PodMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionNameHeld)
}

// witnessName writes into the record of a second step that somebody deleted the pod that
// was to have the name, as long as it can be seen. A pod that is evicted is not meant, nor
// one that this controller removes, at once.
func (r *Reconciler) witnessName(ctx context.Context, m *v1alpha1.PodMigration, f Facts) error {
	p := f.replacement(m)
	if !returnsName(m) || m.Status.Decision == v1alpha1.Commit || p == nil || p.DeletionTimestamp == nil ||
		p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds == 0 || podCondition(p, corev1.DisruptionTarget) ||
		f.TargetNode != nil && f.TargetNode.Spec.Unschedulable ||
		!setCondition(m, f.Now, v1alpha1.ConditionNameDeleted, true, ReasonDeletion, fmt.Sprintf("pod %s was deleted", p.Name)) {
		return nil
	}
	note(m, f.Now, "NameDeleted", p.Name)
	return r.save(ctx, m)
}
