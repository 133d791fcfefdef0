package handoff

import "time"

// TargetFacts is what the target's node knows by itself, also after its agent crashed.
type TargetFacts struct {
	// BootID of the running kernel.
	BootID string
	// Waiter: a create waits for an answer, or its restore is under way, and it is the one
	// that the copy, if there is any, belongs to. Deadline is its own.
	Waiter   bool
	Deadline time.Time
	// Stranger: another, later create of the same container waits.
	Stranger bool
	// Images: complete, verified and synced on the disk.
	Images bool
	// Restoring: the restore was begun and has not reached pre-resume.
	Restoring bool
	// Held: CRIU's hook waits at pre-resume.
	Held bool
	// Alive: processes of the copy exist. Frozen: their cgroup is frozen.
	Alive, Frozen bool
	// Begun: OpResume left its mark for this copy, in this boot.
	Begun bool
	// Fence: the fence of the replacement is on the disk.
	Fence bool
}

// Target is the machine of the node that the pod goes to. Not safe for concurrent use.
type Target struct {
	ledger
	cfg    Config
	facts  TargetFacts
	ran    bool   // the copy has been thawed
	killed bool   // the attempt is over; nothing of it can run
	node   string // boot ID in the Node object
	doing  Op
	why    string
	msg    string
	done   bool
}

// NewTarget makes the machine from the record as last read and from local facts. It
// starts nothing: the first Step does. After a restart give the wrapper and the hook a
// moment to call again before the facts are taken: what has not called counts as gone.
func NewTarget(cfg Config, r Record, facts TargetFacts) *Target {
	t := &Target{ledger: ledger{rec: r}, cfg: cfg, facts: facts}
	// A copy that is frozen was never thawed: nobody freezes one again. A copy that is not
	// frozen after a commit was thawed; one that is gone ran if it bears the mark.
	t.ran = r.Decision == Committed && !t.mutant.forgetRun && (facts.Alive && !facts.Frozen && !facts.Restoring || !facts.Alive && facts.Begun)
	if r.Decision == Committed && facts.Waiter && !facts.Alive && !facts.Restoring {
		// Its copy is gone, so this create came for another.
		t.facts.Waiter, t.facts.Stranger = false, true
	}
	switch {
	case r.Decision != Undecided || !r.Target.Waiting:
	case r.Target.BootID != facts.BootID:
		t.giveUp("TargetRebooted", "the target was booted since its create began to wait")
	case !facts.Waiter:
		t.giveUp("WaiterGone", "the create on the target has gone")
	case facts.Alive && !facts.Held && !facts.Restoring:
		t.giveUp("HookGone", "the restore on the target has ended")
	}
	return t
}

// Record gives the newest record the machine has seen.
func (t *Target) Record() Record { return t.rec }

// Done tells that nothing is left to do; a create that comes later wakes it again.
func (t *Target) Done() bool { return t.done }

// Holding tells that a copy is held frozen, as far as the machine knows.
func (t *Target) Holding() bool { return t.facts.Alive && t.facts.Frozen }

// Step takes an event in and gives what is to be done. now is the target's clock, the one
// by which Deadline was set.
func (t *Target) Step(now time.Time, e Event) []Action {
	if t.absorb(e) {
		if e.Kind == Read && e.Confirmed && e.Unwanted != "" {
			t.giveUp("Unwanted", e.Unwanted)
		}
	} else {
		t.local(e)
	}
	t.done = false
	if t.doing != "" {
		return nil
	}
	switch t.rec.Decision {
	case Aborted:
		return t.abandon()
	case Committed:
		return t.own()
	}
	return t.undecided(now)
}

// local takes in what happened on this node.
func (t *Target) local(e Event) {
	f := &t.facts
	switch e.Kind {
	case WaiterCame:
		t.came(e)
	case WaiterGone:
		f.Waiter = false
		t.giveUp("WaiterGone", "the create on the target has gone")
	case StrangerGone:
		f.Stranger = false
	case Images:
		f.Images = true
	case Held:
		f.Alive, f.Frozen, f.Held, f.Restoring = true, true, true, false
	case HookGone:
		f.Held = false
		t.giveUp("HookGone", "the restore on the target ended while it was held")
	case Died:
		f.Alive, f.Frozen, f.Held, f.Restoring = false, false, false, false
		t.giveUp("CopyDied", "the restored processes ended")
	case Unwanted:
		t.giveUp("Unwanted", e.Reason)
	case Done:
		t.finished(e.Op)
	case Failed:
		t.failed(e)
	case Node:
		t.calling = false
		if e.Outcome == OK && !e.Gone {
			t.node = e.BootID
		}
		t.pause = t.node != f.BootID
	}
}

// came takes a new create in. One attempt has one create: any other is a stranger, and
// tells that kubelet has given up the first.
func (t *Target) came(e Event) {
	f := &t.facts
	if f.Waiter || f.Alive || f.Restoring || t.why != "" || t.killed || t.rec.Decision != Undecided {
		f.Stranger = true
		t.giveUp("WaiterGone", "another create has taken the place of the one that waited")
		return
	}
	f.Waiter, f.Deadline = true, e.Deadline
}

func (t *Target) finished(op Op) {
	f := &t.facts
	if t.doing == op {
		t.doing = ""
	}
	switch op {
	case OpResume:
		// The create ends now, and in good order.
		t.ran, f.Frozen, f.Held, f.Waiter = true, false, false, false
	case OpKill:
		t.killed = true
		f.Alive, f.Frozen, f.Held, f.Restoring, f.Waiter = false, false, false, false, false
	case OpFence:
		f.Fence = true
	case OpRefuse, OpFresh:
		if f.Stranger {
			f.Stranger = false
		} else {
			f.Waiter = false
		}
	}
}

func (t *Target) failed(e Event) {
	if t.doing == e.Op {
		t.doing = ""
	}
	switch e.Op {
	case OpRestore:
		// What it left behind is OpKill's to end.
		t.giveUp("RestoreFailed", e.Reason)
	case OpResume:
		t.facts.Held = false
		t.giveUp("ResumeFailed", e.Reason)
	default:
		t.pause = true
	}
}

func (t *Target) giveUp(why, message string) {
	if t.why == "" {
		t.why, t.msg = why, message
	}
}

// undecided restores as soon as it can, and commits what is offered, held and wanted.
func (t *Target) undecided(now time.Time) []Action {
	f, r := t.facts, t.rec
	if t.stale {
		return t.reread()
	}
	if f.Waiter && !now.Before(f.Deadline.Add(-t.cfg.CommitMargin)) {
		t.giveUp("Late", "the create on the target cannot wait any longer")
	}
	if t.why != "" {
		return t.write(Change{Verb: Abort, Reason: t.why, Message: t.msg})
	}
	if !f.Waiter {
		return nil
	}
	if !r.Target.Waiting {
		return t.announce()
	}
	if f.Images && !f.Restoring && !f.Alive {
		t.facts.Restoring = true
		return []Action{{Op: OpRestore}}
	}
	if t.mutant.resumeUndecided && f.Held {
		return t.do(Action{Op: OpResume})
	}
	if !r.Source.Offered || !t.resumable() || !t.mutant.noBootCheck && r.Target.BootID != f.BootID {
		return nil
	}
	if t.confirmed != r.Version && !t.mutant.noConfirm {
		return t.call(Action{Op: OpConfirm})
	}
	return t.write(Change{Verb: Commit})
}

// announce tells that a create waits: once the Node object shows this boot, so that a
// later boot can be told from this one, and this one not taken for a later.
func (t *Target) announce() []Action {
	f := t.facts
	if t.node != f.BootID && !t.mutant.noNodeCheck {
		if t.pause {
			return nil
		}
		return t.call(Action{Op: OpReadNode})
	}
	return t.write(Change{Verb: Wait, BootID: f.BootID, Deadline: f.Deadline})
}

// resumable: the copy is complete, held, and owned by a create that still waits.
func (t *Target) resumable() bool {
	f := t.facts
	return (f.Waiter || t.mutant.orphanResume) && f.Held && f.Alive && f.Frozen && !t.killed
}

// abandon leaves nothing of the attempt.
func (t *Target) abandon() []Action {
	f := t.facts
	switch {
	case t.pause:
		return nil
	case f.Alive || f.Restoring:
		return t.do(Action{Op: OpKill})
	case f.Waiter || f.Stranger:
		return t.do(Action{Op: OpRefuse, Reason: "the move was aborted"})
	case t.stale:
		return t.reread()
	case !t.rec.Target.Cleaned:
		return t.write(Change{Verb: Clean})
	}
	t.done = true
	return nil
}

// own resumes the copy and says so; or, if it cannot, makes sure that it never runs.
func (t *Target) own() []Action {
	f, r := t.facts, t.rec
	switch {
	case t.pause:
		return nil
	case r.Target.Resumed:
		return t.after()
	case r.Target.Failed || r.Returned:
		return t.giveBack()
	case t.ran:
		if t.stale {
			return t.reread()
		}
		return t.write(Change{Verb: Resume})
	case t.resumable():
		return t.do(Action{Op: OpResume})
	case t.mutant.freshEarly && f.Stranger:
		return t.do(Action{Op: OpFresh})
	case (f.Alive || f.Restoring || f.Waiter) && !t.mutant.failAlive:
		return t.do(Action{Op: OpKill})
	case !f.Fence && !t.mutant.noTargetFence:
		return t.do(Action{Op: OpFence})
	case t.stale:
		return t.reread()
	}
	t.giveUp("NotRestored", "the copy was gone when the move was committed")
	return t.write(Change{Verb: Fail, Reason: t.why, Message: t.msg})
}

// after a move a create of the same pod means that the moved container has ended: it
// starts anew, as any container does. What kubelet lost sight of is ended first.
func (t *Target) after() []Action {
	switch {
	case t.facts.Stranger && t.facts.Alive:
		return t.do(Action{Op: OpKill})
	case t.facts.Stranger:
		return t.do(Action{Op: OpFresh})
	}
	t.done = true
	return nil
}

// giveBack leaves nothing of a copy that must not run.
func (t *Target) giveBack() []Action {
	f := t.facts
	switch {
	case f.Alive || f.Restoring:
		return t.do(Action{Op: OpKill})
	case !f.Fence:
		return t.do(Action{Op: OpFence})
	case f.Waiter || f.Stranger:
		return t.do(Action{Op: OpRefuse, Reason: "the pod went back to its source"})
	case t.stale:
		return t.reread()
	case t.rec.Returned && !t.rec.Target.Cleaned:
		return t.write(Change{Verb: Clean})
	}
	t.done = true
	return nil
}

func (t *Target) do(a Action) []Action {
	t.doing = a.Op
	return []Action{a}
}
