package handoff

import (
	"errors"
	"fmt"
	"time"
)

// Decision is the outcome of a move: once set in the record it never changes.
type Decision string

// The decisions.
const (
	Undecided Decision = ""
	Committed Decision = "Commit"
	Aborted   Decision = "Abort"
)

// Record is what the API server holds of one move: the part of a PodMigration's status by
// which the two sides exclude each other. Every fact in it, once true, stays true.
type Record struct {
	// ID is the UID of the PodMigration.
	ID string
	// Version is its resourceVersion: opaque, compared for equality by the API server only.
	Version string
	// Epoch is greater than that of any earlier move of this pod or its lineage.
	Epoch    int64
	Decision Decision
	// Containers is how many containers of the pod move; it never changes. 0 counts as 1.
	Containers int
	// PostCopy: the images lack most of the memory, which the copy fetches from the held source
	// while it is restored and while it runs. It never changes.
	PostCopy bool
	Source   SourceRecord
	Target   TargetRecord
	// HandedOver: the owner has the replacement.
	HandedOver bool
	// Adopted: the owner does not count on the source pod any more.
	Adopted bool
	// Returned: committed, but the source has the pod back under the raised Epoch.
	Returned bool
	// Lost: committed and starting, and then the target's node was gone from the cluster. The
	// copy may have run, so the source is not taken back: the pod's memory is lost.
	Lost bool
}

// SourceRecord is the side that the pod leaves.
type SourceRecord struct {
	Node, PodUID string
	// BootID of the node's kernel when the move began; may be empty.
	BootID string
	// Keep: the processes may be ended only once the record says Adopted, for an owner that
	// would take the end of its pod for a failure, or for Services that have the pod until they have
	// its replacement. It may be true when the pod is frozen, and become false later, but not true again.
	Keep bool
	// Offered: fenced, frozen, dumped, and the target has complete images.
	Offered bool
	// Ended: after the acknowledgement, or a loss, the processes are gone.
	Ended bool
	// Forfeited: with PostCopy, what of the memory the target has not fetched yet is lost.
	Forfeited bool
	// Released: after an abort or a return the processes, if there are any, run on and the fence
	// is lifted.
	Released bool
}

// TargetRecord is the side that the pod goes to.
type TargetRecord struct {
	Node, PodUID string
	// BootID of the node's kernel when the create began to wait, confirmed by the Node object.
	BootID string
	// Waiting: a create waits on the target, until Deadline by the target's clock.
	Waiting  bool
	Deadline time.Time
	// Starting is written before the copy is let run: from then on it may have run, whatever
	// becomes of its node, and only the target's own word Failed says that it did not.
	Starting bool
	// Resumed is the acknowledgement: the copy runs, or ran and ended by itself.
	Resumed bool
	// Loaded: with PostCopy, nothing is asked of the source any more: all of the memory is there, or
	// whatever lacked some of it has ended.
	Loaded bool
	// Failed: the copy is dead, fenced, never ran and never will.
	Failed bool
	// Cleaned: after an abort, a return or a loss nothing is left of the attempt.
	Cleaned bool
}

// containers is how many copies make the pod.
func (r Record) containers() int { return max(r.Containers, 1) }

// behind tells that r lacks a fact that known holds: r is the older of the two.
func (r Record) behind(known Record) bool {
	lacks := func(old, now bool) bool { return old && !now }
	return r.Epoch < known.Epoch ||
		known.Decision != Undecided && r.Decision == Undecided ||
		lacks(known.Source.Offered, r.Source.Offered) ||
		lacks(known.Source.Ended, r.Source.Ended) ||
		lacks(known.Source.Released, r.Source.Released) ||
		lacks(known.Source.Forfeited, r.Source.Forfeited) ||
		lacks(known.Target.Waiting, r.Target.Waiting) ||
		lacks(known.Target.Starting, r.Target.Starting) ||
		lacks(known.Target.Resumed, r.Target.Resumed) ||
		lacks(known.Target.Loaded, r.Target.Loaded) ||
		lacks(known.Target.Failed, r.Target.Failed) ||
		lacks(known.Target.Cleaned, r.Target.Cleaned) ||
		lacks(known.HandedOver, r.HandedOver) ||
		lacks(known.Adopted, r.Adopted) ||
		lacks(known.Returned, r.Returned) ||
		lacks(known.Lost, r.Lost)
}

// Needed tells that the copy may still ask for the source's memory: the processes stay held, and
// their pod must not be deleted.
func (r Record) Needed() bool { return r.PostCopy && !r.Target.Loaded && !r.Lost }

// mayEnd tells that nobody counts on the source's processes any more; a pod that is lost fails.
func (r Record) mayEnd() bool { return !r.Source.Keep || r.Adopted || r.Lost }

// NextEpoch gives the epoch of a pod's next move from the greatest that was ever given
// out for it (0 for a pod that never moved). It grows by two: the one between belongs to
// the source, should this move be committed and then returned.
func NextEpoch(spent int64) int64 { return spent + 2 }

// ErrForbidden: the record does not allow the change any more, or not yet.
var ErrForbidden = errors.New("the record forbids the change")

// Verb names a change of the record.
type Verb string

// The changes. Each is one compare-and-swap.
const (
	Wait     Verb = "wait"      // target: a create waits
	Offer    Verb = "offer"     // source: you may commit
	Commit   Verb = "commit"    // target: mine
	Abort    Verb = "abort"     // source, target or controller
	Start    Verb = "start"     // target: from here on my copy may run
	Resume   Verb = "resume"    // target: my copy runs (the acknowledgement)
	Load     Verb = "load"      // target, or source with proof: no copy lacks the source's memory any more
	Forfeit  Verb = "forfeit"   // source or controller: the memory that was not fetched is lost
	Fail     Verb = "fail"      // target: my copy is dead and never ran
	Clean    Verb = "clean"     // target: nothing left of the attempt
	End      Verb = "end"       // source: my processes are gone
	Release  Verb = "release"   // source: I am let go on
	Return   Verb = "return"    // source: mine again, under the next epoch
	Lose     Verb = "lose"      // source: nobody's, for the target is gone and its copy may have run
	HandOver Verb = "hand-over" // controller: the owner has the replacement
	Adopt    Verb = "adopt"     // controller: the owner does not count on the source any more
)

// Change is one change of the record.
type Change struct {
	Verb Verb
	// Reason is a CamelCase word and Message a sentence: of an abort, a failure, a return.
	Reason, Message string
	// BootID and Deadline belong to Wait.
	BootID   string
	Deadline time.Time
	// keepEpoch, blind and bold belong to mutants: see there.
	keepEpoch, blind, bold bool
}

// allowed tells when a record takes a change.
func (c Change) allowed(r Record) bool {
	open, won := r.Decision == Undecided, r.Decision == Committed && !r.Returned && !r.Lost
	back, started := r.Decision == Aborted || r.Returned, r.Target.Starting || c.bold
	switch c.Verb {
	case Wait:
		return open
	case Offer:
		return open && r.Target.Waiting
	case Commit:
		return open && r.Target.Waiting && r.Source.Offered
	case Abort:
		return open
	case Start:
		return won && !r.Target.Failed
	case Resume:
		return won && !r.Target.Failed && started
	case Load:
		return won && r.PostCopy && r.Target.Resumed
	case Forfeit:
		return won && r.Needed()
	case Fail:
		return won && !r.Target.Resumed
	case Return:
		return won && !r.Target.Resumed && (!r.Target.Starting || r.Target.Failed || c.bold)
	case Lose:
		return won && !r.Target.Resumed && !r.Target.Failed && r.Target.Starting
	case Clean:
		return back || r.Lost
	case Release:
		return back
	case End:
		return (won && r.Target.Resumed || r.Lost) && r.mayEnd() && !r.Needed()
	case HandOver, Adopt:
		return won && r.Target.Resumed && !r.Needed()
	}
	return false
}

// Apply gives the record as the change leaves it, or ErrForbidden: no writer may store
// what Apply refuses. The version stays that of the record the change is based on.
func (c Change) Apply(r Record) (Record, error) {
	if !c.allowed(r) {
		return r, fmt.Errorf("%w: %s of %s at version %s (decision %q)", ErrForbidden, c.Verb, r.ID, r.Version, r.Decision)
	}
	c.set(&r)
	return r, nil
}

func (c Change) set(r *Record) {
	switch c.Verb {
	case Wait:
		r.Target.Waiting, r.Target.BootID, r.Target.Deadline = true, c.BootID, c.Deadline
	case Offer:
		r.Source.Offered = true
	case Commit:
		r.Decision = Committed
	case Abort:
		r.Decision = Aborted
	case Start:
		r.Target.Starting = true
	case Resume:
		r.Target.Resumed = true
	case Load:
		r.Target.Loaded = true
	case Forfeit:
		r.Source.Forfeited = true
	case Fail:
		r.Target.Failed = true
	case Clean:
		r.Target.Cleaned = true
	case End:
		r.Source.Ended = true
	case Release:
		r.Source.Released = true
	case Return:
		r.Returned = true
		if !c.keepEpoch {
			r.Epoch++
		}
	case Lose:
		r.Lost = true
	case HandOver:
		r.HandedOver = true
	case Adopt:
		r.Adopted = true
	}
}
