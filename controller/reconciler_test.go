package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// scenario is one story with its end.
type scenario struct {
	name    string
	bare    bool
	change  func(m *v1alpha1.PodMigration)
	players players
	// the end
	phase  v1alpha1.Phase
	reason string // of the condition Complete
	pods   []string
	thirds int
	gone   bool // the PodMigration
}

func resumed(m *v1alpha1.PodMigration) bool   { return m.Status.Target.Resumed }
func waiting(m *v1alpha1.PodMigration) bool   { return m.Status.Target.Waiting }
func committed(m *v1alpha1.PodMigration) bool { return m.Status.Decision == v1alpha1.Commit }
func begun(m *v1alpha1.PodMigration) bool     { return m.Status.Target.PodUID != "" }

const (
	oldName = "web-5d4-abcde"
	newName = "web-5d4-abcde-dm2"
)

func deletes(name string) func(*world) {
	return func(w *world) {
		if p := w.pod(name); p != nil {
			w.must(w.api.Delete(context.Background(), p))
		}
	}
}

func scales(to int32) func(*world) {
	return func(w *world) {
		rs := replicaSet()
		w.must(w.api.Get(context.Background(), client.ObjectKeyFromObject(rs), rs))
		rs.Spec.Replicas = &to
		w.must(w.api.Update(context.Background(), rs))
	}
}

func cancels(w *world) { w.must(w.api.Delete(context.Background(), w.move())) }

// rolls begins a rolling update.
func rolls(w *world) {
	d := deployment()
	w.must(w.api.Get(context.Background(), client.ObjectKeyFromObject(d), d))
	d.Spec.Template.Spec.Containers[0].Image = "web:2"
	w.must(w.api.Update(context.Background(), d))
}

// losesNode takes the source's node away, as a cloud does, and its pod with it.
func losesNode(w *world) {
	w.must(w.api.Delete(context.Background(), node("n1")))
	deletes(oldName)(w)
}

func scenarios() []scenario {
	return []scenario{
		{name: "Deployment", phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "to a node", change: func(m *v1alpha1.PodMigration) { m.Spec.TargetNode = "n2" },
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "bare pod", bare: true, phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "rejected", change: func(m *v1alpha1.PodMigration) { m.Spec.TargetNode = "nope" },
			phase: v1alpha1.PhaseRejected, reason: ReasonNodeNotFound, pods: []string{oldName}},
		{name: "nobody schedules", players: players{noScheduler: true},
			phase: v1alpha1.PhaseAborted, reason: ReasonNotBound, pods: []string{oldName}},
		{name: "never ready to commit", players: players{noCommit: true, when: waiting, then: func(w *world) { w.now = w.now.Add(time.Hour) }},
			phase: v1alpha1.PhaseAborted, reason: ReasonPrepareDeadline, pods: []string{oldName}},
		{name: "wrong node", change: func(m *v1alpha1.PodMigration) { m.Spec.TargetNode = "n3" },
			phase: v1alpha1.PhaseAborted, reason: ReasonWrongNode, pods: []string{oldName}},
		{name: "source deleted in the middle", players: players{when: waiting, then: deletes(oldName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodGone, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "replacement deleted in the middle", players: players{when: waiting, then: deletes(newName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: []string{oldName}},
		{name: "rolling update in the middle", players: players{when: waiting, then: rolls},
			phase: v1alpha1.PhaseAborted, reason: ReasonRollingUpdate, pods: []string{oldName}},
		{name: "cancelled", players: players{when: begun, then: cancels}, gone: true, pods: []string{oldName}},
		{name: "cancelled too late", players: players{when: committed, then: cancels}, gone: true, pods: []string{newName}},
		{name: "target dies after the commit", players: players{targetDies: true},
			phase: v1alpha1.PhaseReturned, reason: "Returned", pods: []string{oldName}},
		{name: "source deleted after the commit", players: players{when: resumed, then: deletes(oldName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "bare source deleted after the commit", bare: true, players: players{when: resumed, then: deletes(oldName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "scaled to 0 after the commit", players: players{when: resumed, then: scales(0)},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "source node gone after the commit", players: players{when: resumed, then: losesNode},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", thirds: 1, pods: []string{newName}},
		{name: "replacement deleted after the commit", players: players{when: resumed, then: deletes(newName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: []string{"web-5d4-third1"}, thirds: 1},
	}
}

// begin makes the world that a scenario starts in.
func (s scenario) begin(t *testing.T, f fault) *world {
	m, p := wish(), sourcePod()
	if s.change != nil {
		s.change(m)
	}
	objects := []client.Object{m, p, node("n1"), node("n2"), node("n3"), agent("n1"), agent("n2"), agent("n3")}
	if s.bare {
		p.OwnerReferences = nil
	} else {
		objects = append(objects, replicaSet(), deployment())
	}
	w := newWorld(t, objects...)
	w.players, w.fault = s.players, f
	return w
}

// state is what is left of everything at the end, without what differs from run to run.
func (w *world) state() map[string]any {
	out := map[string]any{}
	var pods corev1.PodList
	w.must(w.api.List(context.Background(), &pods, client.InNamespace(testNamespace)))
	for _, p := range pods.Items {
		p.ResourceVersion, p.CreationTimestamp = "", metav1.Time{}
		out["pod "+p.Name] = p
	}
	if m := w.move(); m != nil {
		var steps []string
		for _, e := range m.Status.Timeline {
			steps = append(steps, e.Step)
		}
		var conditions []string
		for _, c := range m.Status.Conditions {
			conditions = append(conditions, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
		}
		m.Status.Timeline, m.Status.Conditions, m.Status.DecidedAt, m.Status.Target.Deadline = nil, nil, nil, nil
		// How long something took is part of these words.
		m.Status.DecisionMessage = ""
		if m.Status.Decision == v1alpha1.Abort {
			m.Status.Source.Offered = false // how far the agents had come
		}
		out["record"], out["steps"], out["conditions"], out["finalizers"] = m.Status, steps, conditions, m.Finalizers
	}
	return out
}

func (s scenario) check(t *testing.T, w *world, m *v1alpha1.PodMigration) {
	t.Helper()
	if (m == nil) != s.gone {
		t.Fatalf("PodMigration gone: %t, want %t", m == nil, s.gone)
	}
	if m != nil {
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionComplete)
		if m.Status.Phase != s.phase || c.Reason != s.reason {
			t.Errorf("ended as %s, %s (%s), want %s, %s", m.Status.Phase, c.Reason, c.Message, s.phase, s.reason)
		}
		if c.Message == "" || strings.Contains(c.Message, "\n") || strings.Contains(c.Message, "%!") {
			t.Errorf("outcome %q is not one line", c.Message)
		}
	}
	var names []string
	for name := range maps.Keys(w.state()) {
		if p, ok := strings.CutPrefix(name, "pod "); ok {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, s.pods) {
		t.Errorf("pods %v are left, want %v", names, s.pods)
	}
	if w.thirds != s.thirds {
		t.Errorf("the owner made %d pods, want %d", w.thirds, s.thirds)
	}
}

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
	s := scenarios()[0]
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
	s := scenarios()[3]
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

// A second wish for the same pod is rejected while the first is at work.
func TestSecondWish(t *testing.T) {
	w := scenarios()[0].begin(t, fault{})
	ctx := context.Background()
	for range 3 {
		if _, err := w.r.Reconcile(ctx, w.request()); err != nil {
			t.Fatal(err)
		}
	}
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
		t.Errorf("phase %s, condition %+v, want a rejection", second.Status.Phase, c)
	}
}

// The source's agent does not answer: the pod is deleted when its time is over, and the
// record stays until the agent has spoken or its node is gone.
func TestSourceNeverEnds(t *testing.T) {
	w := scenarios()[0].begin(t, fault{})
	w.neverEnds = true
	ctx := context.Background()
	for range 60 {
		if _, err := w.r.Reconcile(ctx, w.request()); err != nil {
			t.Fatal(err)
		}
		w.play(w.move())
		w.now = w.now.Add(time.Second)
	}
	m := w.move()
	if !Finished(m) || m.Status.Phase != v1alpha1.PhaseCompleted || len(m.Finalizers) != 1 {
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
	w := scenarios()[3].begin(t, fault{})
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
