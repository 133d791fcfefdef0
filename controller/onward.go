package controller

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/drover-project/drover/api/v1alpha1"
)

// A pod that moves again takes the addresses along that it still has by earlier moves: each stays leased
// from the pod that holds it, under the record of the move by which it was left, and is sent on to where the
// pod is by the newest move. So the first end of such a lease is its own record's source, and the
// other is the newest record's target.

// mostEarlier is how many addresses of before a pod can take along, besides the one that it leaves.
const mostEarlier = 3

// shortest is how much time an address has to have left to go along: with less its connections would break in the
// middle of the move, for what it takes to ask the network and to carry memory runs before the pod is frozen.
const shortest = 5 * time.Second

// carried is what the record of a later move says of the lease of m; nil: it was not to take it along.
func carried(by, m *v1alpha1.PodMigration) *v1alpha1.EarlierLease {
	c := by.Status.Connections
	if c == nil {
		return nil
	}
	i := slices.IndexFunc(c.Earlier, func(e v1alpha1.EarlierLease) bool { return e.UID == m.UID })
	if i < 0 {
		return nil
	}
	return &c.Earlier[i]
}

// newest is the move by which the pod has come to where it has the old address of m: m itself, or a later
// one that has taken it along.
func newest(m *v1alpha1.PodMigration, all []v1alpha1.PodMigration) *v1alpha1.PodMigration {
	by := m
	for i := range all {
		if o := &all[i]; keepsAddress(o) && carried(o, m) != nil && o.Status.Epoch > by.Status.Epoch {
			by = o
		}
	}
	return by
}

// heldFor are the moves by whose leases the pod of that UID has addresses, or had them of late, oldest first.
func heldFor(uid string, all []v1alpha1.PodMigration) (held []*v1alpha1.PodMigration) {
	for i := range all {
		if o := &all[i]; keepsAddress(o) && string(newest(o, all).Status.Target.PodUID) == uid {
			held = append(held, o)
		}
	}
	slices.SortFunc(held, func(a, b *v1alpha1.PodMigration) int { return cmp.Compare(a.Status.Epoch, b.Status.Epoch) })
	return held
}

// earlier are the addresses that the pod still has by earlier moves.
func earlier(f Facts) (all []v1alpha1.EarlierLease) {
	for _, o := range heldFor(string(f.Pod.UID), f.Others) {
		if !leasing(o) {
			continue
		}
		c := o.Status.Connections
		e := v1alpha1.EarlierLease{UID: o.UID, Migration: o.Name, Node: o.Status.Source.Node, Addresses: c.OldAddresses, KeepFor: c.KeepFor}
		if c.Until != nil {
			// No finer than a time in a record is, which is compared with one that is made of this.
			e.KeepFor.Duration = max(time.Second, c.Until.Sub(f.Now)-leaseMargin).Truncate(time.Millisecond)
		}
		all = append(all, e)
	}
	return all
}

// endShort ends, before the pod's next move is accepted, the leases that have too little time left to outlast that.
// wait: an address whose lease is over may still be the pod's, and not all know that it is not to be.
func (r *Reconciler) endShort(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (wait bool, _ error) {
	if !f.CarryEarlier {
		return false, nil
	}
	for _, o := range heldFor(string(f.Pod.UID), f.Others) {
		c := o.Status.Connections
		switch {
		case leasing(o) && c.Until != nil && c.Until.Sub(f.Now) < leaseMargin+shortest:
			why := refuse(v1alpha1.ReasonLeaseOver, "pod %s is to move on by PodMigration %s, which the address would not outlast: less than %s of its time were left", f.Pod.Name, m.Name, shortest)
			if err := r.endLease(ctx, o, f, *why); err != nil {
				return false, err
			}
			wait = true
		case !leasing(o) && !c.TargetLeft && untilHeard(o, f) > 0:
			wait = true
		}
	}
	return wait, nil
}

// whereNow gives the newest move of the pod that has the old address of m, and m as if that was by which the
// pod had come to its target, with what is seen of it: that nothing leaves from the address any more, its agent
// alone can tell, and not that of where the pod was. The copy is not to be written.
func (r *Reconciler) whereNow(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (by, as *v1alpha1.PodMigration, _ Facts, _ error) {
	all, err := r.moves(ctx, m.Namespace)
	if err != nil {
		return nil, nil, f, err
	}
	f.UnderWay = slices.ContainsFunc(all, func(o v1alpha1.PodMigration) bool { return o.Status.Decision == v1alpha1.Commit && comes(&o, m) })
	if by = newest(m, all); by.UID == m.UID {
		return m, m, f, nil
	}
	as = m.DeepCopy()
	as.Status.Target, as.Status.Connections.TargetLeft = by.Status.Target, carried(by, m).TargetLeft
	now, err := r.look(ctx, as)
	now.UnderWay = f.UnderWay
	return by, as, now, err
}

// comes tells that by the move o the pod may yet come to where it has the old address of m, or that it is there
// and not known yet for how long.
func comes(o, m *v1alpha1.PodMigration) bool {
	s := &o.Status
	switch {
	case carried(o, m) == nil, s.Connections.State == v1alpha1.ConnectionsClosed, s.Decision == v1alpha1.Abort, s.Returned, s.Lost:
		return false
	case s.Target.Resumed:
		return s.Connections.Until == nil
	}
	return !v1alpha1.Finished(o)
}

// learn takes over into the record of m what its newest move says of its lease: the time that is left, which
// does not run while the pod moves; that it has ended; and that the target has left. changed: it was
// written now.
func (r *Reconciler) learn(ctx context.Context, m, by *v1alpha1.PodMigration, f Facts) (changed bool, _ error) {
	c, e := m.Status.Connections, carried(by, m)
	if e == nil {
		return false, nil
	}
	if n := by.Status.Connections; n.Until != nil {
		until := n.Until.Add(e.KeepFor.Duration - n.KeepFor.Duration).Truncate(time.Microsecond) // as records have it
		if changed = c.Until != nil && !c.Until.Time.Equal(until); changed {
			c.Until.Time = until
		}
	}
	if e.TargetLeft && c.LeaseEnded && !c.TargetLeft {
		c.TargetLeft, changed = true, true
	}
	if e.Ended && !c.LeaseEnded {
		why := Refusal{word(e.EndReason, v1alpha1.ReasonTargetGone), e.EndMessage}
		return true, r.endLease(ctx, m, f, why)
	}
	if !changed {
		return false, nil
	}
	return true, r.save(ctx, m)
}

// endHere ends the leases of all addresses of the pod that a move has brought, which is about to go. left: for
// so long not all have heard of it.
func (r *Reconciler) endHere(ctx context.Context, m *v1alpha1.PodMigration, f Facts, why *Refusal) (left time.Duration, _ error) {
	all, err := r.moves(ctx, m.Namespace)
	if err != nil {
		return 0, err
	}
	for _, o := range heldFor(string(m.Status.Target.PodUID), all) {
		if o.UID == m.UID {
			o = m // its caller goes on with it
		}
		if leasing(o) {
			if err := r.endLease(ctx, o, f, *why); err != nil {
				return 0, err
			}
		}
		left = max(left, untilHeard(o, f))
	}
	return left, nil
}

// needed is for how long yet the source has to stay when its own lease is over: as long as a next move asks
// it, and as what comes for an earlier address may be sent to it, that is until who holds that says that it
// is sent to the newest place, or has heard that its lease is over.
func (r *Reconciler) needed(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (left time.Duration, _ error) {
	if !keepsAddress(m) {
		return 0, nil
	}
	all, err := r.moves(ctx, m.Namespace)
	if err != nil {
		return 0, err
	}
	if claimed(m, all) {
		return r.Config.Poll, nil
	}
	for i := range all {
		o := &all[i]
		if carried(m, o) == nil || turned(o, m, all) {
			continue
		}
		if leasing(o) {
			return r.Config.Poll, nil
		}
		left = max(left, untilHeard(o, f))
	}
	return left, nil
}

// claimed tells that a move may ask who holds the old address of m, or open it where the pod comes to: however that
// lease has ended since, without an answer no connection would be kept, and what is opened may be nobody else's.
func claimed(m *v1alpha1.PodMigration, all []v1alpha1.PodMigration) bool {
	return slices.ContainsFunc(all, func(o v1alpha1.PodMigration) bool { return comes(&o, m) })
}

// turned tells that what comes for the old address of o is sent to where the pod has come by m, or by a later
// move.
func turned(o, m *v1alpha1.PodMigration, all []v1alpha1.PodMigration) bool {
	return slices.ContainsFunc(all, func(by v1alpha1.PodMigration) bool {
		return by.UID == o.Status.Connections.TurnedTo && by.Status.Epoch >= m.Status.Epoch
	})
}

// carrying tells that m is by which the pod has come to where it has an earlier address, whose record needs it.
func (r *Reconciler) carrying(ctx context.Context, m *v1alpha1.PodMigration) (bool, error) {
	if !keepsAddress(m) || len(m.Status.Connections.Earlier) == 0 {
		return false, nil
	}
	all, err := r.moves(ctx, m.Namespace)
	return slices.ContainsFunc(all, func(o v1alpha1.PodMigration) bool {
		return o.UID != m.UID && keepsAddress(&o) && slices.Contains(o.Finalizers, v1alpha1.Finalizer) && newest(&o, all).UID == m.UID
	}), err
}
