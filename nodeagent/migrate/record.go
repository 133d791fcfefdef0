package migrate

import (
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
)

// RecordOf gives the part of a PodMigration by which the machines decide.
func RecordOf(pm *v1alpha1.PodMigration) handoff.Record {
	s := &pm.Status
	r := handoff.Record{
		ID: string(pm.UID), Version: pm.ResourceVersion, Epoch: s.Epoch,
		PostCopy:   pm.Spec.PostCopy,
		Containers: len(s.Source.Containers), Decision: handoff.Decision(s.Decision), HandedOver: s.HandedOver, Adopted: s.Adopted, Returned: s.Returned, Lost: s.Lost,
		Source: handoff.SourceRecord{
			Node: s.Source.Node, PodUID: string(s.Source.PodUID), BootID: s.Source.BootID, Keep: v1alpha1.SourceKept(s),
			Offered: s.Source.Offered, Ended: s.Source.Ended, Released: s.Source.Released, Forfeited: s.Source.Forfeited,
		},
		Target: handoff.TargetRecord{
			Node: s.Target.Node, PodUID: string(s.Target.PodUID), BootID: s.Target.BootID,
			Waiting: s.Target.Waiting, Starting: s.Target.Starting, Resumed: s.Target.Resumed,
			Failed: s.Target.Failed, Cleaned: s.Target.Cleaned, Loaded: s.Target.Loaded,
		},
	}
	if s.Target.Deadline != nil {
		r.Target.Deadline = s.Target.Deadline.Time
	}
	return r
}

// MoveOf gives what the ports want to know of a PodMigration.
func MoveOf(pm *v1alpha1.PodMigration) Move {
	s := &pm.Status
	return Move{
		Namespace: pm.Namespace, Name: pm.Name, UID: string(pm.UID), Epoch: s.Epoch, PostCopy: pm.Spec.PostCopy,
		Source:     Pod{Node: s.Source.Node, Namespace: pm.Namespace, Name: s.Source.PodName, UID: string(s.Source.PodUID)},
		Target:     Pod{Node: s.Target.Node, Namespace: pm.Namespace, Name: s.Target.PodName, UID: string(s.Target.PodUID)},
		Containers: containers(s), OwnerUID: string(s.Source.OwnerUID),
		KeepsConnections: s.Connections != nil && s.Connections.State == v1alpha1.ConnectionsKept, Keep: keepOf(s.Connections),
	}
}

func containers(s *v1alpha1.PodMigrationStatus) []Container {
	all := make([]Container, len(s.Source.Containers))
	for i, c := range s.Source.Containers {
		all[i] = Container{Name: c.Name, ID: c.ID}
	}
	return all
}

// Steps of the timeline that a node writes.
const (
	StepCreateWaiting  = "CreateWaiting"
	StepFrozen         = "Frozen"
	StepDumped         = "Dumped"
	StepSent           = "Sent"
	StepRestored       = "Restored"
	StepCommitted      = "Committed"
	StepAborted        = "Aborted"
	StepResumed        = "Resumed"
	StepLoaded         = "MemoryLoaded"
	StepForfeited      = "MemoryLost"
	StepTargetFailed   = "TargetFailed"
	StepReturned       = "Returned"
	StepLost           = "Lost"
	StepSourceEnded    = "SourceEnded"
	StepSourceReleased = "SourceReleased"
	StepTargetCleaned  = "TargetCleaned"
)

// steps names what a change of the record is in the timeline.
var steps = map[handoff.Verb]string{
	handoff.Wait: StepCreateWaiting, handoff.Commit: StepCommitted, handoff.Abort: StepAborted,
	handoff.Resume: StepResumed, handoff.Fail: StepTargetFailed, handoff.Return: StepReturned, handoff.Lose: StepLost,
	handoff.Load: StepLoaded, handoff.Forfeit: StepForfeited,
	handoff.End: StepSourceEnded, handoff.Release: StepSourceReleased, handoff.Clean: StepTargetCleaned,
}

// write is a change of a record with all that goes along with it.
type write struct {
	change handoff.Change
	role   Role
	node   string
	now    time.Time
	// steps are the timeline's entries of this node so far; those that the record has
	// already are left out.
	steps []v1alpha1.TimelineEntry
	// sent is what the transfer took; nil: it is not over.
	sent *Progress
	// frozen is 0 when it is not known.
	frozen time.Duration
	// judgement is the guard's; the zero one: none.
	judgement judgement
	// address is the new sandbox's, verdict what becomes of the connections, as far as is known.
	address netip.Addr
	verdict *verdict
}

// apply gives pm as the change leaves it, or handoff.ErrForbidden. pm stays as it is.
func (w write) apply(pm *v1alpha1.PodMigration) (*v1alpha1.PodMigration, error) {
	r, err := w.change.Apply(RecordOf(pm))
	if err != nil {
		return nil, err
	}
	w.change.Message = v1alpha1.Cut(w.change.Message)
	next := pm.DeepCopy()
	w.facts(&next.Status, r)
	w.words(&next.Status)
	w.judgement.record(&next.Status, w.change)
	if c := next.Status.Connections; c != nil && w.change.Verb == handoff.Wait && w.address.IsValid() && c.NewAddress == "" {
		c.NewAddress = w.address.String()
	}
	w.verdict.record(&next.Status, w.now)
	for _, e := range w.steps {
		addStep(&next.Status, e)
	}
	if step := steps[w.change.Verb]; step != "" {
		addStep(&next.Status, v1alpha1.TimelineEntry{Step: step, By: w.node, At: metav1.NewMicroTime(w.now), Message: w.change.Message})
	}
	if p := phaseOf(r); p != "" {
		next.Status.Phase = p
	}
	return next, nil
}

// facts copies the record's facts into the status.
func (w write) facts(s *v1alpha1.PodMigrationStatus, r handoff.Record) {
	s.Epoch, s.Decision, s.Returned, s.Lost = r.Epoch, v1alpha1.Decision(r.Decision), r.Returned, r.Lost
	s.Source.Offered, s.Source.Ended, s.Source.Released = r.Source.Offered, r.Source.Ended, r.Source.Released
	s.Source.Forfeited, s.Target.Loaded = r.Source.Forfeited, r.Target.Loaded
	t := &s.Target
	t.BootID, t.Waiting, t.Starting = r.Target.BootID, r.Target.Waiting, r.Target.Starting
	t.Resumed, t.Failed, t.Cleaned = r.Target.Resumed, r.Target.Failed, r.Target.Cleaned
	if !r.Target.Deadline.IsZero() {
		at := metav1.NewMicroTime(r.Target.Deadline)
		t.Deadline = &at
	}
}

// words adds who, when and why.
func (w write) words(s *v1alpha1.PodMigrationStatus) {
	switch w.change.Verb {
	case handoff.Commit, handoff.Abort:
		at := metav1.NewMicroTime(w.now)
		s.DecidedAt, s.DecisionBy = &at, string(w.role)+" "+w.node
		s.DecisionReason, s.DecisionMessage = w.change.Reason, w.change.Message
	case handoff.Fail:
		s.Target.FailedMessage = w.change.Message
	case handoff.Return:
		s.ReturnProof = w.change.Message
	case handoff.Lose:
		s.LostMessage = w.change.Message
	case handoff.Offer:
		if w.sent != nil {
			s.Bytes, s.Transfer = w.sent.Total, w.sent.status()
		}
	case handoff.End:
		if w.frozen > 0 {
			s.FrozenTime = &metav1.Duration{Duration: w.frozen}
		}
	}
}

// addStep adds an entry unless the same node has written that step.
func addStep(s *v1alpha1.PodMigrationStatus, e v1alpha1.TimelineEntry) {
	if findStep(s, e.Step, e.By) == nil {
		s.AddStep(e)
	}
}

func findStep(s *v1alpha1.PodMigrationStatus, step, by string) *v1alpha1.TimelineEntry {
	for i := range s.Timeline {
		if s.Timeline[i].Step == step && s.Timeline[i].By == by {
			return &s.Timeline[i]
		}
	}
	return nil
}

// phaseOf gives the phase while the agents work; "" where it is the controller's to say.
func phaseOf(r handoff.Record) v1alpha1.Phase {
	switch {
	case r.Returned, r.HandedOver, r.Lost:
		return ""
	case r.Decision == handoff.Committed:
		return v1alpha1.PhaseCommitted
	case r.Decision == handoff.Aborted:
		return ""
	case r.Source.Offered:
		return v1alpha1.PhaseRestoring
	case r.Target.Waiting:
		return v1alpha1.PhaseTransferring
	}
	return ""
}

// finished tells that one side of a move has nothing left to do.
func finished(r handoff.Record, role Role) bool {
	back := r.Decision == handoff.Aborted || r.Returned
	if role == RoleSource {
		return back && r.Source.Released || r.Source.Ended
	}
	return (back || r.Lost) && r.Target.Cleaned || r.Target.Resumed && !r.Needed()
}
