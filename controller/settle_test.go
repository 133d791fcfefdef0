package controller

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/drover-project/drover/api/v1alpha1"
)

// A source that is let go on is said to run on only if it does: not if its node was booted, or its
// container has ended, while it was held.
func TestWhatBecameOfTheSource(t *testing.T) {
	boots := func(w *world) {
		n := node("n1")
		n.Status.NodeInfo.BootID = "boot-n1-again"
		w.must(w.api.Status().Update(context.Background(), n))
	}
	restarts := func(w *world) {
		p := w.pod(oldName)
		p.Status.ContainerStatuses[0].ContainerID = "containerd://another"
		w.must(w.api.Status().Update(context.Background(), p))
	}
	waits := func(w *world) {
		p := w.pod(oldName)
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerError"}}
		w.must(w.api.Status().Update(context.Background(), p))
	}
	ends := map[v1alpha1.Phase]players{
		v1alpha1.PhaseReturned: {targetDies: true, when: committed},
		v1alpha1.PhaseAborted:  {noCommit: true, when: waiting},
	}
	for name, test := range map[string]struct {
		then func(*world)
		says string
	}{
		"nothing":                {func(*world) {}, "pod web-5d4-abcde runs on on node n1"},
		"its node boots":         {boots, "node n1 was booted during the move: the memory of pod web-5d4-abcde is lost"},
		"its container is anew":  {restarts, "what ran in its containers (app) ended during the move"},
		"its container is ended": {waits, "what ran in its containers (app) ended during the move"},
	} {
		for phase, p := range ends {
			t.Run(string(phase)+"/"+name, func(t *testing.T) {
				p.then = func(w *world) {
					test.then(w)
					if p.noCommit {
						deletes(newName)(w) // aborts the move
					}
				}
				s := scenario{name: name, players: p, phase: phase, pods: []string{oldName}}
				w := s.begin(t, fault{})
				m := w.run()
				if m.Status.Phase != phase {
					t.Fatalf("phase %s, want %s", m.Status.Phase, phase)
				}
				got := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionComplete).Message
				if !strings.Contains(got, test.says) || strings.Contains(got, "runs on") != (name == "nothing") {
					t.Errorf("says %q, want %q", got, test.says)
				}
			})
		}
	}
}
