package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Deletion costs while both pods belong to the owner: it has one too many and shall take
// the source. The field is an int32.
const (
	costFirst = "-2147483647"
	costLast  = "2147483647"
)

// handOver gives the replacement to its owner and takes the source away, in the order
// that was measured to leave no moment without a ready pod and never to make a third
// one: mark the source as the cheapest to lose; labels, owner and a high cost to the
// replacement in one write; delete the source; take the cost off. Each step is skipped
// when it is seen to be done.
func (r *Reconciler) handOver(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	if changed, err := r.watchLease(ctx, m, f); changed || err != nil {
		return ctrl.Result{RequeueAfter: again}, err
	}
	p, source := f.replacement(m), f.source(m)
	if holdsName(m) {
		if done, result, err := r.named(ctx, m, f); done || err != nil {
			return result, err
		}
	}
	if source != nil {
		if _, err := r.endEarlier(ctx, m, f, source); err != nil {
			return ctrl.Result{}, err
		}
	}
	if p == nil {
		return r.afterLoss(ctx, m, f)
	}
	if p.DeletionTimestamp != nil {
		return r.await(ctx, m, f, refuse("ReplacementTerminating", "replacement %s is being deleted after the move", p.Name))
	}
	if err := r.noticeImages(ctx, m, f, p, source); err != nil {
		return ctrl.Result{}, err
	}
	if p.Labels[v1alpha1.LabelReplacement] != "" {
		if deletedByUser(m) {
			return r.discard(ctx, m, f, p, deletedBefore(m))
		}
		hand, err := whatToHand(m, p, source)
		if err != nil {
			return ctrl.Result{}, err
		}
		if keepsName(m, p, hand) {
			if leasing(m) { // it did not when the move was accepted
				why := refuse(ReasonNameNeeded, "pod %s shall have its name back, which the object that holds its old address would have to keep", m.Status.Source.PodName)
				return ctrl.Result{RequeueAfter: again}, r.endLease(ctx, m, f, *why)
			}
			return r.giveName(ctx, m, f, p, source, hand)
		}
		if done, result, err := r.adopt(ctx, m, f, p, source, hand); !done {
			return result, err
		}
	}
	if changed, err := r.letEnd(ctx, m, f, "the owner has pod "+p.Name); changed || err != nil {
		return ctrl.Result{RequeueAfter: again}, err
	}
	if keepsAddress(m) {
		if err := r.unhold(ctx, m, ""); err != nil {
			return ctrl.Result{}, err
		}
	}
	if source != nil && !leasing(m) {
		return r.removeSource(ctx, m, f, source)
	}
	if source != nil {
		if why := r.unended(m, f); why != nil {
			return r.await(ctx, m, f, why)
		}
		// What the API server cannot answer now the move need not wait for: seeLease asks again.
		if changed, err := r.quiet(ctx, m, f, source); changed || err != nil && !isRefusal(err) {
			return ctrl.Result{RequeueAfter: again}, err
		}
	}
	if why, err := r.surplus(ctx, p); err != nil {
		return ctrl.Result{}, err
	} else if why != nil {
		return r.await(ctx, m, f, why)
	}
	if err := r.clearCost(ctx, p); err != nil {
		return ctrl.Result{}, err
	}
	m.Status.HandedOver = true
	note(m, f.Now, "HandedOver", "")
	setCondition(m, f.Now, v1alpha1.ConditionDecided, true, "Committed", "committed by "+m.Status.DecisionBy)
	return r.finish(ctx, m, f, Refusal{"Moved", outcome(m)})
}

// adopt gives the replacement its labels and owner. done: it has them now, go on.
func (r *Reconciler) adopt(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p, source *corev1.Pod, hand HandOver) (done bool, _ ctrl.Result, _ error) {
	switch ref := ownerIn(hand); {
	case ofStatefulSet(ref):
		return r.adoptBySet(ctx, m, f, p, hand)
	case ref != nil && isOf(ref, batchv1.GroupName, "Job"):
		return r.adoptByJob(ctx, m, f, p, source, hand)
	}
	set, err := r.owningSet(ctx, m.Namespace, hand)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	owned := ownerIn(hand) != nil
	if owned && set == nil {
		result, err := r.withoutOwner(ctx, m, f, p, source)
		return false, result, err
	}
	if why := notYet(m, f, r.Config, p, source); why != nil {
		result, err := r.awaitReady(ctx, m, f, why)
		return false, result, err
	}
	switch {
	case source == nil, released(m, source):
	case leasing(m):
		if held, result, err := r.onHold(ctx, m, f, p, hand); !held || err != nil {
			return false, result, err
		}
		if done, result, err := r.letGo(ctx, m, f, source); !done || err != nil {
			return false, result, err
		}
	case owned && source.DeletionTimestamp == nil:
		// The set deletes it as soon as it has the other, and its address may be in use yet, or sent to.
		left, err := r.wanted(ctx, m, f, source)
		if err != nil {
			return false, ctrl.Result{}, err
		}
		if left = max(left, leaseLeft(m, f)); left > 0 {
			result, err := r.awaitLeft(ctx, m, f, left)
			return false, result, err
		}
		if err := r.cheapen(ctx, source); err != nil {
			return false, ctrl.Result{}, err
		}
	}
	if err := r.give(ctx, p, hand); err != nil {
		return false, ctrl.Result{}, err
	}
	return true, ctrl.Result{}, nil
}

// whatToHand is what the source has now, or had when the replacement was made.
func whatToHand(m *v1alpha1.PodMigration, p, source *corev1.Pod) (HandOver, error) {
	var saved HandOver
	if err := json.Unmarshal([]byte(p.Annotations[v1alpha1.AnnotationHandOver]), &saved); err != nil {
		return saved, fmt.Errorf("replacement %s/%s: annotation %s: %w", p.Namespace, p.Name, v1alpha1.AnnotationHandOver, err)
	}
	if source == nil || released(m, source) || releasedFromJob(source, saved) {
		return saved, nil
	}
	now := handOverOf(source)
	now.Cost = saved.Cost // the source's own is ours by now, perhaps
	return now, nil
}

func ownerIn(h HandOver) *metav1.OwnerReference {
	return metav1.GetControllerOfNoCopy(&metav1.ObjectMeta{OwnerReferences: h.Owners})
}

// owningSet is the ReplicaSet to give the pod to; nil: there is none (any more).
func (r *Reconciler) owningSet(ctx context.Context, namespace string, h HandOver) (*appsv1.ReplicaSet, error) {
	ref := ownerIn(h)
	if ref == nil {
		return nil, nil
	}
	rs, _, err := r.owners(ctx, namespace, ref.Name)
	if err != nil || rs == nil || rs.UID != ref.UID || rs.DeletionTimestamp != nil ||
		rs.Spec.Replicas != nil && *rs.Spec.Replicas == 0 {
		return nil, err
	}
	return rs, nil
}

// surplus tells that the owner still has a pod too many: a source that went before the
// hand-over was replaced by a third pod. Until the owner has taken that one away, the
// cost keeps the replacement from being taken in its place.
func (r *Reconciler) surplus(ctx context.Context, p *corev1.Pod) (*Refusal, error) {
	ref := controllerOf(p)
	if ref == nil || p.Annotations[corev1.PodDeletionCost] != costLast {
		return nil, nil
	}
	rs, _, err := r.owners(ctx, p.Namespace, ref.Name)
	if err != nil || rs == nil || rs.UID != ref.UID || rs.Spec.Replicas == nil {
		return nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector of ReplicaSet %s/%s: %w", rs.Namespace, rs.Name, err)
	}
	var pods corev1.PodList
	if err := r.Reader.List(ctx, &pods, client.InNamespace(p.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("list the pods of ReplicaSet %s/%s: %w", rs.Namespace, rs.Name, err)
	}
	has := 0
	for i := range pods.Items {
		o := &pods.Items[i]
		over := o.DeletionTimestamp != nil || o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
		if ownerUID(o) == rs.UID && !over {
			has++
		}
	}
	if want := int(*rs.Spec.Replicas); has > want {
		return refuse("WaitingForOwner", "ReplicaSet %s has %d pods, %d wanted: waiting until it has removed the one too many", rs.Name, has, want), nil
	}
	return nil, nil
}

// withoutOwner: the owner was deleted or scaled to nothing after the commit, and takes
// its pods with it. The replacement goes too, once the source has shown that it does:
// a source that is left behind as an orphan comes here no more, for it has no owner.
func (r *Reconciler) withoutOwner(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p, source *corev1.Pod) (ctrl.Result, error) {
	if source != nil && source.DeletionTimestamp == nil && !released(m, source) {
		return r.await(ctx, m, f, refuse("WaitingForOwner", "the owner of pod %s is gone or scaled to 0; waiting for what becomes of the pod", source.Name))
	}
	return r.discard(ctx, m, f, p, refuse(ReasonOwnerGone,
		"moved to node %s, but the owner of pod %s was deleted or scaled to 0 meanwhile: the pod was deleted with it",
		m.Status.Target.Node, m.Status.Source.PodName))
}

// discard deletes the replacement though it runs; the reason is kept in the record for
// the time when the replacement is gone.
func (r *Reconciler) discard(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p *corev1.Pod, why *Refusal) (ctrl.Result, error) {
	if setCondition(m, f.Now, v1alpha1.ConditionComplete, false, why.Reason, why.Message) {
		if err := r.save(ctx, m); err != nil {
			return ctrl.Result{}, err
		}
	}
	// The source goes by itself; its agent shall not wait for an adoption that will never be.
	if changed, err := r.letEnd(ctx, m, f, why.Message); changed || err != nil {
		return ctrl.Result{RequeueAfter: again}, err
	}
	left, err := r.endHere(ctx, m, f, refuse(ReasonReplacementGone, "pod %s, which had the address, is to be deleted: %s", p.Name, why.Message))
	if left > 0 || err != nil {
		return ctrl.Result{RequeueAfter: min(left, r.Config.Poll)}, err
	}
	return r.remove(ctx, p)
}

// notYet tells why the replacement cannot be handed over yet. An owner that has one pod
// too many takes an unready one before a ready one, whatever the costs: so the
// replacement is ready first, or the source is not ready either.
func notYet(m *v1alpha1.PodMigration, f Facts, c Config, p, source *corev1.Pod) *Refusal {
	switch p.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed:
		return nil // it ran to its end: nothing to wait for
	case corev1.PodRunning:
		ready := podReady(p)
		if len(p.Spec.ReadinessGates) > 0 {
			// Gates are opened by those who find the pod by its labels.
			ready = podCondition(p, corev1.ContainersReady)
		}
		late := sinceWhole(m, f.Now) > c.ReadyDeadline
		if ready || late && (source == nil || !podReady(source)) {
			return nil
		}
	}
	return refuse("WaitingForReady", "the pod runs on node %s; waiting for replacement %s to be ready", m.Status.Target.Node, p.Name)
}

// awaitReady waits for that. A source whose address is leased is what its Services have meanwhile, and leads
// them to the replacement; but it has its memory still, so not for ever.
func (r *Reconciler) awaitReady(ctx context.Context, m *v1alpha1.PodMigration, f Facts, why *Refusal) (ctrl.Result, error) {
	if leasing(m) && sinceWhole(m, f.Now) > r.Config.ReadyDeadline {
		if changed, err := r.letEnd(ctx, m, f, fmt.Sprintf("replacement %s is not ready within %s", m.Status.Target.PodName, r.Config.ReadyDeadline)); changed || err != nil {
			return ctrl.Result{RequeueAfter: again}, err
		}
	}
	return r.await(ctx, m, f, why)
}

// removeSource deletes the source pod. The target has acknowledged, so the source never
// runs again and its deletion is safe at any time; that its agent ends it first is tidier.
func (r *Reconciler) removeSource(ctx context.Context, m *v1alpha1.PodMigration, f Facts, source *corev1.Pod) (ctrl.Result, error) {
	if changed, err := r.letEnd(ctx, m, f, "pod "+source.Name+" is deleted, too"); changed || err != nil {
		return ctrl.Result{RequeueAfter: again}, err
	}
	if why := r.unended(m, f); why != nil {
		return r.await(ctx, m, f, why)
	}
	if left, err := r.wanted(ctx, m, f, source); left > 0 || err != nil {
		return ctrl.Result{RequeueAfter: min(left, r.Config.Poll)}, err
	}
	if left := leaseLeft(m, f); left > 0 {
		return r.awaitLeft(ctx, m, f, left)
	}
	return r.remove(ctx, source)
}

// unended tells that the source's agent is waited for, which has not ended the processes yet.
func (r *Reconciler) unended(m *v1alpha1.PodMigration, f Facts) *Refusal {
	late := sinceWhole(m, f.Now) > r.Config.EndDeadline
	if m.Status.Source.Ended || f.SourceNode == nil || !f.AgentOnSource || late {
		return nil
	}
	return refuse("WaitingForSource", "the agent on node %s has not ended the source yet", m.Status.Source.Node)
}

// discarded are the reasons for which the replacement of a pod that ran is deleted.
var discarded = []string{
	ReasonOwnerGone, ReasonOwnerScaledToZero, ReasonOwnerScaledDown, ReasonReplacementFailed, ReasonOwnerSuspended, ReasonOwnerFinished, ReasonPodTerminating,
}

// afterLoss: the replacement was deleted after it had resumed. The source must not come
// back, so it goes too, and its owner makes a fresh pod.
func (r *Reconciler) afterLoss(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	if source := f.source(m); source != nil {
		return r.removeSource(ctx, m, f, source)
	}
	if changed, err := r.letEnd(ctx, m, f, "both pods are gone"); err != nil || changed {
		return ctrl.Result{RequeueAfter: again}, err
	}
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionComplete)
	if c != nil && slices.Contains(discarded, c.Reason) {
		return r.finish(ctx, m, f, Refusal{c.Reason, c.Message})
	}
	if deletedByUser(m) { // while the copy lacked memory: what was waited for since has been said in its place
		return r.finish(ctx, m, f, *deletedBefore(m))
	}
	return r.finish(ctx, m, f, *refuse(ReasonReplacementDeleted,
		"moved to node %s, where pod %s was then deleted before its owner had it", m.Status.Target.Node, m.Status.Target.PodName))
}
