package migrate

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/movable"
)

// Guard finds what only a node can know against a move. A finding aborts the move before
// anything is frozen for it. An error is no finding: what was not seen here CRIU will say.
type Guard interface {
	// Leaves examines the processes of the container that is to leave this node.
	Leaves(ctx context.Context, m Move) ([]movable.Finding, error)
	// Comes tells whether what runs on m's source can run on this node. It returns at once.
	Comes(m Move) []movable.Finding
}

// judgement is what the guard said, for the record.
type judgement struct {
	condition *metav1.Condition
	// against sums up the findings; the zero Finding: none.
	against movable.Finding
}

// judge makes a judgement of findings.
func (w *worker) judge(found []movable.Finding) judgement {
	c := &metav1.Condition{
		Type: v1alpha1.ConditionMovable, Status: metav1.ConditionTrue, Reason: "Examined",
		Message:            "nothing in the processes on node " + w.d.cfg.Node + " speaks against the move",
		LastTransitionTime: metav1.NewTime(w.d.cfg.Now()),
	}
	j := judgement{condition: c}
	if len(found) > 0 {
		j.against = movable.Sum(found)
		j.against.Message = v1alpha1.Cut(j.against.Message)
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, j.against.Reason, j.against.Message
	}
	return j
}

// leaves asks the guard before a dump. ok: nothing speaks against it.
func (w *worker) leaves(ctx context.Context) (letter, bool) {
	g := w.d.ports.Guard
	if g == nil {
		return letter{}, true
	}
	found, err := g.Leaves(ctx, w.move)
	if err != nil {
		w.log.Warn("the processes could not be examined before the dump", "err", err)
		return letter{}, true
	}
	j := w.judge(found)
	l := letter{
		event:  handoff.Event{Kind: handoff.Failed, Op: handoff.OpDump, Reason: j.against.Message},
		before: func() { w.judgement = j },
	}
	return l, len(found) == 0
}

// comes asks the guard when a create waits and has not been announced: a target that cannot
// run the pod gives it up before the source stops anything.
func (w *worker) comes(e handoff.Event) {
	g, r := w.d.ports.Guard, w.machine.Record()
	if g == nil || w.role != RoleTarget || e.Kind == handoff.Tick || r.Decision != handoff.Undecided || r.Target.Waiting || w.judgement.condition != nil {
		return
	}
	if found := g.Comes(w.move); len(found) > 0 {
		w.judgement = w.judge(found)
		w.log.Warn("this node cannot take the pod", "reason", w.judgement.against.Reason, "message", w.judgement.against.Message)
		w.step(w.ctx, handoff.Event{Kind: handoff.Unwanted, Reason: w.judgement.against.Message})
	}
}

// record writes the judgement down, and lets an abort for its sake bear its reason.
func (j judgement) record(s *v1alpha1.PodMigrationStatus, c handoff.Change) {
	if j.condition != nil {
		meta.SetStatusCondition(&s.Conditions, *j.condition)
	}
	if c.Verb == handoff.Abort && j.against.Reason != "" && c.Message == j.against.Message {
		s.DecisionReason = j.against.Reason
	}
}
