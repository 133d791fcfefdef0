package migrate

import (
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/movable"
)

// However much there is to say, the record is one that the API server takes.
func TestWordsFitIntoTheRecord(t *testing.T) {
	long := strings.Repeat("no such page ", v1alpha1.MaxMessage)
	undecided := v1alpha1.PodMigrationStatus{Epoch: 2, Source: v1alpha1.SourceStatus{Node: "a", PodUID: "u", Offered: true},
		Target: v1alpha1.TargetStatus{Node: "b", PodUID: "v", Waiting: true}}
	committed := *undecided.DeepCopy()
	committed.Decision = v1alpha1.Commit
	starting := *committed.DeepCopy()
	starting.Target.Starting = true
	for verb, c := range map[handoff.Verb]struct {
		from v1alpha1.PodMigrationStatus
		says func(*v1alpha1.PodMigrationStatus) string
	}{
		handoff.Abort:  {undecided, func(s *v1alpha1.PodMigrationStatus) string { return s.DecisionMessage }},
		handoff.Fail:   {committed, func(s *v1alpha1.PodMigrationStatus) string { return s.Target.FailedMessage }},
		handoff.Return: {committed, func(s *v1alpha1.PodMigrationStatus) string { return s.ReturnProof }},
		handoff.Lose:   {starting, func(s *v1alpha1.PodMigrationStatus) string { return s.LostMessage }},
	} {
		w := write{change: handoff.Change{Verb: verb, Reason: "X", Message: long}, node: "a", now: time.Unix(1, 0)}
		pm, err := w.apply(&v1alpha1.PodMigration{Status: c.from})
		if err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		s := &pm.Status
		for what, says := range map[string]string{"the record": c.says(s), "the timeline": s.Timeline[len(s.Timeline)-1].Message} {
			if says != v1alpha1.Cut(long) {
				t.Errorf("%s: %s says %d bytes: %.60s", verb, what, len(says), says)
			}
		}
	}
}

// An abort for what was found bears its reason, though the words of it were cut.
func TestFindingsFitIntoTheRecord(t *testing.T) {
	w := &worker{d: &Driver{cfg: Config{Node: "a", Now: time.Now}}}
	var found []movable.Finding
	for range v1alpha1.MaxMessage {
		found = append(found, movable.Found(movable.ReasonUnsupportedDevice, "no"))
	}
	j := w.judge(found)
	if len(j.condition.Message) > v1alpha1.MaxMessage || j.condition.Message != j.against.Message {
		t.Errorf("the condition has %d bytes, the reason for an abort %d", len(j.condition.Message), len(j.against.Message))
	}
}

func TestNodeWritesFewSteps(t *testing.T) {
	all := []string{StepFrozen, StepDumped, StepSent, StepRestored}
	for _, s := range steps {
		all = append(all, s)
	}
	if len(all) > v1alpha1.MaxNodeSteps {
		t.Errorf("a node that is both ends writes %d steps, and may write %d", len(all), v1alpha1.MaxNodeSteps)
	}
}
