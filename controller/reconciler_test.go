package controller

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

func TestScenarios(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			w := s.begin(t, fault{})
			s.check(t, w, w.run())
		})
	}
}

// Whichever call fails, whether its request or its answer is lost, somebody is faster or
// a second controller works in between: the end is the same.
func TestAnyCallMayFail(t *testing.T) {
	for i, s := range scenarios() {
		if s.calm {
			continue
		}
		w := s.begin(t, fault{})
		w.run()
		want := w.state()
		modes := map[string]int{"before": w.calls, "after": w.calls, "conflict": w.calls, "other": w.calls}
		if i == 0 { // a failed read is a step that was not taken: one story is enough
			modes["read"] = w.reads
		}
		for mode, calls := range modes {
			t.Run(s.name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				for k := 1; k <= calls; k++ {
					t.Run(fmt.Sprint(k), func(t *testing.T) {
						w := s.begin(t, fault{at: k, mode: mode})
						s.check(t, w, w.run())
						if diff := cmp.Diff(want, w.state()); diff != "" {
							t.Errorf("ends otherwise than without a fault (-without +with):\n%s", diff)
						}
					})
				}
			})
		}
	}
}

// The replacement belongs to its owner in the end, with nothing of the hand-over left.
func TestReplacementAfterHandOver(t *testing.T) {
	s := named("Deployment")
	w := s.begin(t, fault{})
	p := w.pod(oldName)
	p.Annotations[corev1.PodDeletionCost] = "7"
	w.must(w.api.Update(context.Background(), p))
	m := w.run()
	got := w.pod(newName)
	wantLabels := map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: "5d4"}
	if diff := cmp.Diff(wantLabels, got.Labels); diff != "" {
		t.Errorf("labels:\n%s", diff)
	}
	if diff := cmp.Diff(owner("ReplicaSet", "apps/v1", "web-5d4"), got.OwnerReferences); diff != "" {
		t.Errorf("owner:\n%s", diff)
	}
	wantAnnotations := map[string]string{
		v1alpha1.AnnotationMigrate: "true", v1alpha1.AnnotationMigration: "move", v1alpha1.AnnotationMigratingFrom: "n1",
		v1alpha1.AnnotationEpoch: "2", v1alpha1.AnnotationOrigin: "uid-source", v1alpha1.AnnotationPinned: "NotIn=n1",
		corev1.PodDeletionCost: "7",
	}
	if diff := cmp.Diff(wantAnnotations, got.Annotations); diff != "" {
		t.Errorf("annotations:\n%s", diff)
	}
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionComplete)
	want := "pod web-5d4-abcde moved from node n1 to node n2 as pod web-5d4-abcde-dm2; frozen for 300ms; 1048576 bytes sent"
	if c.Message != want {
		t.Errorf("outcome %q, want %q", c.Message, want)
	}
}

// A rejected wish changes nothing but itself.
func TestRejectionChangesNothing(t *testing.T) {
	s := named("rejected")
	w := s.begin(t, fault{})
	before := w.pod(oldName)
	w.run()
	if diff := cmp.Diff(before, w.pod(oldName)); diff != "" {
		t.Errorf("the pod was changed:\n%s", diff)
	}
	if w.made != 0 {
		t.Error("a replacement was made")
	}
}

// A second wish for the same pod is rejected while the first is at work, also when
// somebody has taken the first one's claim off the pod.
func TestSecondWish(t *testing.T) {
	for _, claim := range []string{"held", "taken off", "garbled"} {
		w := named("Deployment").begin(t, fault{})
		ctx := context.Background()
		for range 3 {
			if _, err := w.r.Reconcile(ctx, w.request()); err != nil {
				t.Fatal(err)
			}
		}
		p := w.pod(oldName)
		switch claim {
		case "taken off":
			delete(p.Annotations, v1alpha1.AnnotationMoving)
		case "garbled":
			p.Annotations[v1alpha1.AnnotationMoving] = "x"
		}
		w.must(w.api.Update(ctx, p))
		second := wish()
		second.Name, second.UID = "second", "uid-second"
		w.must(w.api.Create(ctx, second))
		request := w.request()
		request.Name = "second"
		if _, err := w.r.Reconcile(ctx, request); err != nil {
			t.Fatal(err)
		}
		w.must(w.api.Get(ctx, request.NamespacedName, second))
		c := meta.FindStatusCondition(second.Status.Conditions, v1alpha1.ConditionAccepted)
		if c == nil || c.Reason != ReasonAlreadyMigrating || second.Status.Phase != v1alpha1.PhaseRejected {
			t.Errorf("claim %s: phase %s, condition %+v, want a rejection", claim, second.Status.Phase, c)
		}
	}
}

// The source's agent does not answer: the pod is deleted when its time is over, and the
// record stays until the agent has spoken or its node is gone.
func TestSourceNeverEnds(t *testing.T) {
	w := named("Deployment").begin(t, fault{})
	w.neverEnds = true
	ctx := context.Background()
	for range 60 {
		if _, err := w.r.Reconcile(ctx, w.request()); err != nil {
			t.Fatal(err)
		}
		w.play()
		w.now = w.now.Add(time.Second)
	}
	m := w.move()
	if !v1alpha1.Finished(m) || m.Status.Phase != v1alpha1.PhaseCompleted || len(m.Finalizers) != 1 {
		t.Fatalf("phase %s, finalizers %v, want Completed with the finalizer on", m.Status.Phase, m.Finalizers)
	}
	if w.pod(oldName) != nil {
		t.Error("the source pod is still there")
	}
	w.must(w.api.Delete(ctx, node("n1")))
	if m := w.run(); len(m.Finalizers) != 0 {
		t.Errorf("finalizers %v after the node is gone", m.Finalizers)
	}
}

// An owner with a pod too many would take an unready replacement first: so it waits.
func TestUnreadyReplacementWaits(t *testing.T) {
	m, p, s := wish(), sourcePod(), sourcePod()
	c := Config{}.WithDefaults()
	at := metav1.NewMicroTime(start)
	m.Status.DecidedAt = &at
	p.Status.Conditions = nil
	unready := sourcePod()
	unready.Status.Conditions = nil
	for _, tt := range []struct {
		name   string
		after  time.Duration
		source *corev1.Pod
		wait   bool
	}{
		{"soon", time.Second, unready, true},
		{"late, but the source counts as ready", time.Hour, s, true},
		{"late, the source is unready too", time.Hour, unready, false},
		{"late, the source is gone", time.Hour, nil, false},
	} {
		got := notYet(m, Facts{Now: start.Add(tt.after)}, c, p, tt.source)
		if (got != nil) != tt.wait {
			t.Errorf("%s: %v, want waiting %t", tt.name, got, tt.wait)
		}
	}
}

// A finished PodMigration is deleted when its time has come, not before.
func TestKeepFor(t *testing.T) {
	w := named("rejected").begin(t, fault{})
	w.run()
	w.r.Config.KeepFor = time.Hour
	ctx := context.Background()
	result, err := w.r.Reconcile(ctx, w.request())
	if err != nil || w.move() == nil || result.RequeueAfter <= 0 || result.RequeueAfter > time.Hour {
		t.Fatalf("result %v, error %v, gone %t", result, err, w.move() == nil)
	}
	w.now = w.now.Add(2 * time.Hour)
	if _, err := w.r.Reconcile(ctx, w.request()); err != nil || w.move() != nil {
		t.Errorf("error %v, gone %t", err, w.move() == nil)
	}
}
