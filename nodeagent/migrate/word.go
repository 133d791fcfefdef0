package migrate

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
)

// Word is a user's about a move that is stuck. The policy drover-records lets who has the
// verb "resolve" write what it writes, and nothing else.
type Word struct {
	// Verb is Abort, Return or Lose.
	Verb handoff.Verb
	// User is the name as the API server knows it.
	User string
	// Off is the node that the user says is powered off; with Return and Lose.
	Off string
}

// Write changes the record as the word has it, by the rules of the machines.
func (w Word) Write(pm *v1alpha1.PodMigration, now time.Time) error {
	r, err := handoff.Change{Verb: w.Verb}.Apply(RecordOf(pm))
	if err != nil {
		return err
	}
	s, at := &pm.Status, metav1.NewMicroTime(now)
	e := v1alpha1.TimelineEntry{By: "user " + w.User, At: at, Message: fmt.Sprintf("user %s says that node %s is powered off", w.User, w.Off)}
	switch w.Verb {
	case handoff.Return:
		e.Step = "ReturnDecided"
		s.Returned, s.Epoch, s.ReturnProof = r.Returned, r.Epoch, e.Message
	case handoff.Lose:
		e.Step = "LossDecided"
		s.Lost, s.LostMessage = r.Lost, e.Message
	default:
		e.Step, e.Message = "AbortDecided", "user "+w.User+" gave the move up"
		s.Decision, s.DecidedAt, s.DecisionBy = v1alpha1.Decision(r.Decision), &at, e.By
		s.DecisionReason, s.DecisionMessage = "Resolved", e.Message
	}
	s.AddStep(e)
	return nil
}
