package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// scenario is one story with its end.
type scenario struct {
	name    string
	bare    bool
	restart bool // the pod's annotation on-restore-failure
	job     bool
	set     bool
	keep    bool
	old     string // name of the source; empty: oldName
	budget  *policyv1.PodDisruptionBudget
	// keeps is for how long the pod asks to keep its connections; required: rather no move. never:
	// its processes are not started anew. closed is for what reason they are not kept, lease for
	// what reason the lease of its old address ends.
	keeps           string
	required, never bool
	closed, lease   string
	change          func(m *v1alpha1.PodMigration)
	before          func(*world)
	players         players
	// the end
	phase  v1alpha1.Phase
	reason string // of the condition Complete
	pods   []string
	thirds int
	// calm: the story is like another, and no calls need to fail in it.
	calm bool
	gone bool // the PodMigration
}

func resumed(m *v1alpha1.PodMigration) bool   { return m.Status.Target.Resumed }
func waiting(m *v1alpha1.PodMigration) bool   { return m.Status.Target.Waiting }
func committed(m *v1alpha1.PodMigration) bool { return m.Status.Decision == v1alpha1.Commit }
func placed(m *v1alpha1.PodMigration) bool    { return m.Status.Target.Node != "" }
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

// gracefully lets something happen that deletes the source, whose kubelet takes a while to
// end it: so its deletion is seen before it is gone.
func gracefully(then func(*world)) func(*world) {
	return func(w *world) {
		if p := w.pod(w.old); p != nil {
			p.Finalizers = append(p.Finalizers, grace)
			w.must(w.api.Update(context.Background(), p))
		}
		then(w)
	}
}

// beforeResume deletes the source after the commit; it is gone before the target resumes.
func beforeResume(deletion func(*world)) players {
	return players{slow: 3, when: committed, then: gracefully(deletion)}
}

// startsCold is a runtime on the target that knows nothing of the move.
func startsCold(w *world) {
	p := w.pod(newName)
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = sourcePod().Status.ContainerStatuses
	w.must(w.api.Status().Update(context.Background(), p))
}

// drains deletes the source as kubectl drain --disable-eviction does it.
func drains(w *world) {
	n := node("n1")
	n.Spec.Unschedulable = true
	w.must(w.api.Update(context.Background(), n))
	deletes(oldName)(w)
}

// evicts deletes the source as the API server does it for kubectl drain and a preemption.
func evicts(w *world) {
	p := w.pod(oldName)
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI",
	})
	w.must(w.api.Status().Update(context.Background(), p))
	deletes(oldName)(w)
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
	return append(slices.Concat(jobScenarios(), nameScenarios(), budgetScenarios(), coldScenarios(), endScenarios(), leaseScenarios(), loadingScenarios()), []scenario{
		{name: "Deployment", phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "to a node", change: func(m *v1alpha1.PodMigration) { m.Spec.TargetNode = "n2" },
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "bare pod", bare: true, phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "ready before the acknowledgement", players: players{readyEarly: true},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
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
		{name: "replacement started cold", players: players{noWaiter: true, when: placed, then: startsCold},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementStartedCold, pods: []string{oldName}},
		{name: "rolling update in the middle", players: players{when: waiting, then: rolls},
			phase: v1alpha1.PhaseAborted, reason: ReasonRollingUpdate, pods: []string{oldName}},
		{name: "cancelled", players: players{when: begun, then: cancels}, gone: true, pods: []string{oldName}},
		{name: "cancelled too late", players: players{when: committed, then: cancels}, gone: true, pods: []string{newName}},
		{name: "target dies after the commit", players: players{targetDies: true},
			phase: v1alpha1.PhaseReturned, reason: "Returned", pods: []string{oldName}},
		{name: "target lost after the start", players: players{targetLost: true},
			phase: v1alpha1.PhaseLost, reason: "TargetLost", pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "target lost after the start, bare pod", bare: true, players: players{targetLost: true},
			phase: v1alpha1.PhaseLost, reason: "TargetLost"},
		{name: "source deleted after the commit", players: players{when: resumed, then: gracefully(deletes(oldName))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "bare source deleted after the commit", bare: true, players: players{when: resumed, then: gracefully(deletes(oldName))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "scaled to 0 after the commit", players: players{when: resumed, then: gracefully(scales(0))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "source deleted between commit and resume", players: beforeResume(deletes(oldName)),
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "source evicted between commit and resume", players: beforeResume(evicts),
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}, thirds: 1},
		{name: "bare source evicted between commit and resume", bare: true, players: beforeResume(evicts),
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "source deleted from a cordoned node", players: beforeResume(drains),
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}, thirds: 1},
		{name: "source evicted after the resume", players: players{when: resumed, then: gracefully(evicts)},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}, thirds: 1},
		{name: "source gone after the commit, nobody saw why", players: players{when: resumed, then: deletes(oldName)},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}, thirds: 1},
		{name: "source node gone after the commit", players: players{when: resumed, then: losesNode},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", thirds: 1, pods: []string{newName}},
		{name: "replacement deleted after the commit", players: players{when: resumed, then: deletes(newName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: []string{"web-5d4-third1"}, thirds: 1},
	}...)
}

func named(name string) scenario {
	all := scenarios()
	return all[slices.IndexFunc(all, func(s scenario) bool { return s.name == name })]
}

// begin makes the world that a scenario starts in.
func (s scenario) begin(t *testing.T, f fault) *world {
	m, p := wish(), sourcePod()
	if s.change != nil {
		s.change(m)
	}
	objects := []client.Object{m, p, node("n1"), node("n2"), node("n3"), agent("n1"), agent("n2"), agent("n3")}
	objects = append(objects, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: v1alpha1.HoldsConfigMap}})
	if s.restart {
		p.Annotations[v1alpha1.AnnotationOnRestoreFailure] = v1alpha1.OnRestoreFailureRestart
		p.Spec.InitContainers = []corev1.Container{{Name: "init"}}
	}
	switch {
	case s.bare:
		p.OwnerReferences = nil
		if s.keep {
			p.Annotations[v1alpha1.AnnotationKeepName] = "true"
		}
	case s.set:
		*p = *dbPod()
		m.Spec.PodName = p.Name
		objects = append(objects, dbSet())
	case s.job:
		*p = *jobPod()
		objects = append(objects, sumJob())
	default:
		objects = append(objects, replicaSet(), deployment())
	}
	if s.budget != nil {
		objects = append(objects, s.budget.DeepCopy(), sibling())
	}
	if s.keeps != "" {
		objects = append(objects, s.asks(p)...)
	}
	w := newWorld(t, objects...)
	w.players, w.fault = s.players, f
	if s.before != nil {
		s.before(w)
	}
	if s.old != "" {
		w.old = s.old
	}
	if s.set || s.keep {
		w.later = 2
	}
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
		slices.Sort(conditions) // a map by type, whose order says nothing
		m.Status.Timeline, m.Status.Conditions, m.Status.DecidedAt, m.Status.Target.Deadline = nil, nil, nil, nil
		if m.Status.Connections != nil {
			m.Status.Connections.Until = nil
		}
		if m.Status.Budget != nil {
			m.Status.Budget.ReservedAt = metav1.Time{}
		}
		// How long something took is part of these words.
		m.Status.DecisionMessage = ""
		if m.Status.Decision == v1alpha1.Abort {
			// How far the agents had come, and were asked to go back.
			m.Status.Source.Offered, m.Status.Source.Released = false, false
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
	if s.set {
		w.setController()
		w.checkName(s)
	}
	var names []string
	w.entriesLeft()
	for name := range maps.Keys(w.state()) {
		if p, ok := strings.CutPrefix(name, "pod "); ok && p != siblingName {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, s.pods) {
		t.Errorf("pods %v are left, want %v", names, s.pods)
	}
	if p := w.pod(w.old); p != nil && p.Annotations[v1alpha1.AnnotationMoving] != "" {
		t.Error("the source is still claimed")
	}
	w.checkJob(s)
	w.checkLease(s, m)
	if w.thirds != s.thirds {
		t.Errorf("the owner made %d pods, want %d", w.thirds, s.thirds)
	}
}
