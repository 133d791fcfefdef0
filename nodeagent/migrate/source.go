package migrate

import (
	"context"

	"github.com/drover-project/drover/internal/handoff"
)

// facts looks at the node and makes the machine of this side.
func (w *worker) facts(ctx context.Context, r handoff.Record) (machine, error) {
	if w.role == RoleTarget {
		return w.targetFacts(ctx, r)
	}
	f, err := w.d.ports.Checkpointer.Inspect(ctx, w.move)
	if err != nil {
		return nil, err
	}
	if f.Fence, err = w.fenced(r); err != nil {
		return nil, err
	}
	w.log.Info("source of a move", "containers", w.move.Containers, "to", w.move.Target.Node, "facts", f)
	return handoff.NewSource(w.d.cfg.Handoff, r, f), nil
}

func (w *worker) doSource(ctx context.Context, a handoff.Action) {
	p := w.d.ports
	switch a.Op {
	case handoff.OpDump:
		ctx, w.cancel = context.WithCancel(ctx)
		w.start(ctx, w.dump)
	case handoff.OpSend:
		ctx, w.cancel = context.WithCancel(ctx)
		dir := w.dumped.Dir
		w.start(ctx, func(ctx context.Context) letter { return w.send(ctx, dir) })
	case handoff.OpThaw:
		w.try(ctx, a.Op, func(ctx context.Context) error { return p.Checkpointer.Release(ctx, w.move) })
	case handoff.OpEnd:
		w.try(ctx, a.Op, func(ctx context.Context) error { return p.Checkpointer.End(ctx, w.move) })
	}
}

func (w *worker) dump(ctx context.Context) letter {
	examined, ok := w.leaves(ctx)
	if !ok {
		w.log.Warn("the pod cannot be moved; nothing was frozen", "finding", examined.event.Reason)
		return examined
	}
	defer w.telling(ctx)()
	dumped, err := w.d.ports.Checkpointer.Dump(ctx, w.move)
	if err != nil {
		return w.answer(handoff.OpDump, err)
	}
	at := w.d.cfg.Now()
	return letter{handoff.Event{Kind: handoff.Held}, func() {
		if examined.before != nil {
			examined.before()
		}
		w.dumped, w.frozenAt = dumped, dumped.FrozenAt
		if w.frozenAt.IsZero() {
			w.frozenAt = at
		}
		w.note(StepFrozen, w.frozenAt)
		w.note(StepDumped, at)
	}}
}

func (w *worker) send(ctx context.Context, dir string) letter {
	defer w.telling(ctx)()
	sent, err := w.d.ports.Sender.Send(ctx, w.move, dir)
	l := w.answer(handoff.OpSend, err)
	if err == nil {
		at := w.d.cfg.Now()
		l.before = func() {
			w.sent = &sent
			w.note(StepSent, at)
		}
	}
	return l
}
