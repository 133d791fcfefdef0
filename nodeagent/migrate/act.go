package migrate

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/handoff"
)

// do starts an action; its answer comes by the mailbox.
func (w *worker) do(ctx context.Context, a handoff.Action) {
	switch a.Op {
	case handoff.OpCancel:
		if w.cancel != nil {
			w.cancel()
		}
	case handoff.OpRead:
		w.start(ctx, func(ctx context.Context) letter { return w.reread(ctx, false) })
	case handoff.OpConfirm:
		w.start(ctx, func(ctx context.Context) letter { return w.reread(ctx, true) })
	case handoff.OpWrite:
		w.swap(ctx, a)
	case handoff.OpReadNode:
		w.start(ctx, w.readNode)
	case handoff.OpFence:
		w.try(ctx, a.Op, func(context.Context) error { return w.fence() })
	case handoff.OpLift:
		r := w.machine.Record()
		w.try(ctx, a.Op, func(context.Context) error { return w.lift(r) })
	default:
		if w.role == RoleSource {
			w.doSource(ctx, a)
		} else {
			w.doTarget(ctx, a)
		}
	}
}

// start runs f beside the worker and puts what it gives into the mailbox.
func (w *worker) start(ctx context.Context, f func(context.Context) letter) {
	w.d.wg.Add(1)
	go func() {
		defer w.d.wg.Done()
		l := f(ctx)
		if w.ctx.Err() == nil {
			w.box.put(l)
		}
	}()
}

// try is start for what ends in Done or Failed.
func (w *worker) try(ctx context.Context, op handoff.Op, f func(context.Context) error) {
	w.start(ctx, func(ctx context.Context) letter { return w.answer(op, f(ctx)) })
}

func (w *worker) answer(op handoff.Op, err error) letter {
	if err != nil {
		w.log.Error("failed", "op", string(op), "err", err)
		return letter{event: handoff.Event{Kind: handoff.Failed, Op: op, Reason: err.Error()}}
	}
	return letter{event: handoff.Event{Kind: handoff.Done, Op: op}}
}

// reread reads the record, and to confirm also whether the move is still wanted.
func (w *worker) reread(ctx context.Context, confirm bool) letter {
	ctx, done := context.WithTimeout(ctx, w.d.cfg.CallTimeout)
	defer done()
	lost := letter{event: handoff.Event{Kind: handoff.Read, Outcome: handoff.Unknown}}
	e := handoff.Event{Kind: handoff.Read, Outcome: handoff.OK}
	var asked sync.WaitGroup
	var unknown error
	if confirm { // beside the record: a pod stands frozen meanwhile
		asked.Go(func() { e.Unwanted, unknown = w.d.ports.Cluster.Unwanted(ctx, w.move) })
	}
	pm, err := w.get(ctx)
	asked.Wait()
	if err != nil {
		w.log.Warn("cannot read the record of the move; what is held stays held", "err", err)
		return lost
	}
	e.Record = RecordOf(pm)
	if confirm {
		e.Confirmed = true
		if unknown != nil {
			w.log.Warn("cannot tell whether the move is still wanted", "err", unknown)
			return lost
		}
		if pm.DeletionTimestamp != nil {
			e.Unwanted = "the PodMigration is being deleted"
		}
	}
	return letter{e, func() { w.keep(pm) }}
}

// swap is the compare-and-swap.
func (w *worker) swap(ctx context.Context, a handoff.Action) {
	refused := letter{event: handoff.Event{Kind: handoff.Wrote, Outcome: handoff.Conflict}}
	base := w.objects[a.Version]
	if base == nil {
		w.box.put(refused)
		return
	}
	if a.Change.Verb == handoff.Wait {
		w.meet(base)
	}
	next, err := write{
		change: a.Change, role: w.role, node: w.d.cfg.Node, now: w.d.cfg.Now(),
		steps: w.steps, sent: w.sent, frozen: w.frozenFor(), judgement: w.judgement,
		address: w.connections.address, verdict: w.connections.verdict,
	}.apply(base)
	if err != nil {
		w.log.Error("not written", "change", string(a.Change.Verb), "err", err)
		w.box.put(refused)
		return
	}
	w.start(ctx, func(ctx context.Context) letter { return w.store(ctx, a.Change, next) })
}

func (w *worker) store(ctx context.Context, c handoff.Change, pm *v1alpha1.PodMigration) letter {
	ctx, done := context.WithTimeout(ctx, w.d.cfg.CallTimeout)
	defer done()
	stored, outcome, err := w.d.ports.Records.UpdateStatus(ctx, pm)
	if outcome != handoff.OK {
		w.log.Warn("the record was not changed, or that is not known", "change", string(c.Verb), "outcome", string(outcome), "err", err)
		if outcome == handoff.Conflict && !apierrors.IsConflict(err) {
			w.pause(w.ctx, w.d.cfg.Tick) // nothing newer is there to be read
		}
		return letter{event: handoff.Event{Kind: handoff.Wrote, Outcome: outcome}}
	}
	w.log.Info("record changed", "change", string(c.Verb), "reason", c.Reason, "message", c.Message)
	return letter{handoff.Event{Kind: handoff.Wrote, Outcome: handoff.OK, Record: RecordOf(stored)}, func() { w.keep(stored) }}
}

func (w *worker) readNode(ctx context.Context) letter {
	ctx, done := context.WithTimeout(ctx, w.d.cfg.CallTimeout)
	defer done()
	id, gone, err := w.d.ports.Cluster.BootID(ctx, w.move.Target.Node)
	if err != nil {
		w.log.Warn("cannot read the target's Node object", "node", w.move.Target.Node, "err", err)
		return letter{event: handoff.Event{Kind: handoff.Node, Outcome: handoff.Unknown}}
	}
	return letter{event: handoff.Event{Kind: handoff.Node, Outcome: handoff.OK, BootID: id, Gone: gone}}
}

// pod is this side's.
func (w *worker) pod() Pod {
	if w.role == RoleSource {
		return w.move.Source
	}
	return w.move.Target
}

func (w *worker) fence() error {
	return w.d.ports.Fences.Write(fence.Fence{
		PodUID: w.pod().UID, Epoch: uint64(w.move.Epoch), Migration: w.move.Namespace + "/" + w.move.Name,
	})
}

// lift removes this side's fence, if it is this move's.
func (w *worker) lift(r handoff.Record) error {
	if own, err := w.fenced(r); !own {
		return err
	}
	return w.d.ports.Fences.Lift(w.pod().UID, uint64(r.Epoch))
}

// fenced tells whether this side's pod bears a fence of this move: written under its epoch,
// or, after a return, under the one before. Another move's is not this one's to lift.
func (w *worker) fenced(r handoff.Record) (bool, error) {
	f, err := w.d.ports.Fences.Check(w.pod().UID)
	return f != nil && (f.Epoch == uint64(r.Epoch) || f.Epoch+1 == uint64(r.Epoch)), err
}
