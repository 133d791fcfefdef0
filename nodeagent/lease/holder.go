package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// holder does what there is to do for the addresses that sandboxes of this node hold.
func (w *Watch) holder(ctx context.Context, all []v1alpha1.PodMigration, p picture) error {
	var errs []error
	for i := range all {
		if pm := &all[i]; leased(pm) && pm.Status.Source.Node == w.cfg.Node && pm.Status.Source.Ended {
			errs = append(errs, w.source(ctx, pm, p))
		}
	}
	answers, keeps := map[string]bool{}, map[string]bool{}
	for i := range all {
		pm := &all[i]
		m := migrate.MoveOf(pm)
		for i, e := range m.Keep.Earlier {
			if e.Node != w.cfg.Node {
				continue
			}
			holder := p.recorded[e.UID]
			lives := holder != nil && leased(holder)
			switch s := (seat{pm, m, i + 1}); {
			case probing(pm):
				answers[s.key()] = true
				w.answer(ctx, s)
			case lives && coming(pm):
				keeps[e.UID] = true
				errs = append(errs, w.keep(s))
			case lives && arrived(pm) && w.keeps[e.UID] == m.UID && w.forwards[e.UID] != s.lease().String():
				keeps[e.UID] = true // until it is sent on
			}
		}
	}
	for key, a := range w.answers {
		if !answers[key] {
			a.stop()
			delete(w.answers, key)
		}
	}
	for uid := range w.keeps {
		if !keeps[uid] {
			w.cfg.Ends.drop(uid)
			delete(w.keeps, uid)
		}
	}
	return errors.Join(errs...)
}

// probing tells that the move's target asks who holds earlier addresses.
func probing(pm *v1alpha1.PodMigration) bool {
	s := &pm.Status
	return s.Connections.State == v1alpha1.ConnectionsProbing && s.Connections.NewAddress != "" && s.Target.Waiting && s.Decision == v1alpha1.Undecided
}

// coming tells that the pod is held to be moved with its connections, and that it does not run on the target
// yet.
func coming(pm *v1alpha1.PodMigration) bool {
	s := &pm.Status
	return s.Connections.State == v1alpha1.ConnectionsKept && s.Source.Offered && !v1alpha1.Finished(pm) && s.Decision != v1alpha1.Abort && !s.Returned && !s.Lost && !s.Target.Resumed
}

// answering is what answers probes: until it is stopped, unless it fails.
type answering struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// answer has the probes for an earlier address answered that is held here. What has failed is tried again.
func (w *Watch) answer(ctx context.Context, s seat) {
	if a, is := w.answers[s.key()]; is {
		select {
		case <-a.ended:
			a.stop()
		default:
			return
		}
	}
	ctx, stop := context.WithCancel(ctx)
	a := answering{stop, make(chan struct{})}
	w.answers[s.key()] = a
	w.answering.Go(func() {
		defer close(a.ended)
		_, at, err := w.cfg.Ends.noted(s.uid(), migrate.RoleSource)
		if err == nil {
			err = address.Answer(ctx, at, s.lease(), nonce(s.m, s.lease()))
		}
		if err != nil {
			w.cfg.Log.Warn("the network is not found to carry an address that is held here to where its pod is to move", "migration", s.pm.Namespace+"/"+s.pm.Name, "addresses", s.lease().Old, "err", err)
		}
	})
}

// keep keeps what comes for an address that is held here while its pod is held. What the pod still got must
// not come to it twice: it begins when the record says that the pod is.
func (w *Watch) keep(s seat) error {
	if w.keeps[s.uid()] == s.m.UID {
		return nil
	}
	_, at, err := w.cfg.Ends.noted(s.uid(), migrate.RoleSource)
	if err != nil {
		return err
	}
	w.keeps[s.uid()] = s.m.UID
	return w.cfg.Ends.keep(s.uid(), at, s.lease())
}

// source has what comes for the address sent on to where the pod is now, and the sandbox kept by a process
// that does nothing, as long as it is the sandbox that has the address.
func (w *Watch) source(ctx context.Context, pm *v1alpha1.PodMigration, p picture) error {
	m := migrate.MoveOf(pm)
	_, at, err := w.cfg.Ends.noted(m.UID, migrate.RoleSource)
	if err == nil {
		err = stands(at, m)
	}
	if err != nil && !errors.Is(err, errGone) && !errors.Is(err, address.ErrNoEnd) {
		return err
	}
	if err != nil {
		return w.end(ctx, seat{pm, m, 0}, end{v1alpha1.ReasonSourceChanged, fmt.Sprintf("the sandbox on node %s has the pod's old address no more: %v", w.cfg.Node, err), false})
	}
	if image := pm.Status.Connections.HolderImage; image != "" {
		f := fence.Fence{PodUID: m.Source.UID, Epoch: uint64(m.Epoch), Migration: m.Namespace + "/" + m.Name, Holder: image}
		if is, err := w.cfg.Fences.Check(f.PodUID); err != nil {
			return err
		} else if is == nil || *is != f {
			if err := w.cfg.Fences.Write(f); err != nil {
				return err
			}
		}
	}
	if now := p.newest[m.UID]; now.UID != pm.UID {
		return w.turn(ctx, pm, at, now)
	}
	m = m.Left(w.cfg.Now())
	if w.forwards[m.UID] == of(m).String() || m.Keep.For == 0 || w.keeps[m.UID] != "" {
		return nil // what is kept now is for where the pod goes next
	}
	if err := w.cfg.Ends.Forward(m); err != nil {
		return err
	}
	w.forwards[m.UID] = of(m).String()
	return nil
}

// stands is address.ErrNoEnd if the sandbox does not hold the move's old address any more, wherever it sends on
// what comes for that.
func stands(at string, m migrate.Move) error {
	l, err := address.Left(at)
	switch {
	case err != nil:
		return err
	case !slices.Equal(l.Old, m.Keep.Old):
		return fmt.Errorf("%w: it is that of %v", address.ErrNoEnd, l)
	}
	return address.Stands(at, l)
}

// turn has what comes for an address sent on to where the pod has come to by a later move, and says so in the
// record of the one by which it left. When that lease is over, or the API server says so to who is about to turn
// it, nothing is sent on any more: the new address may soon be somebody else's.
func (w *Watch) turn(ctx context.Context, pm *v1alpha1.PodMigration, at string, now *v1alpha1.PodMigration) error {
	m := migrate.MoveOf(now)
	i := slices.IndexFunc(m.Keep.Earlier, func(e migrate.Earlier) bool { return e.UID == string(pm.UID) })
	s := seat{now, m, i + 1}
	if i < 0 {
		return nil
	}
	if s.ended(now.Status.Connections) {
		return w.hold(s.uid(), at)
	}
	if w.forwards[s.uid()] != s.lease().String() {
		// What was heard of may be long past, and the pod's place with it.
		lives, err := w.lives(ctx, s)
		if err != nil {
			return err
		}
		d := s.left(w.cfg.Now())
		if !lives || d == 0 {
			return w.hold(s.uid(), at)
		}
		if err := w.cfg.Ends.turn(s.uid(), at, s.lease(), d); err != nil {
			return err
		}
		w.forwards[s.uid()] = s.lease().String()
		delete(w.holds, s.uid())
	}
	if pm.Status.Connections.TurnedTo == now.UID {
		return nil
	}
	return w.write(ctx, pm, leased, func(c *v1alpha1.ConnectionsStatus) { c.TurnedTo = now.UID })
}

// lives tells, by what the API server has now, that an earlier address is leased where the pod has come by the
// seat's move.
func (w *Watch) lives(ctx context.Context, s seat) (bool, error) {
	now, err := w.cfg.Records.Get(ctx, s.pm.Namespace, s.pm.Name)
	if err != nil {
		return false, client.IgnoreNotFound(err)
	}
	if now.UID != s.pm.UID || s.ended(now.Status.Connections) {
		return false, nil
	}
	return w.cfg.Ends.lives(ctx, s)
}

// hold has nothing sent on any more from a sandbox that the pod has left.
func (w *Watch) hold(uid, at string) error {
	if w.holds[uid] {
		return nil
	}
	l, err := address.Left(at)
	if err != nil {
		return err
	}
	if err := address.Hold(at, l); err != nil {
		return err
	}
	w.holds[uid] = true
	w.cfg.Ends.drop(uid)
	return nil
}
