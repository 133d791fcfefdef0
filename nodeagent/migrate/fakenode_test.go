package migrate

import (
	"context"
	"errors"
	"time"

	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/movable"
)

// Each port of a fake node is a type of its own, so that their methods do not clash.
type (
	checkpointer node
	sender       node
	images       node
	copies       node
	fences       node
	arrivals     node
	marks        node
	guard        node
	addresses    node
)

func (x *guard) Leaves(context.Context, Move) ([]movable.Finding, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.source.Frozen {
		x.c.t.Error("examined after something was frozen")
	}
	return x.c.leaves, nil
}

func (x *guard) Comes(Move) []movable.Finding { return x.c.comes }

func (x *checkpointer) Inspect(context.Context, Move) (handoff.SourceFacts, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.source, nil
}

func (x *checkpointer) Dump(ctx context.Context, m Move) (Dumped, error) {
	x.mu.Lock()
	x.c.called("a dump")
	if x.kept = m.KeepsConnections; x.kept != (x.net == "parting") {
		x.c.t.Errorf("dumped with connections kept: %v, and the sandbox is %q", x.kept, x.net)
	}
	block, err := x.blockDump, x.dumpErr
	x.source.Frozen = true
	if x.kept {
		if held := (*addresses)(x).Hold(m); held != nil {
			err = held
		}
	}
	x.mu.Unlock()
	if block {
		<-ctx.Done()
		x.mu.Lock()
		defer x.mu.Unlock()
		x.dumpCut = true
		return Dumped{}, ctx.Err()
	}
	if err != nil {
		return Dumped{}, err
	}
	return Dumped{Dir: "/images"}, nil
}

func (x *checkpointer) Release(_ context.Context, m Move) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.c.called("a release")
	if x.kept && !m.KeepsConnections {
		x.c.t.Error("released as if its sockets had not been dumped")
	}
	if f, ok := x.fences[sourcePod]; ok && f.Migration != "another/move" {
		x.c.t.Error("thawed before the fence was lifted")
	}
	if r := x.c.record(); r.Decision != handoff.Aborted && !r.Returned {
		x.c.t.Errorf("the source was released, and the record says %q", r.Decision)
	}
	x.source.Frozen, x.source.Dumping = false, false
	return nil
}

func (x *checkpointer) End(context.Context, Move) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.c.called("a end")
	if r := x.c.record(); !r.Target.Resumed && !r.Lost {
		x.c.t.Error("the source was ended before the acknowledgement")
	} else if r.Needed() {
		x.c.t.Error("the source was ended while the copy lacks memory")
	} else if r.Source.Keep && !r.Adopted && !r.Lost {
		x.c.t.Error("the source was ended while it was kept")
	}
	x.source.Alive, x.source.Frozen = false, false
	return nil
}

func (x *sender) Send(context.Context, Move, string) (Progress, error) {
	x.mu.Lock()
	err, slow := x.sendErr, x.slowSend
	x.mu.Unlock()
	if err != nil {
		return Progress{}, err
	}
	time.Sleep(slow)
	to := x.c.nodes["b"]
	to.mu.Lock()
	to.images = true
	d := to.driver
	to.mu.Unlock()
	if d != nil {
		d.ImagesComplete("uid-1")
	}
	return Progress{Sent: 4096, Total: 4096, Wire: 99, Rounds: 3}, nil
}

func (x *sender) Progress(Move) *Progress {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.slowSend == 0 {
		return nil
	}
	return &Progress{Sent: 1024, Total: 4096, Rate: 512.5, Left: 6 * time.Second, Rounds: 3}
}

func (x *images) Complete(context.Context, Move) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.images {
		return "/images", nil
	}
	return "", nil
}

func (x *images) Discard(context.Context, Move) error {
	if x.discards != nil {
		x.discards()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.images = false
	return nil
}

func (x *copies) Inspect(context.Context, Move) (Copy, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.copy, nil
}

func (x *copies) Restore(ctx context.Context, m Move, id, _ string) error {
	x.mu.Lock()
	x.c.called("b restore")
	if m.KeepsConnections != (x.net == "arrived") || m.KeepsConnections != x.c.nodes["a"].kept {
		x.c.t.Errorf("restored with connections kept: %v, and the sandbox is %q", m.KeepsConnections, x.net)
	}
	if x.blockRestore {
		x.atWork = true
		x.mu.Unlock()
		<-ctx.Done()
		time.Sleep(time.Second)
		x.mu.Lock()
		defer x.mu.Unlock()
		x.atWork = false
		return ctx.Err()
	}
	x.copy.ID = id
	err, d := x.restoreErr, x.driver
	if err == nil {
		x.copy.Alive, x.copy.Frozen, x.copy.Held = true, true, true
	}
	x.mu.Unlock()
	if err != nil {
		d.RestoreEnded(targetPod, id, err)
		return nil
	}
	d.RestoreHeld(targetPod, id)
	return nil
}

func (x *copies) Resume(_ context.Context, _ Move, id string, mark func() error) error {
	x.mu.Lock()
	fits := x.copy.Held && x.copy.Frozen && x.copy.ID == id && len(x.copy.Creates) > 0
	for _, p := range x.copy.Passed {
		fits = fits && p.Alive && p.Frozen
	}
	x.mu.Unlock()
	if !fits {
		return errors.New("the wrapper or the hook is gone")
	}
	if err := mark(); err != nil {
		return err
	}
	if r := x.c.record(); r.Decision != handoff.Committed {
		x.c.t.Errorf("the copy was resumed, and the record says %q", r.Decision)
	}
	x.mu.Lock()
	(*node)(x).letRun()
	x.mu.Unlock()
	(*node)(x).endCreate(id)
	return nil
}

// letRun thaws the copies. The lock is held.
func (n *node) letRun() {
	n.c.called("b thaw")
	if n.net == "arrived" && n.openErr == nil {
		n.c.t.Error("the copy runs before its address is open")
	}
	n.copy.Frozen, n.copy.Held = false, false
	for i := range n.copy.Passed {
		n.copy.Passed[i].Frozen = false
	}
}

func (x *copies) Pass(ctx context.Context, _ Move, id string) error {
	if x.blockPass {
		<-ctx.Done()
		return ctx.Err()
	}
	x.mu.Lock()
	if !x.copy.Held || !x.copy.Frozen || x.copy.ID != id {
		x.mu.Unlock()
		return errors.New("the wrapper or the hook is gone")
	}
	name := ""
	for _, c := range x.copy.Creates {
		if c.ID == id {
			name = c.Name
		}
	}
	x.copy.Passed = append(x.copy.Passed, handoff.Copy{ID: id, Name: name, Alive: true, Frozen: true})
	x.copy.ID, x.copy.Alive, x.copy.Frozen, x.copy.Held = "", false, false, false
	x.mu.Unlock()
	(*node)(x).endCreate(id)
	return nil
}

func (x *copies) ResumeRest(context.Context, Move) error {
	x.mu.Lock()
	if !x.begun {
		x.c.t.Error("copies are let go without a mark")
	}
	id := x.copy.ID
	(*node)(x).letRun()
	x.mu.Unlock()
	(*node)(x).endCreate(id)
	return nil
}

// Loaded waits until what a test calls for has come.
func (x *copies) Loaded(ctx context.Context, _ Move) error {
	x.mu.Lock()
	wait := x.loading
	x.mu.Unlock()
	if wait == nil {
		return nil
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *copies) Drop(context.Context, Move) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.c.called("b drop")
	x.copy.Alive = false
	if x.loading != nil {
		close(x.loading)
		x.loading = nil
	}
	return nil
}

func (x *copies) Kill(context.Context, Move) error {
	x.mu.Lock()
	if x.atWork {
		x.c.t.Error("the copy is ended while its restore is still at work")
	}
	x.c.called("b kill")
	id := x.copy.ID
	x.copy = Copy{Creates: x.copy.Creates}
	x.mu.Unlock()
	(*node)(x).endCreate(id)
	return nil
}

func (x *copies) Refuse(_ context.Context, _ Move, id, _ string) error {
	(*node)(x).answer(id, "refuse")
	return nil
}

func (x *copies) Fresh(_ context.Context, _ Move, id string) error {
	if !x.c.record().Target.Resumed {
		x.c.t.Error("a cold start before the acknowledgement")
	}
	(*node)(x).answer(id, "fresh")
	return nil
}

func (n *node) answer(id, with string) {
	n.mu.Lock()
	n.answers[id] = with
	n.mu.Unlock()
	n.endCreate(id)
}

func (x *fences) Write(f fence.Fence) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old, ok := x.fences[f.PodUID]; ok && old.Epoch != f.Epoch && old.Epoch+1 != f.Epoch {
		return errors.New("another move holds the fence")
	}
	x.fences[f.PodUID] = f
	return nil
}

func (x *fences) Lift(uid string, epoch uint64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f, ok := x.fences[uid]; ok && f.Epoch != epoch && f.Epoch+1 != epoch {
		return errors.New("another move holds the fence")
	}
	delete(x.fences, uid)
	return nil
}

func (x *fences) Check(uid string) (*fence.Fence, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f, ok := x.fences[uid]; ok {
		return &f, nil
	}
	return nil, nil
}

func (x *arrivals) Write(r fence.Restored) error {
	if !x.c.record().Target.Resumed {
		x.c.t.Error("arrival noted before the acknowledgement")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.arrivals[r.PodUID] = true
	return nil
}

func (x *arrivals) Check(uid, _ string) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.arrivals[uid], nil
}

func (x *marks) Begin(Move) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.begun = true
	return nil
}

func (x *marks) Begun(Move) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.begun, nil
}

func (x *marks) Forget(Move) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.begun = false
	return nil
}
