package controller

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/drover-project/drover/api/v1alpha1"
)

// moment is how long a pod may stand still before the record says that it is held: longer
// than a move that goes well.
const moment = 5 * time.Second

// holding is who stands still, since when, and for whom it waits.
type holding struct {
	since   time.Time
	reason  string
	message string
}

// held tells by the record alone who stands still; nil: nobody. What really stands still on
// the nodes their agents know, and tell by their metrics and kubectl drover resolve.
func held(m *v1alpha1.PodMigration) *holding {
	s := &m.Status
	source, target := s.Source.Node, s.Target.Node
	h := &holding{since: frozenSince(m)}
	say := func(reason, format string, args ...any) *holding {
		h.reason, h.message = reason, fmt.Sprintf(format, args...)
		return h
	}
	back := s.Decision == v1alpha1.Abort || s.Returned
	switch {
	case !s.Target.Waiting || s.Source.Released || s.Target.Resumed || s.Lost:
		return nil
	case back:
		return say("WaitingForSource", "pod %s waits on node %s for the agent there to let it go on", s.Source.PodName, source)
	case s.Decision == v1alpha1.Commit && s.Target.Failed:
		return say("WaitingForSource", "the copy on node %s is dead; pod %s waits on node %s for the agent there to take it back", target, s.Source.PodName, source)
	case s.Target.Starting:
		return say("WaitingForTarget", "the copy on node %s was about to run; pod %s on node %s waits for the agent on node %s to say that it does, or for proof that it is lost", target, s.Source.PodName, source, target)
	case s.Decision == v1alpha1.Commit:
		return say("WaitingForTarget", "committed; the copy on node %s and pod %s on node %s wait for the agent on node %s to let the copy run, or for proof that it cannot", target, s.Source.PodName, source, target)
	case s.Source.Offered:
		return say("WaitingForDecision", "pod %s on node %s and its copy on node %s wait for the agent on node %s to restore it and commit, or for an abort", s.Source.PodName, source, target, target)
	}
	return say("WaitingForSource", "pod %s on node %s waits for the agent there to dump it and send it to node %s, or for an abort", s.Source.PodName, source, target)
}

// frozenSince is the step from which on the pod may stand still, by its writer's clock.
func frozenSince(m *v1alpha1.PodMigration) time.Time {
	var since time.Time
	for _, e := range m.Status.Timeline {
		switch e.Step {
		case "CreateWaiting":
			since = e.At.Time
		case "Frozen":
			return e.At.Time
		}
	}
	return since
}

// sayHeld sets the condition Held as it is, and tells whether that changed anything. A pod
// that is not held for longer than a moment is not spoken of.
func sayHeld(m *v1alpha1.PodMigration, now time.Time) bool {
	h := held(m)
	switch {
	case h == nil:
		return notHeld(m, now)
	case h.since.IsZero():
		h.since = now
	case now.Sub(h.since) < moment:
		return false
	}
	return setCondition(m, h.since, v1alpha1.ConditionHeld, true, h.reason, h.message)
}

// notHeld takes the condition back, if it is there, and tells whether that changed anything.
func notHeld(m *v1alpha1.PodMigration, now time.Time) bool {
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionHeld)
	if c == nil || c.Status == "False" {
		return false
	}
	return setCondition(m, now, v1alpha1.ConditionHeld, false, "Released",
		fmt.Sprintf("nobody is held any more, after %s", now.Sub(c.LastTransitionTime.Time).Round(time.Second)))
}
