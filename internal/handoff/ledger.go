package handoff

// ledger is what a machine knows of the record, and its one call to the API server.
type ledger struct {
	rec Record
	// stale: a write was refused or its answer lost: read before anything else is written.
	stale bool
	// calling: a call to the API server is under way.
	calling bool
	// pause: the last read failed, or a local action did: wait for a tick before trying again.
	pause bool
	// confirmed is the version that OpConfirm found nothing against.
	confirmed string
	// mutant breaks rules on purpose, in tests; last serves it.
	mutant mutant
	last   Verb
}

// mutant holds the broken rules by which the tests show that the simulation would notice.
// It is the zero value everywhere else.
type mutant struct {
	noCAS           bool // write whatever the version, past the record's guard
	thawOnTimeout   bool // the source resumes when its patience ends
	lostAbortIsYes  bool // the source takes a lost answer to its abort for a yes
	resumeUndecided bool // the target resumes as soon as its copy is held
	endEarly        bool // the source ends at the commit, before the acknowledgement
	endUnadopted    bool // the source ends before its owner has the replacement
	noFence         bool // the source writes no fence
	offerEarly      bool // the source offers before the target has the images
	noConfirm       bool // the target commits without reading again
	noBootCheck     bool // the target commits though its node was booted since it waited
	noNodeCheck     bool // the target waits before its Node object shows this boot
	commitPart      bool // the target commits and resumes with the first copy alone
	passThawed      bool // the target minds no passed copy that is not held any more
	resumePart      bool // the target says resumed though it died before it thawed all copies
	noLook          bool // the target does not look at its copies again
	thawedFails     bool // the target takes a copy that somebody has thawed for one that never ran
	abortWaits      bool // the target does nothing about an abort before its OpPass has ended
	orphanResume    bool // the target resumes a copy whose create has gone
	ownStranger     bool // the target takes its copy's own create, told late, for another
	forgetRun       bool // the target ignores the mark that its copy ran
	failAlive       bool // the target says failed before its copy is dead
	noTargetFence   bool // the target says failed without a fence
	freshEarly      bool // the target lets a create start anew before the acknowledgement
	returnEarly     bool // the source takes the pod back without proof
	noStarting      bool // the target lets its copy run without saying so before
	returnStarted   bool // the source takes a boot or a lost node for proof also after the start
	resumeUnstarted bool // the target that was booted since the start says that its copy never ran
	sameEpoch       bool // a return keeps the epoch
	keepFence       bool // the source forgets to lift the fence
	keepFrozen      bool // the source forgets to thaw after an abort
	endUnloaded     bool // the source ends though the copy still lacks memory
	handUnloaded    bool // the controller hands over though the copy still lacks memory
	noForfeit       bool // the source says nothing when its memory is lost
	loadEarly       bool // the target says loaded before its copies have all of their memory
	noDrop          bool // the target keeps copies whose memory is lost
}

// learn takes a record in, unless it is older than what is known.
func (l *ledger) learn(r Record) {
	if r.behind(l.rec) {
		return
	}
	l.rec = r
}

// absorb takes in the events that are about the record and the time; it tells whether e was one.
func (l *ledger) absorb(e Event) bool {
	switch e.Kind {
	case Seen:
		l.learn(e.Record)
	case Read:
		l.calling = false
		if e.Outcome == OK {
			l.stale = false
			l.learn(e.Record)
			if e.Confirmed && e.Unwanted == "" {
				l.confirmed = e.Record.Version
			}
		} else {
			l.stale, l.pause = true, true
		}
	case Wrote:
		l.calling = false
		if e.Outcome == OK {
			l.learn(e.Record)
		} else {
			l.stale = true
			l.believe(e.Outcome)
		}
	case Tick:
		l.pause = false
	default:
		return false
	}
	return true
}

// reread starts a read if what is known may be out of date.
func (l *ledger) reread() []Action {
	if !l.stale || l.pause {
		return nil
	}
	return l.call(Action{Op: OpRead})
}

// call starts a call, unless one is under way.
func (l *ledger) call(a Action) []Action {
	if l.calling {
		return nil
	}
	l.calling = true
	return []Action{a}
}

// write starts a compare-and-swap of c. The record is looked at once more: what it does
// not allow is never tried.
func (l *ledger) write(c Change) []Action {
	c.keepEpoch, c.blind, l.last = l.mutant.sameEpoch, l.mutant.noCAS, c.Verb
	c.bold = l.mutant.noStarting || l.mutant.returnStarted
	if !c.allowed(l.rec) {
		return nil
	}
	return l.call(Action{Op: OpWrite, Change: c, Version: l.rec.Version})
}

// believe is for mutants: it takes a lost answer for a yes.
func (l *ledger) believe(o Outcome) {
	if o != Unknown {
		return
	}
	if l.mutant.lostAbortIsYes && l.last == Abort {
		l.rec.Decision = Aborted
	}
}
