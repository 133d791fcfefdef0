package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/drover-project/drover/api/v1alpha1"
)

// A pod that has moved with its connections leases its old address from the source pod, whose
// sandbox the cluster's network gave it to. So the source's object outlives the move: it is
// let go by its owner (release.go) in place of being deleted, and deleted when the lease has ended.
// The move is complete before that; only its record's finalizer waits.

const (
	// leaseMargin covers what is under way: packets when the pod on the target may send no more,
	// and word of the end of a lease on the way to the agents.
	leaseMargin = v1alpha1.LeaseMargin
	// leaseLook is how often, in polls, a lease is looked at when no event comes.
	leaseLook = 10
)

// ReasonNotProbed: connections were closed, for the agents knew nothing of the wish.
const ReasonNotProbed = "NotProbed"

// Reasons of the end of a lease, besides those that agents find.
const (
	// ReasonSourceGone: the source pod is gone or ended, or being deleted by others; or its node is.
	ReasonSourceGone = "SourceGone"
	// ReasonReplacementGone: the pod that has the address is gone, ended or about to, or its node is gone.
	ReasonReplacementGone = "ReplacementGone"
	// ReasonPoliciesDiffer: a NetworkPolicy holds for the pod and not for its old address, or the reverse.
	ReasonPoliciesDiffer = "PoliciesDiffer"
	// ReasonNotReleased: the source could not be taken out of its owner's hands.
	ReasonNotReleased = "NotReleased"
)

// keepsAddress tells that the pod runs on the target and has its old address, or had it.
func keepsAddress(m *v1alpha1.PodMigration) bool {
	c := m.Status.Connections
	return c != nil && c.State == v1alpha1.ConnectionsKept && m.Status.Target.Resumed
}

// leasing tells that the source's sandbox has to stay.
func leasing(m *v1alpha1.PodMigration) bool {
	return keepsAddress(m) && !m.Status.Connections.LeaseEnded
}

// leaseOver tells why nobody needs the old address any more, or nobody holds it. What only the
// nodes can see, above all that the last connection has ended, their agents say in the record.
func leaseOver(m *v1alpha1.PodMigration, f Facts) *Refusal {
	s, c := &m.Status, m.Status.Connections
	source, p := f.source(m), f.replacement(m)
	switch {
	case source == nil:
		return refuse(ReasonSourceGone, "pod %s on node %s, which held the address, was deleted", s.Source.PodName, s.Source.Node)
	case source.DeletionTimestamp != nil:
		why := whyTerminating(f, source)
		return refuse(ReasonSourceGone, "%s, which held the address", why.Message)
	case over(source):
		return refuse(ReasonSourceGone, "pod %s on node %s, which held the address, has ended: %s %s", source.Name, s.Source.Node, source.Status.Reason, source.Status.Message)
	case f.SourceNode == nil:
		return refuse(ReasonSourceGone, "node %s, where the address was held, is gone", s.Source.Node)
	case sourceBooted(m, f):
		return refuse(ReasonSourceGone, "node %s, where the address was held, was booted", s.Source.Node)
	case m.DeletionTimestamp != nil:
		return refuse(ReasonDeleted, "the PodMigration was deleted")
	case f.UnderWay:
		return nil // where the pod was, and how much time was left then, tells nothing of where it comes to
	case p == nil:
		return refuse(ReasonReplacementGone, "pod %s, which had the address, is gone", s.Target.PodName)
	case p.DeletionTimestamp != nil:
		return refuse(ReasonReplacementGone, "pod %s, which had the address, is being deleted", p.Name)
	case over(p), ended(p):
		return refuse(ReasonReplacementGone, "pod %s, which had the address, has ended", p.Name)
	case f.TargetNode == nil:
		return refuse(ReasonReplacementGone, "node %s of pod %s, which had the address, is gone", s.Target.Node, p.Name)
	case targetBooted(m, f):
		return refuse(ReasonReplacementGone, "node %s of pod %s, which had the address, was booted", s.Target.Node, p.Name)
	case c.Until != nil && !f.Now.Before(c.Until.Time):
		return refuse(v1alpha1.ReasonLeaseOver, "the address was kept for %s, as annotation %s asks", c.KeepFor.Duration, v1alpha1.AnnotationKeepConnections)
	}
	return nil
}

func over(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

// ended tells that all containers have: its sandbox may be the next to go, and its own address then
// be another's, to which nothing of the old one is to be sent on.
func ended(p *corev1.Pod) bool {
	all := p.Status.ContainerStatuses
	return len(all) > 0 && !slices.ContainsFunc(all, func(c corev1.ContainerStatus) bool { return c.State.Terminated == nil })
}

// watchLease writes into the record that a lease has begun, or ended. changed: it was written now.
func (r *Reconciler) watchLease(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (changed bool, _ error) {
	s, c := &m.Status, m.Status.Connections
	if c != nil && c.State == v1alpha1.ConnectionsProbing && s.Target.Resumed {
		c.State, c.Reason = v1alpha1.ConnectionsClosed, ReasonNotProbed
		c.Message = fmt.Sprintf("the agents of nodes %s and %s have not asked the network whether it carries connections: are they of an older version?", s.Source.Node, s.Target.Node)
		setCondition(m, f.Now, v1alpha1.ConditionConnectionsKept, false, c.Reason, c.Message)
		return true, r.save(ctx, m)
	}
	if !keepsAddress(m) {
		return false, nil
	}
	by, as, now, err := r.whereNow(ctx, m, f)
	if err != nil {
		return false, err
	}
	if changed, err := r.learn(ctx, m, by, f); changed || err != nil {
		return changed, err
	}
	is := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionAddressLeased)
	switch {
	case is == nil:
		// Counted from now, which is after the target's kernel began to count.
		until := metav1.NewMicroTime(f.Now.Add(c.KeepFor.Duration + leaseMargin))
		c.Until = &until
		says := fmt.Sprintf("pod %s on node %s holds %s for pod %s, until %s at most",
			s.Source.PodName, s.Source.Node, strings.Join(c.OldAddresses, " and "), s.Target.PodName, until.UTC().Format(time.RFC3339))
		setCondition(m, f.Now, v1alpha1.ConditionAddressLeased, true, "Leased", says)
		note(m, f.Now, "AddressLeased", says)
		if err := r.save(ctx, m); err != nil {
			return false, err
		}
		r.event(m, corev1.EventTypeNormal, "AddressLeased", says, f.source(m), f.replacement(m))
		return true, nil
	case is.Status == metav1.ConditionTrue && c.LeaseEnded:
		return true, r.endLease(ctx, m, f, Refusal{c.LeaseReason, c.LeaseMessage})
	case is.Status == metav1.ConditionTrue:
		why := leaseOver(as, now)
		if why == nil && by.DeletionTimestamp != nil {
			why = refuse(ReasonDeleted, "PodMigration %s was deleted, by which pod %s has the address", by.Name, by.Status.Target.PodName)
		}
		if why != nil {
			return true, r.endLease(ctx, m, f, *why)
		}
	}
	return false, nil
}

// endLease writes down that a lease has ended, and why.
func (r *Reconciler) endLease(ctx context.Context, m *v1alpha1.PodMigration, f Facts, why Refusal) error {
	c := m.Status.Connections
	c.LeaseEnded, c.LeaseReason, c.LeaseMessage = true, why.Reason, v1alpha1.Cut(why.Message)
	setCondition(m, f.Now, v1alpha1.ConditionAddressLeased, false, word(why.Reason, "Ended"), why.Message)
	note(m, f.Now, "LeaseEnded", why.Message)
	if err := r.save(ctx, m); err != nil {
		return err
	}
	r.event(m, corev1.EventTypeNormal, "AddressLeaseEnded",
		fmt.Sprintf("the lease of %s has ended: %s", strings.Join(c.OldAddresses, " and "), why.Message), f.replacement(m))
	return nil
}

// untilHeard is for how long yet an agent may not have heard that a lease has ended.
func untilHeard(m *v1alpha1.PodMigration, f Facts) time.Duration {
	if !keepsAddress(m) {
		return 0
	}
	return leaseMargin - since(m, f.Now, v1alpha1.ConditionAddressLeased)
}

// endEarlier ends the leases, if there are some, of addresses that the source has from moves before
// this one and that have not gone along: nothing is to be sent on to a pod that is about to go. left: not all
// have heard of it yet.
func (r *Reconciler) endEarlier(ctx context.Context, m *v1alpha1.PodMigration, f Facts, source *corev1.Pod) (left time.Duration, _ error) {
	if source.Annotations[v1alpha1.AnnotationMigration] == "" {
		return 0, nil // it has not come by a move
	}
	all, err := r.moves(ctx, m.Namespace)
	if err != nil {
		return 0, err
	}
	for _, o := range heldFor(string(source.UID), all) {
		if leasing(o) {
			why := refuse(ReasonReplacementGone, "pod %s, which had the address, has moved on by PodMigration %s", source.Name, m.Name)
			if err := r.endLease(ctx, o, f, *why); err != nil {
				return 0, err
			}
		}
		left = max(left, untilHeard(o, f))
	}
	return left, nil
}

// wanted is for how long yet the source has to stay for the addresses that it has of moves before, whether they have
// gone along or not: somebody may send on to it.
func (r *Reconciler) wanted(ctx context.Context, m *v1alpha1.PodMigration, f Facts, source *corev1.Pod) (left time.Duration, _ error) {
	before, err := r.endEarlier(ctx, m, f, source)
	if err != nil {
		return 0, err
	}
	left, err = r.needed(ctx, m, f)
	return max(before, left), err
}

// leaseLeft is for how long yet the source has to stay when its lease has ended: nobody else may be
// given the address while the pod on the target can send from it. That one has left, or its kernel has
// closed that end at the time that it was told; and all have heard of the end.
func leaseLeft(m *v1alpha1.PodMigration, f Facts) time.Duration {
	c := m.Status.Connections
	if !keepsAddress(m) || c.Until == nil {
		return 0
	}
	left := untilHeard(m, f)
	if c.TargetLeft || targetBooted(m, f) {
		return left
	}
	return max(left, c.Until.Add(leaseMargin).Sub(f.Now))
}

// awaitLeft says for how long the source has to stay yet, and for whom. Its owner, which has it or
// nothing to wait for, is on hold no longer.
func (r *Reconciler) awaitLeft(ctx context.Context, m *v1alpha1.PodMigration, f Facts, left time.Duration) (ctrl.Result, error) {
	name := "" // which stays on hold
	if holdsName(m) {
		name = nameHold(m.Namespace, m.Status.Source.PodName)
	}
	if err := r.unhold(ctx, m, name); err != nil {
		return ctrl.Result{}, err
	}
	why := refuse("WaitingForHolder", "pod %s stays until no earlier address of its is sent on to it any more, or asked for: who holds one has not said so, or may not have heard yet that its lease is over", m.Status.Source.PodName)
	if leaseLeft(m, f) > 0 {
		why = refuse("WaitingForTarget",
			"pod %s holds the old address until the agent on node %s has said that nothing is sent from it any more, or that node has another boot ID, or until %s",
			m.Status.Source.PodName, m.Status.Target.Node, m.Status.Connections.Until.Add(leaseMargin).UTC().Format(time.RFC3339))
	}
	result, err := r.await(ctx, m, f, why)
	result.RequeueAfter = min(left, result.RequeueAfter)
	return result, err
}

// seeLease is what there is to do for a lease after the move: the record waits for its end, and
// then for that of the source. done: there is no lease any more.
func (r *Reconciler) seeLease(ctx context.Context, m *v1alpha1.PodMigration) (done bool, _ ctrl.Result, _ error) {
	if !keepsAddress(m) {
		return true, ctrl.Result{}, nil
	}
	f, err := r.look(ctx, m)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	if changed, err := r.watchLease(ctx, m, f); changed || err != nil {
		return false, ctrl.Result{RequeueAfter: again}, err
	}
	by, as, now, err := r.whereNow(ctx, m, f)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	source := f.source(m)
	switch {
	case source == nil && by.UID == m.UID && !now.UnderWay:
		return true, ctrl.Result{}, nil
	case leasing(m):
		if changed, err := r.guarded(ctx, m, f, source, now.replacement(as)); changed || err != nil {
			return false, ctrl.Result{RequeueAfter: again}, err
		}
		if changed, err := r.quiet(ctx, m, f, source); changed || err != nil {
			return false, ctrl.Result{RequeueAfter: again}, err
		}
		left := m.Status.Connections.Until.Sub(f.Now)
		if left <= 0 {
			left = r.Config.Poll // it is under way
		}
		return false, ctrl.Result{RequeueAfter: min(leaseLook*r.Config.Poll, left)}, nil
	}
	left, err := r.needed(ctx, m, f)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	if left = max(left, leaseLeft(as, now)); left > 0 {
		return false, ctrl.Result{RequeueAfter: min(leaseLook*r.Config.Poll, left)}, nil
	}
	if source == nil { // where the pod is now it was to be read here that the lease is over
		return true, ctrl.Result{}, nil
	}
	result, err := r.remove(ctx, source)
	return false, result, err
}
