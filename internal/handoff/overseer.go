package handoff

// Cluster is what drover-controller sees around a move, read from the API server. What it
// is not sure of is false.
type Cluster struct {
	// SourceDeleted: the source pod is being deleted or is gone; OwnerDeleted likewise.
	SourceDeleted, OwnerDeleted bool
	// SourceUnwanted: the source pod is still to be seen, is being deleted, and not because
	// of its node (it has no condition DisruptionTarget, which evictions, taints and the pod
	// garbage collector set). A pod that is simply gone tells nothing: its node may be, too.
	SourceUnwanted bool
	// Cancelled: the PodMigration itself is being deleted.
	Cancelled bool
	// ReplacementGone: being deleted, or gone. Unschedulable and Late are the controller's
	// own judgement, with its own clock: they lead to an attempt of an abort, no more.
	ReplacementGone, Unschedulable, Late bool
	// ReplacementReady: its Ready condition is true.
	ReplacementReady bool
	// HandOverBegun: the replacement bears a durable sign that the hand-over was begun, so
	// that a source pod that is gone was deleted by the hand-over and not by the user.
	HandOverBegun bool
	// SourceNodeGone, TargetNodeGone: there is no such Node object. TargetBootID is the
	// Node object's; empty when not known.
	SourceNodeGone, TargetNodeGone bool
	TargetBootID                   string
}

// Verdict is what the controller has to do about a move. At most one of the first three is set.
type Verdict struct {
	// Abort is the compare-and-swap to try.
	Abort *Change
	// Adopt is the compare-and-swap to try: the source's processes may be ended.
	Adopt *Change
	// Forfeit is the compare-and-swap to try: memory that the copy has not fetched is lost.
	Forfeit *Change
	// HandOver: give the replacement to its owner and delete the source pod.
	HandOver bool
	// Discard: delete the replacement, for the user deleted the pod that it replaces.
	Discard bool
	// Bury: delete the source pod, which must not run any more, so that its owner makes a new one.
	Bury bool
	// CleanUp: delete the replacement, for the move was aborted, returned, or lost with both nodes.
	CleanUp bool
	// Settled: nobody has anything left to do; the finalizer may go.
	Settled bool
}

// Oversee judges a move. It looks at nothing but its arguments; what it wants again and
// again it may be given again and again.
func Oversee(r Record, c Cluster) Verdict {
	switch {
	case r.Decision == Undecided:
		if why, message := against(r, c); why != "" {
			return Verdict{Abort: &Change{Verb: Abort, Reason: why, Message: message}}
		}
		return Verdict{}
	case r.Decision == Aborted || r.Returned:
		released := r.Source.Released || c.SourceNodeGone || r.Source.Node == ""
		cleaned := r.Target.Cleaned || c.TargetNodeGone || r.Target.Node == ""
		return Verdict{CleanUp: true, Settled: released && cleaned}
	case r.Lost:
		ended := r.Source.Ended || c.SourceNodeGone
		return Verdict{CleanUp: true, Bury: ended, Settled: ended && c.SourceDeleted}
	case r.Target.Resumed && r.Needed():
		return whileLoading(r, c)
	case r.HandedOver:
		return Verdict{Settled: r.Source.Ended || c.SourceNodeGone}
	case r.Target.Resumed:
		if !r.mayEnd() && (c.HandOverBegun || c.SourceUnwanted || c.ReplacementGone) {
			return Verdict{Adopt: &Change{Verb: Adopt}}
		}
		if c.SourceUnwanted && !c.HandOverBegun {
			return Verdict{Discard: true, Settled: c.ReplacementGone && (r.Source.Ended || c.SourceNodeGone)}
		}
		if c.ReplacementGone {
			return Verdict{Settled: r.Source.Ended || c.SourceNodeGone}
		}
		return Verdict{HandOver: c.ReplacementReady || c.HandOverBegun}
	}
	// Committed, neither acknowledged nor returned nor lost: the agents' turn. With both sides gone
	// there is nobody left: the pod is lost, as pods are whose node is.
	lost := c.SourceNodeGone && (r.Target.Failed || c.TargetNodeGone)
	v := Verdict{CleanUp: lost, Settled: lost}
	if !lost {
		v.Forfeit = forfeit(r, c)
	}
	return v
}

// whileLoading judges a move whose copy runs and still fetches memory. The source's pod is not
// touched: its end would be that of its processes.
func whileLoading(r Record, c Cluster) Verdict {
	switch {
	case c.SourceNodeGone && c.TargetNodeGone:
		return Verdict{Settled: true}
	case c.SourceUnwanted:
		return Verdict{Discard: true, Forfeit: forfeit(r, c)}
	}
	return Verdict{Forfeit: forfeit(r, c)}
}

// forfeit says for a source whose node is gone what its agent would have said.
func forfeit(r Record, c Cluster) *Change {
	if !c.SourceNodeGone || !r.Needed() || r.Source.Forfeited {
		return nil
	}
	return &Change{Verb: Forfeit, Reason: "SourceGone", Message: "node " + r.Source.Node + " is gone from the cluster, and with it the memory that the copy had not fetched"}
}

// against gives the reason for trying an abort of an undecided move, if there is one.
func against(r Record, c Cluster) (why, message string) {
	rebooted := r.Target.BootID != "" && c.TargetBootID != "" && c.TargetBootID != r.Target.BootID
	switch {
	case c.Cancelled:
		return "Cancelled", "the PodMigration was deleted"
	case c.SourceDeleted:
		return "SourceDeleted", "the source pod was deleted"
	case c.OwnerDeleted:
		return "OwnerDeleted", "the owner of the source pod was deleted"
	case c.ReplacementGone:
		return "ReplacementGone", "the replacement was deleted"
	case c.TargetNodeGone:
		return "TargetGone", "node " + r.Target.Node + " is gone from the cluster"
	case rebooted:
		return "TargetRebooted", "node " + r.Target.Node + " was booted since the create began to wait"
	case c.SourceNodeGone && (!r.Source.Offered || r.PostCopy):
		return "SourceGone", "node " + r.Source.Node + " is gone from the cluster"
	case c.Unschedulable:
		return "Unschedulable", "no node takes the replacement"
	case c.Late:
		return "Late", "no decision in the time given"
	}
	return "", ""
}
