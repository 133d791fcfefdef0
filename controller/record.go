package controller

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// by is this program's name in a record.
const by = "controller"

// accepted tells whether the wish was judged and may be carried out.
func accepted(m *v1alpha1.PodMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionAccepted)
}

// lastPhase is the phase of a finished move. Completed means handed over, nothing less.
func lastPhase(m *v1alpha1.PodMigration) v1alpha1.Phase {
	switch {
	case m.Status.Returned:
		return v1alpha1.PhaseReturned
	case m.Status.Lost:
		return v1alpha1.PhaseLost
	case m.Status.HandedOver:
		return v1alpha1.PhaseCompleted
	case !accepted(m):
		return v1alpha1.PhaseRejected
	}
	return v1alpha1.PhaseAborted
}

// setCondition sets one condition and tells whether that changed anything.
func setCondition(m *v1alpha1.PodMigration, now time.Time, kind string, status bool, reason, message string) bool {
	s := metav1.ConditionFalse
	if status {
		s = metav1.ConditionTrue
	}
	return meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{
		Type: kind, Status: s, Reason: reason, Message: v1alpha1.Cut(message),
		ObservedGeneration: m.Generation, LastTransitionTime: metav1.NewTime(now),
	})
}

// note adds one line to the record's timeline.
func note(m *v1alpha1.PodMigration, now time.Time, step, message string) {
	m.Status.AddStep(v1alpha1.TimelineEntry{Step: step, By: by, At: metav1.NewMicroTime(now), Message: message})
}

// since is how long ago the condition took its present status; 0 when it is not there.
func since(m *v1alpha1.PodMigration, now time.Time, kind string) time.Duration {
	c := meta.FindStatusCondition(m.Status.Conditions, kind)
	if c == nil {
		return 0
	}
	return now.Sub(c.LastTransitionTime.Time)
}

// sinceLast is how long ago the last of a finished move was done: of a lease, if there was one.
func sinceLast(m *v1alpha1.PodMigration, now time.Time) time.Duration {
	last := since(m, now, v1alpha1.ConditionComplete)
	if keepsAddress(m) {
		return min(last, since(m, now, v1alpha1.ConditionAddressLeased))
	}
	return last
}

// sinceDecided is how long ago the decision was made; by the decider's clock, so it may
// be wrong by the difference of the clocks, and never decides who runs.
func sinceDecided(m *v1alpha1.PodMigration, now time.Time) time.Duration {
	if m.Status.DecidedAt == nil {
		return since(m, now, v1alpha1.ConditionAccepted)
	}
	return now.Sub(m.Status.DecidedAt.Time)
}

// everWaited tells whether a create of the replacement ever reached drover-runc. Only
// then can the source have been frozen or anything be left on the target.
func everWaited(m *v1alpha1.PodMigration) bool {
	t := &m.Status.Target
	return t.Waiting || t.Deadline != nil || t.BootID != "" || m.Status.Source.Offered
}

// movingValue is the value of the annotation drover.dev/moving for this PodMigration.
func movingValue(m *v1alpha1.PodMigration) string { return m.Name + "/" + string(m.UID) }

// holds tells whether the pod is claimed by this very PodMigration.
func holds(p *corev1.Pod, m *v1alpha1.PodMigration) bool {
	return p != nil && p.Annotations[v1alpha1.AnnotationMoving] == movingValue(m)
}

// outcome is a good move in one line.
func outcome(m *v1alpha1.PodMigration) string {
	s := &m.Status
	line := fmt.Sprintf("pod %s moved from node %s to node %s as pod %s", s.Source.PodName, s.Source.Node, s.Target.Node, s.Target.PodName)
	if s.FrozenTime != nil {
		line += fmt.Sprintf("; frozen for %s", s.FrozenTime.Duration.Round(time.Millisecond))
	}
	if s.Bytes > 0 {
		line += fmt.Sprintf("; %d bytes sent", s.Bytes)
	}
	switch c := s.Connections; {
	case keepsAddress(m):
		line += "; its connections went along"
	case c != nil && c.State == v1alpha1.ConnectionsClosed:
		line += fmt.Sprintf("; its connections were closed: %s", c.Reason)
	}
	return line
}
