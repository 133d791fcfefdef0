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
		clear := w.clearing()
		w.try(ctx, a.Op, func(ctx context.Context) error {
			if err := p.Checkpointer.Release(ctx, w.moving()); err != nil {
				return err
			}
			return clear()
		})
	case handoff.OpEnd:
		m := w.moving()
		w.try(ctx, a.Op, func(ctx context.Context) error { return p.Checkpointer.End(ctx, m) })
	}
}

func (w *worker) dump(ctx context.Context) letter {
	examined, ok := w.leaves(ctx)
	if !ok {
		w.log.Warn("the pod cannot be moved; nothing was frozen", "finding", examined.event.Reason)
		return examined
	}
	m, refused, ok := w.agreed(ctx)
	if !ok {
		return refused
	}
	defer w.telling(ctx)()
	dumped, err := w.d.ports.Checkpointer.Dump(ctx, m)
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

// onward is the move with for how long what comes for its old address is to be sent on; 0: not at all,
// for the copy is not known to run, or the lease is over.
func (w *worker) onward() Move {
	m, pm := w.moving(), w.newest()
	if pm != nil {
		m.Keep.Until = keepOf(pm.Status.Connections).Until
	}
	m = m.Left(w.d.cfg.Now())
	if !w.machine.Record().Target.Resumed || pm != nil && pm.Status.Connections != nil && pm.Status.Connections.LeaseEnded {
		m.Keep.For = 0
	}
	return m
}

// forward has what comes for the source's address sent on as soon as the copy runs. It does not wait for the
// end of the source, which is frozen and hears and says nothing any more: until that end the source is an
// endpoint of its Services.
func (w *worker) forward(ctx context.Context) {
	c := &w.connections
	if w.role != RoleSource || c.forwarding || c.forwarded || w.machine.Done() {
		return
	}
	m := w.onward()
	if !m.KeepsConnections || m.Keep.For == 0 {
		return
	}
	c.forwarding = true
	w.start(ctx, func(ctx context.Context) letter {
		err := w.d.ports.Addresses.Forward(m)
		if err != nil {
			w.log.Error("what comes for the pod's old address is not sent on yet; trying again", "err", err)
			w.pause(ctx, w.d.cfg.Tick)
		}
		return letter{handoff.Event{Kind: handoff.Tick}, func() { c.forwarding, c.forwarded = false, err == nil }}
	})
}
