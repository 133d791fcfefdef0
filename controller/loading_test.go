package controller

import (
	"context"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

func byPostCopy(m *v1alpha1.PodMigration) { m.Spec.PostCopy = true }

// loadingScenarios are of copies that run for 20 turns before all of their memory is there. That their
// source is deleted before is a fault in all of them (guards_test.go).
func loadingScenarios() []scenario {
	const turns = 20
	return []scenario{
		{name: "post-copy", change: byPostCopy, players: players{loading: turns},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "post-copy of a Job", job: true, change: byPostCopy, players: players{loading: turns}, calm: true,
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "post-copy, source deleted while it loads", change: byPostCopy, players: players{loading: 1 << 30, when: resumed, then: gracefully(deletes(oldName))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "post-copy, source node gone while it loads", change: byPostCopy, players: players{loading: 1 << 30, when: resumed, then: losesNode}, calm: true,
			phase: v1alpha1.PhaseCompleted, reason: "Moved", thirds: 1, pods: []string{newName}},
		{name: "post-copy, replacement deleted while it loads", change: byPostCopy, players: players{loading: 1 << 30, when: resumed, then: deletes(newName)}, calm: true,
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: []string{"web-5d4-third1"}, thirds: 1},
	}
}

// TestWaitingForMemory: the record says for what a move waits whose copy lacks memory, and that it is lost
// with the source's node.
func TestWaitingForMemory(t *testing.T) {
	w := scenario{change: byPostCopy, players: players{loading: 1 << 30}}.begin(t, fault{})
	turn := func(until func(*v1alpha1.PodMigration) bool) *v1alpha1.PodMigration {
		t.Helper()
		for range rounds {
			if _, err := w.r.Reconcile(context.Background(), w.request()); err != nil {
				t.Fatal(err)
			}
			if m := w.move(); until(m) {
				return m
			}
			w.play()
		}
		t.Fatalf("it does not come to it: %+v", w.move().Status)
		return nil
	}
	m := turn(func(m *v1alpha1.PodMigration) bool {
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionComplete)
		return c != nil && c.Reason == "WaitingForMemory"
	})
	if !m.Status.Target.Resumed || m.Status.Source.Forfeited || w.pod(oldName) == nil {
		t.Errorf("waits for memory, and the record says %+v", m.Status)
	}
	losesNode(w)
	turn(func(m *v1alpha1.PodMigration) bool { return m.Status.Source.Forfeited })
}

// TestForfeitedBeforeTheStart: memory is lost with the source's node also when the copy was not let run yet.
func TestForfeitedBeforeTheStart(t *testing.T) {
	m := wish()
	m.Spec.PostCopy = true
	m.Status.Decision = v1alpha1.Commit
	m.Status.Source = v1alpha1.SourceStatus{Node: "n1", PodName: oldName, PodUID: "uid-source", Offered: true}
	m.Status.Target = v1alpha1.TargetStatus{Node: "n2", PodName: newName, PodUID: "uid-target", Waiting: true}
	w := newWorld(t, m, node("n2"))
	for _, gone := range []bool{false, true} {
		f := Facts{Now: w.now, TargetNode: node("n2")}
		if !gone {
			f.SourceNode = node("n1")
		}
		if changed, err := w.r.forfeit(t.Context(), w.move(), f); err != nil || changed != gone || w.move().Status.Source.Forfeited != gone {
			t.Errorf("node gone: %t, forfeited: %t, %v", gone, changed, err)
		}
	}
}

// TestBothNodesGone: with both nodes gone nobody is left who would say that nothing is asked for any more; the
// record takes no hand-over before that.
func TestBothNodesGone(t *testing.T) {
	m := wish()
	m.Spec.PostCopy = true
	m.Status.Decision = v1alpha1.Commit
	m.Status.Source = v1alpha1.SourceStatus{Node: "n1", PodName: oldName, PodUID: "uid-source", Offered: true, Forfeited: true}
	m.Status.Target = v1alpha1.TargetStatus{Node: "n2", PodName: newName, PodUID: "uid-target", Waiting: true, Starting: true, Resumed: true}
	w := newWorld(t, m)
	f := Facts{Now: w.now, TargetNode: node("n2")}
	if _, err := w.r.awaitLoaded(t.Context(), w.move(), f); err != nil || w.move().Status.Target.Loaded {
		t.Errorf("the target's node is there: loaded %v, %v", w.move().Status.Target.Loaded, err)
	}
	f.TargetNode = nil
	if _, err := w.r.awaitLoaded(t.Context(), w.move(), f); err != nil || !w.move().Status.Target.Loaded {
		t.Errorf("both are gone: loaded %v, %v", w.move().Status.Target.Loaded, err)
	}
}

// TestDeadlinesOfTheHandOver: they begin when all of the memory is there.
func TestDeadlinesOfTheHandOver(t *testing.T) {
	m, now := wish(), time.Now()
	m.Status.DecidedAt = &metav1.MicroTime{Time: now.Add(-time.Minute)}
	if d := sinceWhole(m, now); d != time.Minute {
		t.Errorf("after the decision: %v", d)
	}
	m.Status.AddStep(v1alpha1.TimelineEntry{Step: "MemoryLoaded", At: metav1.NewMicroTime(now.Add(-time.Second))})
	if d := sinceWhole(m, now); d != time.Second {
		t.Errorf("after all memory came: %v", d)
	}
}
