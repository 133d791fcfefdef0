package controller

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

const siblingName = "web-sibling"

// budget allows so many disruptions. A sibling of the pod is being evicted by somebody else.
func budget(allowed int32) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "web", UID: "uid-budget"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Status: policyv1.PodDisruptionBudgetStatus{
			DisruptionsAllowed: allowed, DesiredHealthy: 1 - allowed, CurrentHealthy: 1, ExpectedPods: 2,
			DisruptedPods: map[string]metav1.Time{siblingName: metav1.NewTime(start)},
		},
	}
}

func sibling() *corev1.Pod {
	p := sourcePod()
	p.Name, p.UID, p.OwnerReferences = siblingName, types.UID("uid-sibling"), nil
	return p
}

// wants sets how many pods the budget wants healthy.
func wants(healthy int32) func(*world) {
	return func(w *world) {
		b := w.pdb("web")
		b.Status.DesiredHealthy = healthy
		b.Status.DisruptionsAllowed = max(0, b.Status.CurrentHealthy-healthy)
		w.must(w.api.Status().Update(context.Background(), b))
	}
}

var spends, allows = wants(1), wants(0)

func unguards(w *world) { w.must(w.api.Delete(context.Background(), w.pdb("web"))) }

func guardsTwice(w *world) {
	b := budget(1)
	b.Name, b.UID, b.ResourceVersion = "web-2", "uid-budget-2", ""
	w.must(w.api.Create(context.Background(), b))
}

func guardsFull(w *world) {
	b := budget(0)
	b.Status.DisruptedPods = nil
	w.must(w.api.Create(context.Background(), b))
}

// pdb reads a budget; nil when there is none.
func (w *world) pdb(name string) *policyv1.PodDisruptionBudget {
	var b policyv1.PodDisruptionBudget
	err := w.api.Get(context.Background(), types.NamespacedName{Namespace: testNamespace, Name: name}, &b)
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.must(err)
	return &b
}

// disruption is the disruption controller: it counts, and drops old entries.
func (w *world) disruption() {
	b := w.pdb("web")
	if b == nil {
		return
	}
	var pods corev1.PodList
	w.must(w.api.List(context.Background(), &pods, client.InNamespace(testNamespace), client.MatchingLabels{"app": "web"}))
	was := b.Status.DisruptedPods
	b.Status.DisruptedPods, b.Status.CurrentHealthy = map[string]metav1.Time{}, 0
	for i := range pods.Items {
		p := &pods.Items[i]
		at, has := was[p.Name]
		switch {
		case p.DeletionTimestamp != nil:
		case has && at.Add(2*time.Minute).After(w.now):
			b.Status.DisruptedPods[p.Name] = at
		case podReady(p):
			b.Status.CurrentHealthy++
		}
	}
	b.Status.DisruptionsAllowed = max(0, b.Status.CurrentHealthy-b.Status.DesiredHealthy)
	w.must(w.api.Status().Update(context.Background(), b))
}

// budgetStatus holds what an eviction relies on.
func (w *world) budgetStatus(ctx context.Context, b *policyv1.PodDisruptionBudget) error {
	was := w.pdb(b.Name)
	if b.ResourceVersion == "" {
		w.t.Error("a budget was written without resourceVersion")
	}
	if err := w.api.Status().Update(ctx, b); err != nil {
		return err
	}
	before, after := maps.Clone(was.Status.DisruptedPods), maps.Clone(b.Status.DisruptedPods)
	_, had := before[oldName]
	_, has := after[oldName]
	delete(before, oldName)
	delete(after, oldName)
	if !maps.Equal(before, after) {
		w.t.Errorf("others' entries were changed from %v to %v", before, after)
	}
	took := was.Status.DisruptionsAllowed - b.Status.DisruptionsAllowed
	if want := int32(0); took != want && (had || !has) || !had && has && took != 1 || b.Status.DisruptionsAllowed < 0 {
		w.t.Errorf("entry there before: %t, after: %t; %d disruptions were taken, %d are left", had, has, took, b.Status.DisruptionsAllowed)
	}
	return nil
}

// entryBeforeAgents: once the target is named its agent lets the source's freeze.
func (w *world) entryBeforeAgents(m *v1alpha1.PodMigration) {
	b := w.pdb("web")
	if b == nil || returnsName(m) { // a second step asks for nothing
		return
	}
	if _, has := b.Status.DisruptedPods[m.Status.Source.PodName]; !has {
		w.t.Error("the agents were told of the target before the budget was reserved")
	}
}

// guarded: a held source counts as disrupted, whatever happens, unless the replacement counts in its place.
func (w *world) guarded() {
	m, b := w.move(), w.pdb("web")
	if m == nil || b == nil || m.Status.Budget == nil || v1alpha1.Finished(m) {
		return
	}
	p := w.pod(oldName)
	if s := &m.Status; !s.Target.Waiting || s.Source.Released || p == nil || p.DeletionTimestamp != nil || released(m, p) {
		return
	}
	if _, has := b.Status.DisruptedPods[oldName]; !has {
		w.t.Errorf("at %s the source is held and does not count as disrupted", w.now.Sub(start))
	}
}

// entriesLeft: in the end nothing of the move is in a budget.
func (w *world) entriesLeft() {
	for _, name := range []string{"web", "web-2"} {
		if b := w.pdb(name); b != nil {
			if at, has := b.Status.DisruptedPods[oldName]; has {
				w.t.Errorf("the entry of %s was left in budget %s", at.Sub(start), name)
			}
		}
	}
}

// budgetScenarios are moves of pods that a budget guards.
func budgetScenarios() []scenario {
	return []scenario{
		{name: "with a budget", budget: budget(1), phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "bare pod with a budget", calm: true, bare: true, budget: budget(1), phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "the budget allows none", calm: true, budget: budget(0),
			phase: v1alpha1.PhaseAborted, reason: ReasonDisruptionBudget, pods: []string{oldName}},
		{name: "the budget is spent while the replacement gets its node", calm: true, budget: budget(1), players: players{unbound: 3, when: begun, then: spends},
			phase: v1alpha1.PhaseAborted, reason: ReasonDisruptionBudget, pods: []string{oldName}},
		{name: "the budget allows one in time", budget: budget(0), players: players{when: accepted, then: allows},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "the budget is deleted in the middle", calm: true, budget: budget(1), players: players{when: waiting, then: unguards},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{newName}},
		{name: "a second budget in the middle", calm: true, budget: budget(1), players: players{when: placed, then: guardsTwice},
			phase: v1alpha1.PhaseAborted, reason: ReasonSeveralDisruptionBudgets, pods: []string{oldName}},
		{name: "a full budget appears in the middle", calm: true, players: players{when: placed, then: guardsFull},
			phase: v1alpha1.PhaseAborted, reason: ReasonDisruptionBudget, pods: []string{oldName}},
		{name: "cancelled with a budget", budget: budget(1), players: players{when: waiting, then: cancels}, gone: true, pods: []string{oldName}},
		{name: "target dies after the commit, with a budget", calm: true, budget: budget(1), players: players{targetDies: true},
			phase: v1alpha1.PhaseReturned, reason: "Returned", pods: []string{oldName}},
	}
}
