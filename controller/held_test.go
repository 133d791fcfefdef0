package controller

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// step adds an entry of the timeline, that long after the start.
func step(m *v1alpha1.PodMigration, name, by string, after time.Duration) {
	m.Status.Timeline = append(m.Status.Timeline, v1alpha1.TimelineEntry{Step: name, By: by, At: metav1.NewMicroTime(start.Add(after))})
}

func TestHeld(t *testing.T) {
	base := func() *v1alpha1.PodMigration {
		m := wish()
		m.Status.Source.Node, m.Status.Source.PodName, m.Status.Target.Node, m.Status.Target.Waiting = "n1", "web", "n2", true
		step(m, "CreateWaiting", "n2", 0)
		return m
	}
	offered := func(m *v1alpha1.PodMigration) {
		m.Status.Source.Offered = true
		step(m, "Frozen", "n1", 2*time.Second)
	}
	committed := func(m *v1alpha1.PodMigration) { offered(m); m.Status.Decision = v1alpha1.Commit }
	aborted := func(m *v1alpha1.PodMigration) { offered(m); m.Status.Decision = v1alpha1.Abort }
	for _, c := range []struct {
		name   string
		change func(*v1alpha1.PodMigration)
		at     time.Duration
		reason string // empty: no condition
		since  time.Duration
		says   string
	}{
		{"nobody waits", func(m *v1alpha1.PodMigration) { m.Status.Target.Waiting = false }, time.Hour, "", 0, ""},
		{"a moment", func(*v1alpha1.PodMigration) {}, 4 * time.Second, "", 0, ""},
		{"dumping", func(*v1alpha1.PodMigration) {}, 6 * time.Second, "WaitingForSource", 0, "on node n1 waits"},
		{"a moment after the freeze", offered, 6 * time.Second, "", 0, ""},
		{"offered", offered, 7 * time.Second, "WaitingForDecision", 2 * time.Second, "agent on node n2 to restore it"},
		{"committed", committed, time.Hour, "WaitingForTarget", 2 * time.Second, "agent on node n2 to let the copy run"},
		{"failed", func(m *v1alpha1.PodMigration) { committed(m); m.Status.Target.Failed = true }, time.Hour, "WaitingForSource", 2 * time.Second, "dead"},
		{"resumed", func(m *v1alpha1.PodMigration) { committed(m); m.Status.Target.Resumed = true }, time.Hour, "", 0, ""},
		{"starting", func(m *v1alpha1.PodMigration) { committed(m); m.Status.Target.Starting = true }, time.Hour, "WaitingForTarget", 2 * time.Second, "was about to run"},
		{"lost", func(m *v1alpha1.PodMigration) { committed(m); m.Status.Target.Starting, m.Status.Lost = true, true }, time.Hour, "", 0, ""},
		{"returned", func(m *v1alpha1.PodMigration) { committed(m); m.Status.Returned = true }, time.Hour, "WaitingForSource", 2 * time.Second, "let it go on"},
		{"aborted", aborted, time.Hour, "WaitingForSource", 2 * time.Second, "let it go on"},
		{"released", func(m *v1alpha1.PodMigration) { aborted(m); m.Status.Source.Released = true }, time.Hour, "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := base()
			c.change(m)
			changed := sayHeld(m, start.Add(c.at))
			cond := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionHeld)
			if changed != (c.reason != "") || (cond != nil) != changed {
				t.Fatalf("changed %v: %+v, want %q", changed, cond, c.reason)
			}
			if cond == nil {
				return
			}
			if cond.Status != "True" || cond.Reason != c.reason || !strings.Contains(cond.Message, c.says) || !cond.LastTransitionTime.Time.Equal(start.Add(c.since)) {
				t.Errorf("%+v, want %s since %s, saying %q", cond, c.reason, c.since, c.says)
			}
			if sayHeld(m, start.Add(c.at+time.Second)) {
				t.Error("said again")
			}
			m.Status.Source.Released = true
			if !sayHeld(m, start.Add(c.at+2*time.Second)) || meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionHeld) {
				t.Errorf("still held after the release: %+v", m.Status.Conditions)
			}
			if sayHeld(m, start.Add(c.at+3*time.Second)) || notHeld(m, start) {
				t.Error("released twice")
			}
		})
	}
}
