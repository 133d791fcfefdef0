package handoff

import "time"

// SourceFacts is what the source's node knows by itself, also after its agent crashed.
type SourceFacts struct {
	// Fence: a fence of the source pod is on the disk whose epoch is not above the record's:
	// a greater one is a later move's.
	Fence bool
	// Alive: processes of a container that moves exist. Short: another one has none.
	Alive, Short bool
	// Frozen: the cgroup of every container that has processes is frozen.
	Frozen bool
	// Dumping: CRIU is at work on a container and has not reached post-dump.
	Dumping bool
}

// intact tells that the memory is what it was when it was dumped.
func (f SourceFacts) intact() bool { return f.Alive && !f.Short && f.Frozen }

// Source is the machine of the node that the pod leaves. Not safe for concurrent use.
type Source struct {
	ledger
	cfg   Config
	facts SourceFacts
	// died are the containers that were told to have ended.
	died map[string]bool
	// held: this machine saw the dump complete. sent: the target confirmed the images.
	held, sent bool
	// doing is the local action under way; cancel: it was told to fail soon.
	doing  Op
	cancel bool
	// lifted, thawed: this machine has undone what the move may have done.
	lifted, thawed bool
	// why is the reason for trying an abort.
	why, message string
	since        time.Time
	// proof that the target's copy cannot run any more: its node has another boot, or is gone.
	proof string
	gone  bool
	done  bool
}

// NewSource makes the machine from the record as last read and from local facts. It
// starts nothing: the first Step does.
func NewSource(cfg Config, r Record, facts SourceFacts) *Source {
	return newSource(cfg, r, facts, mutant{})
}

func newSource(cfg Config, r Record, facts SourceFacts, m mutant) *Source {
	s := &Source{ledger: ledger{rec: r, mutant: m}, cfg: cfg, facts: facts, died: map[string]bool{}}
	offered := r.Source.Offered
	switch {
	case r.Decision != Undecided:
	case !offered && (facts.Fence || facts.Frozen || facts.Dumping):
		s.giveUp("AgentRestarted", "the source's agent restarted before the images were offered")
	case !offered && (!facts.Alive || facts.Short):
		s.giveUp("ProcessesGone", "a container to move does not run")
	case offered && r.PostCopy && !facts.intact():
		s.giveUp("ProcessesGone", "a container to move is not held any more, and the target lacks its memory")
	}
	return s
}

// Record gives the newest record the machine has seen.
func (s *Source) Record() Record { return s.rec }

// Done tells that nothing is left to do on this side.
func (s *Source) Done() bool { return s.done }

// Holding tells that the containers are held frozen, as far as the machine knows.
func (s *Source) Holding() bool { return s.facts.Alive && s.facts.Frozen }

// Step takes an event in and gives what is to be done. now is the source's clock.
func (s *Source) Step(now time.Time, e Event) []Action {
	was := s.rec.Target
	if !s.absorb(e) {
		s.local(e)
	}
	if now := s.rec.Target; now.Starting && !was.Starting || now.Resumed && !was.Resumed {
		s.proof, s.gone = "", false // from before the target was heard of again
	}
	if s.done {
		return nil
	}
	if s.rec.Target.Waiting && s.since.IsZero() {
		s.since = now
	}
	ticked := e.Kind == Tick
	switch {
	case s.rec.Decision == Aborted || s.rec.Returned:
		return s.goOn()
	case s.rec.Decision == Committed:
		return s.letGo(ticked)
	}
	return s.undecided(now)
}

// local takes in what happened on this node.
func (s *Source) local(e Event) {
	switch e.Kind {
	case Held:
		s.ended(OpDump)
		s.held, s.facts.Frozen, s.facts.Dumping = true, s.facts.Alive, false
	case Died:
		if s.died[e.ID] = true; len(s.died) >= s.rec.containers() {
			s.facts.Alive, s.facts.Frozen, s.facts.Dumping = false, false, false
		}
		s.facts.Short = true
		if !s.rec.Source.Offered || s.rec.PostCopy {
			s.giveUp("ProcessesGone", "a container to move has ended")
		}
	case Unwanted:
		s.giveUp("Unwanted", e.Reason)
	case Done:
		s.finished(e.Op)
	case Failed:
		s.failed(e)
	case Node:
		s.calling = false
		s.judge(e)
	}
}

func (s *Source) ended(op Op) {
	if s.doing == op {
		s.doing = ""
	}
}

func (s *Source) finished(op Op) {
	s.ended(op)
	switch op {
	case OpFence:
		s.facts.Fence = true
	case OpSend:
		s.sent = true
	case OpLift:
		s.facts.Fence, s.lifted = false, true
	case OpThaw:
		s.facts.Frozen, s.facts.Dumping, s.thawed = false, false, true
	case OpEnd:
		s.facts = SourceFacts{Fence: s.facts.Fence}
	}
}

func (s *Source) failed(e Event) {
	s.ended(e.Op)
	switch e.Op {
	case OpFence:
		// It may be there all the same.
		s.facts.Fence = true
		s.giveUp("FenceFailed", e.Reason)
	case OpDump:
		// What a failed dump left behind (a frozen cgroup, a CRIU) is OpThaw's to undo.
		s.giveUp("DumpFailed", e.Reason)
	case OpSend:
		s.giveUp("SendFailed", e.Reason)
	default:
		s.pause = true
	}
}

// judge looks for proof that the target's copy runs no more. That it never ran follows only
// as long as it was not starting. It needs a Node object read after the commit: one from a
// cache could show the boot before the one that the target wrote.
func (s *Source) judge(e Event) {
	t := s.rec.Target
	if e.Outcome != OK || s.rec.Decision != Committed {
		return
	}
	s.proof, s.gone = "", false
	switch {
	case e.Gone:
		s.proof, s.gone = "node "+t.Node+" is gone from the cluster", true
	case e.BootID != "" && t.BootID != "" && e.BootID != t.BootID:
		s.proof = "node " + t.Node + " was booted since: boot ID " + e.BootID + ", not " + t.BootID
	}
}

func (s *Source) giveUp(why, message string) {
	if s.why == "" {
		s.why, s.message = why, message
	}
}

// undecided prepares the move, or tries an abort.
func (s *Source) undecided(now time.Time) []Action {
	if s.stale {
		return s.reread()
	}
	r := s.rec
	late := !s.since.IsZero() && now.Sub(s.since) > s.cfg.Patience
	// With its processes gone after the offer the target's copy is the only one: the
	// target or the controller decides.
	if late && s.mutant.thawOnTimeout && s.facts.Frozen && s.doing == "" {
		return s.do(OpThaw)
	}
	if late && (s.facts.Alive || !r.Source.Offered) {
		s.giveUp("Late", "no decision within "+s.cfg.Patience.String())
	}
	if s.why != "" {
		return s.write(Change{Verb: Abort, Reason: s.why, Message: s.message})
	}
	if !r.Target.Waiting || r.Source.Offered || s.doing != "" {
		return nil
	}
	switch {
	case !s.facts.Fence && !s.mutant.noFence:
		return s.do(OpFence)
	case !s.held && !s.facts.Dumping:
		s.facts.Dumping = true
		return s.do(OpDump)
	case !s.held:
		return nil
	case !s.sent && !s.mutant.offerEarly:
		return s.do(OpSend)
	case !s.facts.Frozen || !s.facts.Alive || s.facts.Short:
		s.giveUp("ProcessesGone", "a container to move is not held any more")
		return s.write(Change{Verb: Abort, Reason: s.why, Message: s.message})
	}
	return s.write(Change{Verb: Offer})
}

// goOn lets the source run on as if nothing had been, whatever the facts say: to undo what
// was not done does no harm. The fence goes first, so that a running container is never one
// that could not be started again.
func (s *Source) goOn() []Action {
	if s.rec.Source.Released && s.doing == "" {
		// What is fenced or frozen from here on is a later move's.
		s.done = true
		return nil
	}
	if s.doing != "" {
		// What is under way has to end first: a dump that began after the thaw would freeze
		// for good.
		if (s.doing == OpDump || s.doing == OpSend) && !s.cancel {
			s.cancel = true
			return []Action{{Op: OpCancel}}
		}
		return nil
	}
	switch {
	case s.pause:
		return nil
	case !s.lifted && !s.mutant.keepFence:
		return s.do(OpLift)
	case !s.thawed && !s.mutant.keepFrozen:
		return s.do(OpThaw)
	case s.stale:
		return s.reread()
	}
	c := Change{Verb: Release}
	if !s.facts.Alive || s.facts.Short {
		c.Message = "processes of a container have ended, by a boot or otherwise: its memory is lost"
	}
	return s.write(c)
}

// letGo ends the source once the target runs or is lost while it may have run, or takes the
// pod back once it is certain that the copy never ran and never will.
func (s *Source) letGo(ticked bool) []Action {
	r := s.rec
	switch {
	case r.Target.Resumed && !r.Needed() || r.Lost || s.mutant.endEarly || r.Target.Resumed && s.mutant.endUnloaded:
		return s.end()
	case s.stale:
		return s.reread()
	case r.Needed() && !r.Source.Forfeited && !s.facts.intact() && !s.mutant.noForfeit:
		return s.write(Change{Verb: Forfeit, Reason: "MemoryLost", Message: "processes of a container have ended, or were let run, before the target had fetched all of their memory"})
	case r.Target.Resumed:
		return s.serve(ticked)
	case r.Target.Failed:
		return s.write(Change{Verb: Return, Reason: "TargetFailed", Message: "the target says that its copy is dead and fenced"})
	case r.Target.Starting && s.gone && !s.mutant.returnStarted:
		return s.write(Change{Verb: Lose, Reason: "TargetLost", Message: s.proof + ", and the copy on it may have run: going on from the state before could do things twice"})
	case s.proof != "" && (!r.Target.Starting || s.mutant.returnStarted) || s.mutant.returnEarly && ticked:
		return s.write(Change{Verb: Return, Reason: "TargetDead", Message: s.proof})
	case ticked:
		return s.call(Action{Op: OpReadNode})
	}
	return nil
}

// serve keeps what the running copy still fetches. A copy whose node has another boot, or is gone,
// fetches nothing any more.
func (s *Source) serve(ticked bool) []Action {
	switch {
	case s.proof != "":
		return s.write(Change{Verb: Load, Reason: "TargetDead", Message: s.proof + ", before the copy had all of its memory"})
	case ticked:
		return s.call(Action{Op: OpReadNode})
	}
	return nil
}

// end ends what the target has the place of.
func (s *Source) end() []Action {
	switch {
	case s.rec.Source.Ended:
		s.done = true
		return nil
	case s.doing != "" || s.pause:
		return nil
	case !s.rec.mayEnd() && !s.mutant.endUnadopted:
		return s.reread()
	case s.facts.Alive:
		return s.do(OpEnd)
	case s.stale:
		return s.reread()
	}
	return s.write(Change{Verb: End})
}

func (s *Source) do(op Op) []Action {
	s.doing = op
	return []Action{{Op: op}}
}
