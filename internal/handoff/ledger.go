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
	// mutant breaks rules on purpose, in tests.
	mutant mutant
}

// mutant holds the broken rules by which the tests show that the simulation would notice.
// It is the zero value everywhere else.
type mutant struct {
	noCAS           bool // write without a version, past the record's guard
	abortOnTimeout  bool // the source resumes when its patience ends
	resumeUndecided bool // the target resumes when its copy is held
	endEarly        bool // the source ends at the commit, before the acknowledgement
	noFence         bool // the source does not write a fence
	offerEarly      bool // the source offers before the target has the images
	lostIsNo        bool // the source takes a lost answer to its offer for a refusal and resumes
	lostIsYes       bool // the target takes a lost answer to its commit for a yes
	noBootCheck     bool // the target commits though its node was booted since it waited
	noNodeCheck     bool // the target waits before its Node object shows this boot
	returnEarly     bool // the source takes the pod back without proof
	sameEpoch       bool // a return keeps the epoch
	orphanResume    bool // the target resumes a copy whose create has gone
	forgetRun       bool // the target ignores the mark that its copy ran
	failAlive       bool // the target says failed before its copy is dead
	noTargetFence   bool // the target says failed without a fence
	freshEarly      bool // the target lets a create start anew before the acknowledgement
	noConfirm       bool // the target commits without reading again
	staleRecord     bool // an old record replaces a newer one
	thawFenced      bool // the source thaws and forgets to lift the fence
}

// learn takes a record in, unless it is older than what is known.
func (l *ledger) learn(r Record) {
	if l.rec.ID != "" && r.behind(l.rec) && !l.mutant.staleRecord {
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
	if l.mutant.noCAS {
		return l.call(Action{Op: OpWrite, Change: c})
	}
	if !c.allowed(l.rec) {
		return nil
	}
	return l.call(Action{Op: OpWrite, Change: c, Version: l.rec.Version})
}
