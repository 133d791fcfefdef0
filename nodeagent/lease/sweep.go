package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// sweep takes away what no move or lease names, of this life of the agent or of an earlier one.
func (w *Watch) sweep(ctx context.Context, p picture) error {
	notes, err := w.cfg.Ends.notes()
	if err != nil {
		return err
	}
	named := map[string]bool{}
	var errs []error
	for _, n := range notes {
		named[n.UID] = true
		if err := w.sweepOne(ctx, n, p.recorded[n.UID]); err != nil {
			errs = append(errs, fmt.Errorf("what was made for an address in the sandbox of pod %s: %w", n.PodUID, err))
		}
	}
	maps.DeleteFunc(w.forwards, func(uid, _ string) bool { return !named[uid] })
	maps.DeleteFunc(w.holds, func(uid string, _ bool) bool { return !named[uid] })
	for key := range w.busy {
		if uid, _, _ := strings.Cut(key, "/"); !named[uid] {
			delete(w.busy, key)
			delete(w.seen, key)
			delete(w.over, key)
		}
	}
	return errors.Join(errs...)
}

func (w *Watch) sweepOne(ctx context.Context, n note, pm *v1alpha1.PodMigration) error {
	if pm == nil {
		// The cache may not have it yet, but it was there before the note was.
		now, err := w.cfg.Records.Get(ctx, n.Namespace, n.Name)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err == nil && string(now.UID) == n.UID {
			pm = now
		}
	}
	at, err := n.find(w.cfg.Ends.host)
	if errors.Is(err, errGone) {
		return w.cfg.Ends.forget(n.UID, n.Role)
	}
	if err != nil {
		return err
	}
	if n.Role == migrate.RoleTarget {
		return w.sweepTarget(n, at, pm)
	}
	return w.sweepSource(n, at, pm)
}

// sweepTarget leaves a lease that is over and whose connections may still be there, and clears all
// else. Of a sandbox that the pod has left, or is about to, nothing is known until it is gone or the pod
// stays.
func (w *Watch) sweepTarget(n note, at string, pm *v1alpha1.PodMigration) error {
	switch {
	case pm != nil && pm.Status.Target.Resumed && pm.Status.Connections != nil && pm.Status.Connections.LeaseEnded:
		if _, err := address.Left(at); !errors.Is(err, address.ErrNoEnd) {
			return err
		}
		if err := address.Leave(at, of(migrate.MoveOf(pm))); err != nil {
			return err
		}
		if slices.ContainsFunc(pm.Status.Connections.Earlier, func(e v1alpha1.EarlierLease) bool { return !e.TargetLeft }) {
			return nil
		}
		return w.cfg.Ends.forget(n.UID, n.Role)
	case pm != nil && !pm.Status.Target.Cleaned && pm.Status.Connections != nil && pm.Status.Connections.State != v1alpha1.ConnectionsClosed:
		return nil
	}
	return w.cfg.Ends.clear(n.UID, n.Role)
}

// sweepSource clears the sandbox of a source that runs on. One that the pod has left, or that nobody
// can tell of any more, stays silent: its sockets are no end of any connection now, and the new
// address at the tunnel's other end may soon be somebody else's.
func (w *Watch) sweepSource(n note, at string, pm *v1alpha1.PodMigration) error {
	if pm != nil {
		s := &pm.Status
		switch {
		case s.Source.Released:
			return w.cfg.Ends.clear(n.UID, n.Role)
		case s.Source.Ended && s.Lost, s.Connections != nil && s.Connections.LeaseEnded:
			// The source's worker may not have heard of the end, and send on: it is held at each look.
			return w.silence(n, at, migrate.MoveOf(pm), false)
		}
		return nil
	}
	f, err := w.cfg.Fences.Check(n.PodUID)
	if err != nil {
		return err
	}
	if f == nil {
		return w.cfg.Ends.clear(n.UID, n.Role)
	}
	return w.silence(n, at, migrate.Move{}, true)
}

// silence holds the sandbox again, for as long as there is one; once, if nobody opens it any more.
func (w *Watch) silence(n note, at string, m migrate.Move, once bool) error {
	if w.holds[n.UID] {
		return nil
	}
	l, err := address.Left(at)
	if errors.Is(err, address.ErrNoEnd) && len(m.Keep.Old) > 0 {
		l, err = of(m), nil
	}
	if err != nil {
		return err
	}
	if err := address.Hold(at, l); err != nil {
		return err
	}
	w.holds[n.UID] = once
	return nil
}
