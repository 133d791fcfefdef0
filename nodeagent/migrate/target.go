package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/handoff"
)

// targetFacts waits until wrappers and hooks of before the agent's restart had the time to
// call again, then takes stock.
func (w *worker) targetFacts(ctx context.Context, r handoff.Record) (machine, error) {
	if left := w.d.graceLeft(); r.Target.Waiting && !r.Target.Resumed && left > 0 && !w.pause(ctx, left) {
		return nil, ctx.Err()
	}
	p := w.d.ports
	c, err := p.Runtime.Inspect(ctx, w.move)
	if err != nil {
		return nil, err
	}
	f := handoff.TargetFacts{
		BootID: w.d.cfg.BootID, Passed: c.Passed, Copy: c.ID,
		Alive: c.Alive, Frozen: c.Frozen, Held: c.Held, Restoring: c.Restoring,
	}
	creates(&f, c.Creates)
	dir, err := p.Images.Complete(ctx, w.move)
	if err != nil {
		return nil, err
	}
	f.Images = dir != ""
	if f.Begun, err = p.Marks.Begun(w.move); err != nil {
		return nil, err
	}
	if f.Fence, err = w.fenced(r); err != nil {
		return nil, err
	}
	w.log.Info("target of a move", "pod", w.move.Target.Name, "from", w.move.Source.Node, "facts", f)
	return handoff.NewTarget(w.d.cfg.Handoff, r, f), nil
}

// creates tells the copy's own create from a later one.
func creates(f *handoff.TargetFacts, all []Create) {
	has := func(fits func(handoff.Copy) bool) bool { return slices.ContainsFunc(f.Passed, fits) }
	for _, c := range all {
		switch {
		case has(func(p handoff.Copy) bool { return p.ID == c.ID }):
			// It is about to return.
		case !has(func(p handoff.Copy) bool { return p.Name == c.Name }) && (f.Copy == "" || f.Copy == c.ID):
			f.Waiter, f.Name, f.Deadline = c.ID, c.Name, c.Deadline
		default:
			f.Stranger = c.ID
		}
	}
}

func (w *worker) doTarget(ctx context.Context, a handoff.Action) {
	rt := w.d.ports.Runtime
	switch a.Op {
	case handoff.OpRestore:
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		w.breakOff = func() { cancel(); <-ended }
		w.start(ctx, func(ctx context.Context) letter {
			defer close(ended)
			defer cancel()
			return w.restore(ctx, a.ID)
		})
	case handoff.OpLook:
		w.start(ctx, w.lookAgain)
	case handoff.OpPass:
		ctx, w.cancel = context.WithCancel(ctx)
		w.try(ctx, a.Op, func(ctx context.Context) error { return rt.Pass(ctx, w.move, a.ID) })
	case handoff.OpResumeRest:
		w.try(ctx, a.Op, w.resumeRest)
	case handoff.OpResume:
		w.try(ctx, a.Op, func(ctx context.Context) error { return w.resume(ctx, a.ID) })
	case handoff.OpLoad:
		w.try(ctx, a.Op, func(ctx context.Context) error { return rt.Loaded(ctx, w.move) })
	case handoff.OpDrop:
		w.try(ctx, a.Op, func(ctx context.Context) error { return rt.Drop(ctx, w.move) })
	case handoff.OpKill:
		// What still looks at the images or makes files would begin a copy after its end.
		breakOff, clear := w.breakOff, w.clearing()
		w.try(ctx, a.Op, func(ctx context.Context) error {
			if breakOff != nil {
				breakOff()
			}
			if err := w.kill(ctx); err != nil {
				return err
			}
			return clear() // what the copy's sockets said at their end met the hold
		})
	case handoff.OpRefuse:
		w.try(ctx, a.Op, func(ctx context.Context) error { return rt.Refuse(ctx, w.move, a.ID, a.Reason) })
	case handoff.OpFresh:
		w.try(ctx, a.Op, func(ctx context.Context) error { return w.fresh(ctx, a.ID) })
	}
}

// lookAgain looks at every copy and its freezer.
func (w *worker) lookAgain(ctx context.Context) letter {
	c, err := w.d.ports.Runtime.Inspect(ctx, w.move)
	if err != nil {
		return w.answer(handoff.OpLook, fmt.Errorf("look at the copies of pod %s: %w", w.move.Target.UID, err))
	}
	all := slices.Clone(c.Passed)
	if c.ID != "" {
		all = append(all, handoff.Copy{ID: c.ID, Alive: c.Alive, Frozen: c.Frozen, Dying: c.Dying, Orphaned: c.Orphaned})
	}
	return letter{event: handoff.Event{Kind: handoff.Looked, Copies: all}}
}

// kill ends a copy that never ran. Its mark goes first: while the copy is there its freezer
// tells that it did not run, and afterwards nothing would.
func (w *worker) kill(ctx context.Context) error {
	if err := w.d.ports.Marks.Forget(w.move); err != nil {
		return err
	}
	return w.d.ports.Runtime.Kill(ctx, w.move)
}

// fresh answers a create that waits. One that was told late and is gone must not cost the
// copy its life.
func (w *worker) fresh(ctx context.Context, id string) error {
	rt := w.d.ports.Runtime
	c, err := rt.Inspect(ctx, w.move)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(c.Creates, func(o Create) bool { return o.ID == id }) {
		return nil
	}
	return rt.Fresh(ctx, w.move, id)
}

// restore only begins it: Held or HookGone tells what came of it.
func (w *worker) restore(ctx context.Context, id string) letter {
	// The images are there, so the source has read what becomes of the connections.
	select {
	case <-ctx.Done():
		return w.answer(handoff.OpRestore, context.Cause(ctx))
	case <-w.connections.settled:
	}
	m := w.moving()
	dir, err := w.d.ports.Images.Complete(ctx, w.move)
	if err == nil && dir == "" {
		err = errors.New("the images are not complete any more")
	}
	switch {
	case err != nil:
	case m.KeepsConnections:
		err = w.d.ports.Addresses.Arrive(m)
	default:
		err = w.d.ports.Addresses.Clear(m, RoleTarget) // this side had found that it could, the other that it could not
	}
	if err == nil {
		err = w.d.ports.Runtime.Restore(ctx, m, id, dir)
	}
	if err != nil {
		return w.answer(handoff.OpRestore, fmt.Errorf("restore container %s from %q: %w", id, dir, err))
	}
	return letter{event: handoff.Event{Kind: handoff.Began, Op: handoff.OpRestore}}
}

// resume lets the copies run. Once the mark is left it cannot fail any more: it is tried
// until they run, or are found to be gone.
func (w *worker) resume(ctx context.Context, id string) error {
	p, marked, m := w.d.ports, false, w.moving()
	mark := func() error {
		// The source holds the address until it is ended: nothing passes by this alone.
		if m.KeepsConnections {
			if err := p.Addresses.Open(ctx, m); err != nil {
				return err
			}
		}
		if err := p.Marks.Begin(w.move); err != nil {
			return err
		}
		marked = true
		return nil
	}
	err := p.Runtime.Resume(ctx, w.move, id, mark)
	for err != nil && marked {
		w.log.Error("the copies were about to run; trying again", "err", err)
		if !w.pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
		err = p.Runtime.ResumeRest(ctx, w.move)
	}
	return err
}

// resumeRest lets the copies run that others ran before. The mark may not be there yet, if it was
// somebody else who let those go.
func (w *worker) resumeRest(ctx context.Context) error {
	if err := w.d.ports.Marks.Begin(w.move); err != nil {
		return err
	}
	if m := w.moving(); m.KeepsConnections {
		// The pod may have run, and comes first: without its connections rather than not at all.
		if err := w.d.ports.Addresses.Open(ctx, m); err != nil {
			w.log.Error("the pod goes on without its old address", "err", err)
		}
	}
	return w.d.ports.Runtime.ResumeRest(ctx, w.move)
}

// arrive tells drover-runc, once the record says so, that the pod is an ordinary one now.
func (w *worker) arrive() bool {
	p := w.d.ports
	err := p.Arrivals.Write(fence.Restored{PodUID: w.move.Target.UID, Migration: w.move.Name, Epoch: uint64(w.move.Epoch)})
	if err != nil {
		w.log.Error("cannot note that the pod has arrived: until then its container can be started again only by this agent", "err", err)
		return false
	}
	if err := p.Marks.Forget(w.move); err != nil {
		w.log.Warn("cannot remove the mark of the copy", "err", err)
	}
	return true
}

// tidyTarget removes what nobody needs once the side is done.
func (w *worker) tidyTarget(ctx context.Context) {
	if err := w.d.ports.Images.Discard(ctx, w.move); err != nil {
		w.log.Warn("cannot remove the images of the move", "err", err)
	}
	if !w.machine.Record().Target.Resumed {
		if err := w.clearing()(); err != nil {
			w.log.Warn("cannot clear away what was made in the sandbox for the pod's old address; trying again", "err", err)
		}
		if err := w.d.ports.Marks.Forget(w.move); err != nil {
			w.log.Warn("cannot remove the mark of the copy", "err", err)
		}
	}
}
