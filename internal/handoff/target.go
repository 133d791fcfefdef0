package handoff

import (
	"slices"
	"time"
)

// TargetFacts is what the target's node knows by itself, also after its agent crashed.
type TargetFacts struct {
	// BootID of the running kernel.
	BootID string
	// Passed are the copies whose creates have returned before the commit, so that kubelet
	// asked for the next container: frozen, they wait for it.
	Passed []Copy
	// Copy is the container ID of the copy that is restored now, or last; "" when no restore
	// was begun. All that follows is about this one.
	Copy string
	// Waiter is the container ID of a create that waits for an answer or whose restore is
	// under way; if there is a copy it is the copy's own. Name is the container's in the pod's
	// spec, Deadline the create's own.
	Waiter, Name string
	Deadline     time.Time
	// Stranger is the container ID of another, later create.
	Stranger string
	// Images: complete and verified on this node, until it boots.
	Images bool
	// Restoring: the restore was begun and has not reached pre-resume.
	Restoring bool
	// Held: CRIU's hook waits at pre-resume.
	Held bool
	// Alive: processes of the copy exist. Frozen: their cgroup is frozen.
	Alive, Frozen bool
	// Begun: OpResume left its mark for these copies, in this boot.
	Begun bool
	// Fence: the fence of the replacement is on the disk.
	Fence bool
}

// Copy is one whose create has returned, or one that was looked at.
type Copy struct {
	// ID is the container's, Name its name in the pod's spec.
	ID, Name string
	// Alive: processes exist. Frozen: their cgroup is frozen. Dying: they were killed, and are
	// thawed at most to die of it. Orphaned: who restores the copy was killed, so that nobody can
	// let it run.
	Alive, Frozen, Dying, Orphaned bool
}

// loose tells that the copy runs, or could at any moment.
func (c Copy) loose() bool { return c.Alive && !c.Frozen && !c.Dying }

// current tells that the restore of Copy has brought something forth.
func (f TargetFacts) current() bool { return f.Alive || f.Restoring }

// whole tells that each copy that was passed is still there and frozen.
func (f TargetFacts) whole() bool {
	return !slices.ContainsFunc(f.Passed, func(c Copy) bool { return !c.Alive || !c.Frozen })
}

// let tells that some copy is not held any more: it is thawed, or has ended.
func (f TargetFacts) let() bool {
	return !f.whole() || !f.Restoring && !(f.Alive && f.Frozen)
}

// frozen tells that some copy is.
func (f TargetFacts) frozen() bool {
	return f.Alive && f.Frozen || slices.ContainsFunc(f.Passed, func(c Copy) bool { return c.Alive && c.Frozen })
}

// unmarked tells that a copy lives that was not let run by OpResume or OpResumeRest.
func (f TargetFacts) unmarked() bool {
	return !f.Begun && (f.Alive || slices.ContainsFunc(f.Passed, func(c Copy) bool { return c.Alive }))
}

// passed finds a copy by its ID or its name.
func (f TargetFacts) passed(id, name string) int {
	return slices.IndexFunc(f.Passed, func(c Copy) bool { return c.ID == id || name != "" && c.Name == name })
}

// Target is the machine of the node that the pod goes to. Not safe for concurrent use.
type Target struct {
	ledger
	cfg    Config
	facts  TargetFacts
	ran    bool   // the copy has been thawed
	spent  bool   // OpResume has failed; it is not tried again
	ending bool   // OpKill was begun: what is dead from here on may be so by it
	over   bool   // this attempt has been ended; no other is made
	node   string // boot ID in the Node object
	doing  Action // the local action under way; OpRestore is not one, it ends by Held
	cancel bool   // the OpPass under way was told to fail soon
	look   string // what the last look at the copies was taken for
	next   *Event // the create that came while OpPass was under way
	why    string // the reason for trying an abort, or for having failed
	detail string
	done   bool

	// loading: OpLoad is under way; loaded: it is done; dropped: OpDrop is.
	loading, loaded, dropped bool
}

// NewTarget makes the machine from the record as last read and from local facts. It
// starts nothing: the first Step does. After a restart give the wrapper and the hook a
// moment to call again before the facts are taken: what has not called counts as gone.
func NewTarget(cfg Config, r Record, facts TargetFacts) *Target {
	return newTarget(cfg, r, facts, mutant{})
}

func newTarget(cfg Config, r Record, facts TargetFacts, m mutant) *Target {
	t := &Target{ledger: ledger{rec: r, mutant: m}, cfg: cfg, facts: facts}
	if r.Decision != Undecided && facts.Waiter != "" && !facts.current() {
		// The copy is gone, so this create came for another.
		t.facts.Waiter, t.facts.Stranger = "", facts.Waiter
	}
	// The mark comes before the thaw. Copies that bear it ran if one of them is not frozen, for
	// nobody freezes one again, or if one is gone; those that bear none are thawed only to die.
	// A fence says that they were ended unrun.
	gone := len(facts.Passed)+1 < r.containers()
	t.ran = !facts.Fence && facts.Begun && (facts.let() || gone) && !(m.forgetRun && !facts.Alive)
	// A boot takes the mark away, too. What was starting before it counts as having run: it
	// ended by the boot, as any container does.
	if r.Target.Starting && r.Target.BootID != facts.BootID && !facts.Fence && !m.resumeUnstarted {
		t.ran = true
	}
	switch {
	case r.Decision != Undecided || !r.Target.Waiting:
	case r.Target.BootID != facts.BootID && !m.noBootCheck:
		t.giveUp("TargetRebooted", "the target was booted since its create began to wait")
	case !facts.whole() && !m.passThawed:
		t.giveUp("CopyDied", "a copy whose create had returned is not held any more")
	case facts.Waiter == "" && (facts.current() || len(facts.Passed) == 0):
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
func (t *Target) Holding() bool { return t.facts.frozen() }

// Step takes an event in and gives what is to be done. now is the target's clock, the one
// by which Deadline was set.
func (t *Target) Step(now time.Time, e Event) []Action {
	if !t.absorb(e) {
		t.local(e)
	}
	if e.Kind == Read && e.Confirmed && e.Unwanted != "" {
		t.giveUp("Unwanted", e.Unwanted)
	}
	t.done = false
	if t.doing.Op == OpPass {
		return t.passing(now)
	}
	if t.doing.Op != "" {
		return nil
	}
	switch t.rec.Decision {
	case Aborted:
		return t.giveBack("the move was aborted")
	case Committed:
		return t.own(now)
	}
	return t.undecided(now)
}

// passing waits for the end of OpPass, which depends on CRIU, runc and the container runtime: not
// so that an abort waits for them.
func (t *Target) passing(now time.Time) []Action {
	switch {
	case t.mutant.abortWaits:
	case t.rec.Decision == Undecided:
		return t.undecided(now)
	case !t.cancel:
		t.cancel = true
		return []Action{{Op: OpCancel}}
	}
	return nil
}

// local takes in what happened on this node.
func (t *Target) local(e Event) {
	f := &t.facts
	switch e.Kind {
	case WaiterCame:
		t.came(e)
	case WaiterGone:
		t.gone(e)
	case Images:
		f.Images = true
	case Held:
		f.Alive, f.Frozen, f.Held, f.Restoring, f.Copy = true, true, true, false, e.ID
	case HookGone:
		t.hookGone(e)
	case Died:
		t.died(e.ID)
	case Looked:
		t.doing = Action{}
		t.see(e.Copies)
		if t.pause {
			t.look = "" // it is acted on later: then there has to be another
		}
	case Unwanted:
		t.giveUp("Unwanted", e.Reason)
	case Done:
		if e.Op == OpLoad {
			t.loaded = true
		} else {
			t.finished(e.Op)
		}
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

// see takes in a fresh look at the copies. After the commit one that is not held any more, by
// whomever it was thawed, counts as one that ran: the source must not go on from an older state.
func (t *Target) see(copies []Copy) {
	f := &t.facts
	state := func(id string) (alive, frozen bool) {
		for _, c := range copies {
			if c.ID == id {
				return c.Alive, c.Frozen
			}
		}
		return false, false
	}
	for i := range f.Passed {
		f.Passed[i].Alive, f.Passed[i].Frozen = state(f.Passed[i].ID)
	}
	if f.Copy != "" && !f.Restoring {
		f.Alive, f.Frozen = state(f.Copy)
	}
	loose := func(c Copy) bool {
		if c.ID == f.Copy {
			return c.loose() && !f.Restoring
		}
		// Once starting, also one that has ended and is not frozen: it may have ended running.
		return c.loose() || t.rec.Target.Starting && !c.Alive && !c.Frozen
	}
	if t.rec.Decision == Committed && slices.ContainsFunc(copies, loose) && !t.mutant.thawedFails {
		t.ran = true
	}
	doomed := func(c Copy) bool { return c.Dying || c.Orphaned }
	if slices.ContainsFunc(copies, doomed) {
		f.Held = false
	}
	switch {
	case slices.ContainsFunc(copies, func(c Copy) bool { return c.Orphaned }):
		t.giveUp("HookGone", "CRIU was killed on the target while the copy was held")
	case !f.whole() || !f.Alive || !f.Frozen || !f.Held:
		t.giveUp("CopyDied", "a copy is not held any more")
	}
}

func (t *Target) died(id string) {
	f := &t.facts
	i := f.passed(id, "")
	switch {
	case id == f.Copy:
		f.Alive, f.Frozen, f.Held, f.Restoring = false, false, false, false
	case i >= 0:
		f.Passed[i].Alive, f.Passed[i].Frozen = false, false
	default:
		return
	}
	t.giveUp("CopyDied", "the restored processes ended")
}

func (t *Target) hookGone(e Event) {
	f := &t.facts
	switch {
	case e.ID != f.Copy:
	case f.Restoring:
		// What it left behind is OpKill's to end.
		t.giveUp("RestoreFailed", e.Reason)
	default:
		f.Held = false
		t.giveUp("HookGone", "the restore on the target ended while it was held: "+e.Reason)
	}
}

// came takes a create in. Each container has one create, and they come one after another: any
// other is a stranger, and tells that kubelet has given up one that was here before.
func (t *Target) came(e Event) {
	f := &t.facts
	switch {
	case e.ID == f.Waiter:
		f.Deadline = e.Deadline
	case t.doing.Op == OpPass && e.ID != f.Copy:
		t.next = &e
	case (e.ID == f.Copy || f.passed(e.ID, "") >= 0) && !t.mutant.ownStranger:
		// Told late: the copy's own create, which has ended since.
	case f.Waiter == "" && !f.current() && f.passed(e.ID, e.Name) < 0 && !t.over && t.why == "" && t.rec.Decision == Undecided:
		f.Waiter, f.Name, f.Deadline = e.ID, e.Name, e.Deadline
	default:
		f.Stranger = e.ID
		t.giveUp("WaiterGone", "another create has taken the place of the one that waited")
	}
}

func (t *Target) gone(e Event) {
	f := &t.facts
	if t.next != nil && t.next.ID == e.ID {
		t.next = nil
	}
	switch e.ID {
	case f.Waiter:
		f.Waiter = ""
		if t.doing.Op == OpPass {
			return // as it shall; if it was not in good order, that is told by Failed
		}
		t.giveUp("WaiterGone", "the create on the target has gone")
	case f.Stranger:
		f.Stranger = ""
	}
}

func (t *Target) finished(op Op) {
	f, id := &t.facts, t.doing.ID
	t.doing, t.cancel = Action{}, false
	switch op {
	case OpPass:
		f.Passed = append(f.Passed, Copy{ID: f.Copy, Name: f.Name, Alive: f.Alive, Frozen: f.Frozen})
		f.Copy, f.Waiter, f.Name = "", "", ""
		f.Alive, f.Frozen, f.Held = false, false, false
		t.taken()
	case OpResume, OpResumeRest:
		// The create ends now, and in good order.
		t.ran, f.Begun, f.Frozen, f.Held, f.Waiter = true, true, false, false, ""
		for i := range f.Passed {
			f.Passed[i].Frozen = false
		}
	case OpKill:
		t.over = true
		f.Alive, f.Frozen, f.Held, f.Restoring, f.Waiter, f.Passed = false, false, false, false, "", nil
	case OpDrop:
		t.dropped = true
	case OpFence:
		f.Fence = true
	case OpLift:
		f.Fence = false
	case OpRefuse, OpFresh:
		t.gone(Event{ID: id})
	}
}

func (t *Target) failed(e Event) {
	switch e.Op {
	case OpRestore:
		// What it left behind is OpKill's to end.
		t.giveUp("RestoreFailed", e.Reason)
		return
	case OpLoad:
		t.loading, t.pause = false, true
		return
	}
	t.doing, t.cancel = Action{}, false
	switch e.Op {
	case OpResume:
		// The hook may wait on, for an answer.
		t.spent = true
		t.giveUp("ResumeFailed", e.Reason)
	case OpPass:
		t.facts.Held = false
		t.giveUp("PassFailed", e.Reason)
		t.taken()
	case OpLook:
		t.look, t.pause = "", true
	default:
		t.pause = true
	}
}

// taken takes in the create that came before the end of OpPass was told.
func (t *Target) taken() {
	if e := t.next; e != nil {
		t.next = nil
		t.came(*e)
	}
}

func (t *Target) giveUp(why, detail string) {
	if t.why == "" {
		t.why, t.detail = why, detail
	}
}

// undecided restores as soon as it can, and commits what is offered, held and wanted.
func (t *Target) undecided(now time.Time) []Action {
	f, r := t.facts, t.rec
	if t.stale {
		return t.reread()
	}
	if f.Waiter != "" && !now.Before(f.Deadline.Add(-t.cfg.CommitMargin)) {
		t.giveUp("Late", "the create on the target cannot wait any longer")
	}
	switch {
	case t.why != "":
		return t.write(Change{Verb: Abort, Reason: t.why, Message: t.detail})
	case f.Waiter == "" || t.doing.Op != "":
		return nil
	case !r.Target.Waiting:
		return t.announce()
	case f.Images && !f.current():
		t.facts.Restoring, t.facts.Copy = true, f.Waiter
		return []Action{{Op: OpRestore, ID: f.Waiter}}
	case f.Held && t.held() && len(f.Passed)+1 < r.containers() && !t.mutant.commitPart:
		return t.do(Action{Op: OpPass, ID: f.Copy})
	case t.mutant.resumeUndecided && f.Held:
		return t.do(Action{Op: OpResume, ID: f.Copy})
	case !r.Source.Offered || !t.resumable():
		return nil
	case r.Target.BootID != f.BootID && !t.mutant.noBootCheck:
		return nil
	case t.confirmed != r.Version && !t.mutant.noConfirm:
		return t.call(Action{Op: OpConfirm})
	case t.pause:
		return nil
	case t.unseen(Commit):
		return t.do(Action{Op: OpLook})
	}
	return t.write(Change{Verb: Commit})
}

// unseen tells that the copies are to be looked at before a change, or, for OpKill, before
// they are ended: what is remembered of their freezers may have changed unheard.
func (t *Target) unseen(before Verb) bool {
	now := string(before) + " " + t.rec.Version
	if t.look == now || t.mutant.noLook {
		return false
	}
	t.look = now
	return true
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

// resumable: every container has a copy that is complete and held, the last of them owned by a
// create that still waits.
func (t *Target) resumable() bool {
	all := len(t.facts.Passed)+1 == t.rec.containers() || t.mutant.commitPart
	return t.held() && all && (t.facts.whole() || t.mutant.passThawed)
}

// held: the copy at hand is complete, held, and owned by a create that still waits.
func (t *Target) held() bool {
	f := t.facts
	owned := f.Waiter != "" && f.Waiter == f.Copy || t.mutant.orphanResume
	return owned && f.Held && f.Alive && f.Frozen && !t.over
}

// own resumes the copy and says so; or, if it cannot, makes sure that it never runs.
func (t *Target) own(now time.Time) []Action {
	f, r := t.facts, t.rec
	forfeited := r.Needed() && r.Source.Forfeited
	if forfeited && !t.ran {
		t.giveUp("MemoryLost", "the source has lost the memory that the copy still lacks")
	}
	switch {
	case r.Target.Resumed:
		return t.after()
	case r.Lost:
		return t.giveBack("this node was taken for lost, and the pod with it")
	case r.Target.Failed || r.Returned:
		return t.giveBack("the pod went back to its source")
	case t.pause:
		return nil
	case t.ran && !r.Target.Starting && !t.mutant.noStarting:
		return t.start()
	case t.ran && (f.frozen() || f.Held || f.unmarked()) && !t.mutant.resumePart:
		// Some were let go when the agent died, or by somebody else, so all are: none of them is
		// taken back.
		return t.do(Action{Op: OpResumeRest, ID: f.Copy})
	case t.ran && t.stale:
		return t.reread()
	case t.ran:
		return t.write(Change{Verb: Resume})
	case forfeited && t.attempt() && !t.dropped && !t.ending && !t.mutant.noDrop:
		// A copy that has all of its memory already runs all the same.
		return t.do(Action{Op: OpDrop})
	case t.resumable() && !t.spent && now.Before(f.Deadline) && (!forfeited || t.dropped):
		// Later kubelet would take the create, and the copy with it, for lost: a copy that
		// never ran is better given back.
		return t.start()
	case t.mutant.freshEarly && f.Stranger != "":
		return t.do(Action{Op: OpFresh, ID: f.Stranger})
	case t.stale || t.calling:
		// Whether it says that the copies are starting decides what a look means.
		return t.reread()
	case t.attempt() && !t.ending && t.unseen(Fail):
		return t.do(Action{Op: OpLook})
	case t.attempt() && !t.mutant.failAlive:
		t.ending = true
		return t.do(Action{Op: OpKill})
	case !f.Fence && !t.mutant.noTargetFence:
		return t.do(Action{Op: OpFence})
	}
	t.giveUp("NotRestored", "the copy was gone when the move was committed")
	return t.write(Change{Verb: Fail, Reason: t.why, Message: t.detail})
}

// start lets the copy run once the record says that it may have. Were it to run before, a
// power failure would leave nobody who knows, and the source would go on from an older state.
func (t *Target) start() []Action {
	switch {
	case t.rec.Target.Starting || t.mutant.noStarting:
		return t.do(Action{Op: OpResume, ID: t.facts.Copy})
	case t.stale:
		return t.reread()
	case !t.ran && t.unseen(Start):
		return t.do(Action{Op: OpLook})
	}
	return t.write(Change{Verb: Start})
}

// after a move a create of the same pod means that the moved container has ended: it
// starts anew, as any container does. A fence is left from an agent that took the copy for
// lost, after a boot, while its acknowledgement was still on the way.
func (t *Target) after() []Action {
	f := t.facts
	switch {
	case t.pause:
		return nil
	case f.Fence && !t.mutant.keepFence:
		return t.do(Action{Op: OpLift})
	case f.Stranger != "":
		return t.do(Action{Op: OpFresh, ID: f.Stranger})
	case t.rec.Needed():
		return t.load()
	}
	t.done = true
	return nil
}

// load waits until no copy lacks memory that is the source's, which is held until then.
func (t *Target) load() []Action {
	switch {
	case t.stale:
		return t.reread()
	case t.loaded || t.mutant.loadEarly:
		return t.write(Change{Verb: Load})
	case !t.loading:
		t.loading = true
		return []Action{{Op: OpLoad}}
	case t.rec.Source.Forfeited && !t.dropped && !t.mutant.noDrop:
		return t.do(Action{Op: OpDrop})
	}
	return nil
}

// attempt tells that there is something for OpKill to end, or to clear away: also what has
// ended by itself has left its traces.
func (t *Target) attempt() bool {
	f := t.facts
	return f.current() || len(f.Passed) > 0 || f.Copy != "" && !t.over
}

// giveBack leaves nothing of a copy that must not run, and refuses its creates.
func (t *Target) giveBack(reason string) []Action {
	f, r := t.facts, t.rec
	switch {
	case t.pause:
		return nil
	case t.attempt():
		return t.do(Action{Op: OpKill})
	case r.Decision == Committed && !f.Fence:
		return t.do(Action{Op: OpFence})
	case f.Waiter != "":
		return t.do(Action{Op: OpRefuse, ID: f.Waiter, Reason: reason})
	case f.Stranger != "":
		return t.do(Action{Op: OpRefuse, ID: f.Stranger, Reason: reason})
	case t.stale:
		return t.reread()
	case (r.Decision == Aborted || r.Returned || r.Lost) && !r.Target.Cleaned:
		return t.write(Change{Verb: Clean})
	}
	t.done = true
	return nil
}

func (t *Target) do(a Action) []Action {
	t.doing = a
	return []Action{a}
}
