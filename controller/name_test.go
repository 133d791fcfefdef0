package controller

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

const (
	setName  = "db"
	ownName  = "db-0"
	tempName = "db-0-dm2"
)

func dbSet() *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: setName, UID: "uid-" + setName},
		Spec:       appsv1.StatefulSetSpec{Replicas: ptr(int32(1)), ServiceName: setName, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}},
		Status:     appsv1.StatefulSetStatus{CurrentRevision: "db-1", UpdateRevision: "db-1"},
	}
}

func dbPod() *corev1.Pod {
	p := sourcePod()
	p.Name, p.OwnerReferences = ownName, owner("StatefulSet", "apps/v1", setName)
	p.Spec.Hostname, p.Spec.Subdomain = ownName, setName
	p.Labels = map[string]string{
		"app": "db", appsv1.ControllerRevisionHashLabelKey: "db-1", appsv1.StatefulSetPodNameLabel: ownName, appsv1.PodIndexLabel: "0",
	}
	return p
}

func (w *world) statefulSet() *appsv1.StatefulSet {
	set, err := (&Reconciler{Reader: w.api}).statefulSet(context.Background(), testNamespace, setName)
	w.must(err)
	return set
}

// setController is the StatefulSet controller: it takes a pod of its name for its own, and
// wants its names, of its newest revision.
func (w *world) setController() {
	set := w.statefulSet()
	if set == nil || set.DeletionTimestamp != nil {
		return
	}
	p := w.pod(ownName)
	if p != nil && controllerOf(p) == nil && p.DeletionTimestamp == nil && p.Labels["app"] == "db" {
		p.OwnerReferences = owner("StatefulSet", "apps/v1", "db")
		w.must(w.api.Update(context.Background(), p))
	}
	switch wanted := *set.Spec.Replicas > 0; {
	case p == nil && wanted && !w.held(nameHold(testNamespace, ownName)):
		w.thirds++
		fresh := dbPod()
		fresh.UID = "uid-third"
		fresh.Labels[appsv1.ControllerRevisionHashLabelKey] = set.Status.UpdateRevision
		w.must(w.api.Create(context.Background(), fresh))
	case p == nil || ownerUID(p) != set.UID || p.DeletionTimestamp != nil:
	case !wanted, p.Labels[appsv1.ControllerRevisionHashLabelKey] != set.Status.UpdateRevision:
		w.must(w.api.Delete(context.Background(), p))
	}
}

func changesSet(change func(*appsv1.StatefulSet)) func(*world) {
	return func(w *world) {
		set := w.statefulSet()
		change(set)
		status := set.Status
		w.must(w.api.Update(context.Background(), set))
		set.Status = status
		w.must(w.api.Status().Update(context.Background(), set))
	}
}

func toNone(s *appsv1.StatefulSet)   { s.Spec.Replicas = ptr(int32(0)) }
func rollsSet(s *appsv1.StatefulSet) { s.Status.UpdateRevision = "db-2" }
func dropsSet(w *world)              { w.must(w.api.Delete(context.Background(), w.statefulSet())) }
func lingers(s *appsv1.StatefulSet)  { s.Finalizers = []string{metav1.FinalizerOrphanDependents} }
func orphansSet(w *world)            { changesSet(lingers)(w); dropsSet(w) }

func (w *world) step2() *v1alpha1.PodMigration {
	var newest *v1alpha1.PodMigration
	for _, m := range w.moves() {
		if returnsName(&m) {
			newest = &m
		}
	}
	return newest
}

// between: the first object is gone, the second step is not ordered.
func between(w *world) bool { return w.pod(ownName) == nil && w.step2() == nil }

// inStep2 tells of the newest second step.
func inStep2(is func(*v1alpha1.PodMigration) bool) func(*world) bool {
	return func(w *world) bool { c := w.step2(); return c != nil && is(c) }
}

// deletesGently deletes the pod as kubectl does; kubelet on its node takes its time.
func deletesGently(name string) func(*world) {
	return func(w *world) {
		p := w.pod(name)
		p.Finalizers, p.DeletionGracePeriodSeconds = append(p.Finalizers, grace), ptr(int64(30))
		w.must(w.api.Update(context.Background(), p))
		w.must(w.api.Delete(context.Background(), p, client.GracePeriodSeconds(30)))
	}
}

func nameScenarios() []scenario {
	set := func(s scenario) scenario { s.set, s.old, s.calm = true, ownName, s.name != "StatefulSet"; return s }
	own := []string{ownName}
	return []scenario{
		set(scenario{name: "StatefulSet", phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own}),
		set(scenario{name: "StatefulSet scaled down between the steps", players: players{at: between, then: changesSet(toNone)},
			phase: v1alpha1.PhaseAborted, reason: ReasonOwnerScaledDown}),
		set(scenario{name: "StatefulSet without room for the second step at first", players: players{noRoom: 1},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own}),
		set(scenario{name: "moved pod deleted between the steps", players: players{at: between, then: deletes(tempName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: own, thirds: 1}),
		{name: "bare pod that keeps its name", bare: true, keep: true, phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: []string{oldName}},
	}
}

// lateNameScenarios are stories of which one telling is enough.
func lateNameScenarios() []scenario {
	own := []string{ownName}
	all := []scenario{
		{name: "to a node", change: func(m *v1alpha1.PodMigration) { m.Spec.TargetNode = "n2" },
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own},
		{name: "first step aborted", players: players{noScheduler: true}, phase: v1alpha1.PhaseAborted, reason: ReasonNotBound, pods: own},
		{name: "scaled down after the commit", players: players{when: resumed, then: gracefully(changesSet(toNone))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating},
		{name: "scaled down in the second step", players: players{at: inStep2(waiting), then: changesSet(toNone)},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted},
		{name: "rolling update in the first step", players: players{when: waiting, then: gracefully(changesSet(rollsSet))},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, pods: own, thirds: 1},
		{name: "rolling update between the steps", players: players{at: between, then: changesSet(rollsSet)},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: own, thirds: 1},
		{name: "set deleted between the steps", players: players{at: between, then: dropsSet},
			phase: v1alpha1.PhaseAborted, reason: ReasonOwnerGone},
		{name: "set deleted in the second step", players: players{at: inStep2(committed), then: dropsSet},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted},
		{name: "set deleted without its pods between the steps", players: players{at: between, then: orphansSet},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own},
		{name: "pod deleted in the second step", players: players{at: inStep2(waiting), then: deletesGently(ownName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, pods: own, thirds: 1},
		{name: "moved pod deleted in the second step", players: players{at: inStep2(waiting), then: deletes(tempName)},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: own, thirds: 1},
		{name: "second step cancelled", players: players{at: inStep2(waiting), then: func(w *world) { w.must(w.api.Delete(context.Background(), w.step2())) }},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own},
		{name: "target of the second step dies after its commit", players: players{step2Dies: 1},
			phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own},
		{name: "paused in the second step", players: players{at: between, then: pauses}, phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own},
		{name: "budget spent between the steps", players: players{at: between, then: forbids}, phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own},
		{name: "the hold came too late", players: players{at: between, then: slipsThrough}, phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own},
	}
	for _, no := range refusals() {
		told := waitsFor("WaitingForName", no.Error()[:1000])
		all = append(all,
			scenario{name: "the name is refused for a while: " + no.Error()[:40], players: players{refuses: no, at: told, then: relents},
				phase: v1alpha1.PhaseCompleted, reason: "Moved", pods: own},
			scenario{name: "moved pod deleted while its name is refused: " + no.Error()[:40], players: players{refuses: no, at: told, then: deletes(tempName)},
				phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: own, thirds: 1})
	}
	for i := range all {
		all[i].set, all[i].old = true, ownName
	}
	return all
}

// refusals are answers to a creation of others than the chart's policy.
func refusals() []error {
	says := "admission webhook \"names.example.com\" " + strings.Repeat("says no ", v1alpha1.MaxMessage)
	return []error{
		apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, ownName, errors.New(says)),
		apierrors.NewBadRequest(says),
		apierrors.NewInternalError(errors.New(says)),
	}
}

// waitsFor: the record says so, and is not written again while that is so.
func waitsFor(reason, says string) func(*world) bool {
	version := ""
	return func(w *world) bool {
		m := w.move()
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionComplete)
		told := c != nil && c.Reason == reason && strings.Contains(c.Message, says) && strings.HasSuffix(c.Message, "…")
		was := version
		version = m.ResourceVersion
		return told && version == was
	}
}

func relents(w *world) { w.refuses = nil }

func pauses(w *world) {
	w.must(w.api.Create(context.Background(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: v1alpha1.PauseConfigMap}, Data: map[string]string{"paused": "true"},
	}))
}

// forbids is a budget of the set's pods that allows no disruption.
func forbids(w *world) {
	b := budget(0)
	b.Spec.Selector.MatchLabels = map[string]string{"app": "db"}
	w.must(w.api.Create(context.Background(), b))
}

// slipsThrough is a pod that the set made by an API server that did not know of the hold.
func slipsThrough(w *world) {
	p := dbPod()
	p.UID = "uid-slipped"
	w.must(w.api.Create(context.Background(), p))
}

func TestNameScenarios(t *testing.T) {
	for _, s := range lateNameScenarios() {
		t.Run(s.name, func(t *testing.T) {
			w := s.begin(t, fault{})
			s.check(t, w, w.run())
		})
	}
}

// checkName: who has its name again has it wholly, and nothing is on hold.
func (w *world) checkName(s scenario) {
	w.t.Helper()
	if w.held(nameHold(testNamespace, w.old)) {
		w.t.Error("the name is on hold still")
	}
	p := w.pod(w.old)
	if !s.set || p == nil || s.phase != v1alpha1.PhaseCompleted {
		return
	}
	want := dbPod()
	for k, v := range want.Labels {
		if p.Labels[k] != v {
			w.t.Errorf("label %s is %q, want %q", k, p.Labels[k], v)
		}
	}
	if p.Labels[v1alpha1.LabelReplacement] != "" || p.Spec.Hostname != ownName || p.Spec.Subdomain != setName {
		w.t.Errorf("labels %v, hostname %q, subdomain %q", p.Labels, p.Spec.Hostname, p.Spec.Subdomain)
	}
	if set := w.statefulSet(); set != nil && set.DeletionTimestamp == nil && ownerUID(p) != set.UID {
		w.t.Errorf("owners %v: not the set's", p.OwnerReferences)
	}
	if e := p.Annotations[v1alpha1.AnnotationOrigin]; e != "uid-source" || p.UID == "uid-slipped" {
		w.t.Errorf("UID %s of origin %q: not the pod that moved", p.UID, e)
	}
}

func TestJudgeStatefulSet(t *testing.T) {
	now := metav1.NewTime(start)
	for _, c := range []struct {
		name   string
		change func(*appsv1.StatefulSet)
		want   string
		says   string
	}{
		{"wants it", func(*appsv1.StatefulSet) {}, "", ""},
		{"another", func(s *appsv1.StatefulSet) { s.UID = "x" }, ReasonOwnerGone, "does not exist"},
		{"going", func(s *appsv1.StatefulSet) { s.DeletionTimestamp = &now }, ReasonOwnerGone, "being deleted"},
		{"scaled down", toNone, ReasonOwnerScaledDown, "0 pods from ordinal 0"},
		{"ordinals from 1", func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 1} }, ReasonOwnerScaledDown, "from ordinal 1"},
		{"rolls", rollsSet, ReasonRollingUpdate, "db-2"},
		{"rolls, but leaves this one", func(s *appsv1.StatefulSet) {
			rollsSet(s)
			s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr(int32(1))}
		}, "", ""},
		{"replaces on deletion alone", func(s *appsv1.StatefulSet) {
			rollsSet(s)
			s.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
		}, "", ""},
		{"another name", func(s *appsv1.StatefulSet) { s.Name = "d" }, ReasonUnsupportedOwner, "named"},
	} {
		set, f := dbSet(), goodFacts()
		c.change(set)
		f.Pod, f.StatefulSet = dbPod(), set
		got := Admit(wish(), f)
		if got == nil && c.want == "" {
			continue
		}
		if got == nil || got.Reason != c.want || !strings.Contains(got.Message, c.says) {
			t.Errorf("%s: %+v, want %q that says %q", c.name, got, c.want, c.says)
		}
	}
}

// Nobody but the second step of an acknowledged move may take a pod that is not handed over.
func TestOnlyTheSecondStepIsLetThrough(t *testing.T) {
	parent := other("uid-x", "uid-source")
	parent.Status.Source.PodName, parent.Status.Target.Resumed = "web", true
	for _, c := range []struct {
		name   string
		change func(child, parent *v1alpha1.PodMigration)
		want   string
	}{
		{"its child", func(_, _ *v1alpha1.PodMigration) {}, ""},
		{"a stranger", func(c, _ *v1alpha1.PodMigration) { c.OwnerReferences = nil }, ReasonNotSecondStep},
		{"for another name", func(c, _ *v1alpha1.PodMigration) { c.Spec.KeepName = "other" }, ReasonNotSecondStep},
		{"too early", func(_, p *v1alpha1.PodMigration) { p.Status.Target.Resumed = false }, ReasonNotSecondStep},
		{"without a name", func(c, _ *v1alpha1.PodMigration) { c.Spec.KeepName = "" }, ReasonAlreadyMigrating},
	} {
		m, f, p := wish(), goodFacts(), parent.DeepCopy()
		m.Spec.KeepName, m.OwnerReferences = "web", owner("PodMigration", v1alpha1.GroupVersion.String(), p.Name)
		m.OwnerReferences[0].UID = p.UID
		m.Spec.TargetNode, f.TargetNode = "n1", node("n1")
		f.Pod.Labels, f.Pod.OwnerReferences = map[string]string{v1alpha1.LabelReplacement: string(p.UID)}, nil
		c.change(m, p)
		f.Others = []v1alpha1.PodMigration{*p}
		got := admitHolder(m, f)
		if (got == nil) != (c.want == "") || got != nil && got.Reason != c.want {
			t.Errorf("%s: %+v, want %q", c.name, got, c.want)
		}
		if at := admitTarget(m, f); (at == nil) != returnsName(m) {
			t.Errorf("%s: to its own node: %+v", c.name, at)
		}
	}
}

// Pods that keep apart by their labels keep no second step off its node.
func TestSecondStepDoesNotKeepItselfAway(t *testing.T) {
	s := named("StatefulSet")
	w := s.begin(t, fault{})
	p := w.pod(ownName)
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
		}},
	}}
	w.must(w.api.Update(context.Background(), p))
	w.apart = true
	seen := false
	w.at, w.then = inStep2(begun), func(w *world) {
		seen = true
		for _, name := range []string{tempName, ownName} {
			if l := w.pod(name).Labels; len(l) != 1 || l[v1alpha1.LabelReplacement] == "" {
				t.Errorf("pod %s has the labels %v in the second step, want the mark alone", name, l)
			}
		}
	}
	s.check(t, w, w.run())
	if !seen {
		t.Error("there was no second step")
	}
}

func TestNameBackoff(t *testing.T) {
	last := time.Duration(0)
	for tries := 1; tries < 40; tries++ {
		d := nameBackoff(tries)
		if d < last || d > 5*time.Minute || d <= 0 {
			t.Fatalf("after %s tries %s, before it %s", strconv.Itoa(tries), d, last)
		}
		last = d
	}
}

// moves are all PodMigrations; the newest second step is the last.
func (w *world) moves() []v1alpha1.PodMigration {
	var all v1alpha1.PodMigrationList
	w.must(w.api.List(context.Background(), &all, client.InNamespace(testNamespace)))
	return all.Items
}

// refresh reads a move again; nil when it is gone.
func (w *world) refresh(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
	var now v1alpha1.PodMigration
	if err := w.api.Get(context.Background(), client.ObjectKeyFromObject(m), &now); apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		w.t.Fatal(err)
	}
	return &now
}
