package controller

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// preparing is an accepted move whose replacement is bound to n2, and what is seen of it.
func preparing() (*v1alpha1.PodMigration, Facts) {
	m, f := wish(), goodFacts()
	m.Status.Source = v1alpha1.SourceStatus{
		Node: "n1", PodName: f.Pod.Name, PodUID: f.Pod.UID, Containers: []v1alpha1.MovingContainer{{Name: "app", ID: "c0ffee"}}, OwnerUID: ownerUID(f.Pod),
	}
	m.Status.Target = v1alpha1.TargetStatus{Node: "n2", PodName: newName, PodUID: "uid-replacement"}
	setCondition(m, start, v1alpha1.ConditionAccepted, true, "Accepted", "")
	f.TargetNode = node("n2")
	f.Replacement = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: testNamespace, Name: newName, UID: "uid-replacement", CreationTimestamp: metav1.NewTime(start),
			Labels: map[string]string{v1alpha1.LabelReplacement: string(m.UID)},
		},
		Spec: corev1.PodSpec{NodeName: "n2"},
		Status: corev1.PodStatus{
			Phase: corev1.PodPending,
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
			}},
		},
	}
	return m, f
}

// Until the decision the replacement's container is being created, and nothing else: one
// that runs, or ran, was started cold beside the source.
func TestReplacementsContainerBeforeTheDecision(t *testing.T) {
	for _, c := range []struct {
		name  string
		state corev1.ContainerState
		want  string // reason; empty: goes on
	}{
		{"is created", corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}, ""},
		{"nothing is known of", corev1.ContainerState{}, ""},
		{"cannot be created", corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerError"}}, ReasonReplacementFailed},
		{"runs", corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, ReasonReplacementStartedCold},
		{"ran", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}, ReasonReplacementFailed},
		{"could not be started", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError"}}, ReasonReplacementFailed},
	} {
		m, f := preparing()
		f.Replacement.Status.ContainerStatuses[0].State = c.state
		got := AbortReason(m, f, Config{}.WithDefaults())
		switch {
		case got == nil && c.want != "":
			t.Errorf("a container that %s: the move goes on, want %s", c.name, c.want)
		case got != nil && (got.Reason != c.want || !strings.Contains(got.Message, newName)):
			t.Errorf("a container that %s: %s (%s), want %q and the replacement's name", c.name, got.Reason, got.Message, c.want)
		}
	}
}

// The container runs because the target has committed since the record was read: then
// the abort loses, and nothing comes of it.
func TestAbortOfARunningReplacementLosesToTheCommit(t *testing.T) {
	m, f := preparing()
	m.Status.Source.Offered = true
	w := newWorld(t, m)
	old := w.move()
	now := w.move()
	now.Status.Decision, now.Status.DecisionBy = v1alpha1.Commit, "target n2"
	w.must(w.api.Status().Update(context.Background(), now))
	f.Replacement.Status.ContainerStatuses[0].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	if _, err := w.r.reserve(context.Background(), old, f); !apierrors.IsConflict(err) {
		t.Errorf("%v, want a conflict", err)
	}
	if got := w.move().Status; got.Decision != v1alpha1.Commit || got.DecisionBy != "target n2" {
		t.Errorf("decided %s by %s, want the target's commit", got.Decision, got.DecisionBy)
	}
}
