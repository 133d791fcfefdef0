package controller

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

func failed(m *v1alpha1.PodMigration) bool { return m.Status.Target.Failed }

// boots is a source node that comes back without what was in its memory, and without the pod.
func boots(w *world) {
	n := node("n1")
	w.must(w.api.Get(context.Background(), client.ObjectKeyFromObject(n), n))
	n.Status.NodeInfo.BootID = "boot-n1-again"
	w.must(w.api.Status().Update(context.Background(), n))
	deletes(oldName)(w)
}

// retakes is somebody who makes a pod of the lost one's name.
func retakes(w *world) {
	losesNode(w)
	p := sourcePod()
	p.UID, p.OwnerReferences, p.ResourceVersion = "uid-other", nil, ""
	w.must(w.api.Create(context.Background(), p))
}

// coldScenarios are moves that lose the pod's memory on both nodes.
func coldScenarios() []scenario {
	lost := players{targetFails: true, when: failed, then: losesNode}
	return []scenario{
		{name: "both lost", calm: true, bare: true, players: lost, phase: v1alpha1.PhaseAborted, reason: "BothGone"},
		{name: "both lost, to be restarted", bare: true, restart: true, players: lost,
			phase: v1alpha1.PhaseAborted, reason: "BothGone", pods: []string{oldName}},
		{name: "both lost, the source by a boot, to be restarted", calm: true, bare: true, restart: true,
			players: players{targetFails: true, when: failed, then: boots},
			phase:   v1alpha1.PhaseAborted, reason: "BothGone", pods: []string{oldName}},
		{name: "both lost, to be restarted, the name is taken", calm: true, bare: true, restart: true,
			players: players{targetFails: true, when: failed, then: retakes},
			phase:   v1alpha1.PhaseAborted, reason: "BothGone", pods: []string{oldName}},
		{name: "both lost, to be restarted, by its owner", calm: true, restart: true, players: lost,
			phase: v1alpha1.PhaseAborted, reason: "BothGone", pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "deleted, then both lost, to be restarted", calm: true, bare: true, restart: true,
			players: players{targetFails: true, when: failed, then: gracefully(deletes(oldName))},
			phase:   v1alpha1.PhaseAborted, reason: "BothGone"},
		{name: "target lost after the start, to be restarted", calm: true, bare: true, restart: true, players: players{targetLost: true},
			phase: v1alpha1.PhaseLost, reason: "TargetLost", pods: []string{oldName}},
		{name: "target dies after the commit, to be restarted", calm: true, bare: true, restart: true, players: players{targetDies: true},
			phase: v1alpha1.PhaseReturned, reason: "Returned", pods: []string{oldName}},
	}
}

// coldStart: a pod is started anew only when neither copy can run any more, and as its
// owner made it.
func (w *world) coldStart(o client.Object) {
	m, p := w.move(), o.(*corev1.Pod)
	if s := w.pod(oldName); s != nil && s.UID == m.Status.Source.PodUID || !m.Status.Target.Failed && !m.Status.Lost || m.Status.Target.Resumed || m.Status.Returned {
		w.t.Error("a pod was started anew while a copy of it may run")
	}
	for k := range p.Annotations {
		if strings.HasPrefix(k, "drover.dev/") && k != v1alpha1.AnnotationMigrate && k != v1alpha1.AnnotationOnRestoreFailure && k != v1alpha1.AnnotationStartedCold {
			w.t.Errorf("the pod that was started anew has annotation %s", k)
		}
	}
	if w.pod(newName) == nil {
		w.t.Error("the replacement was deleted before the pod was started anew")
	}
}

// The pod that is started anew is the source as it was made, on any node, and both the
// record and the pod say what happened.
func TestColdPod(t *testing.T) {
	w := named("both lost, to be restarted").begin(t, fault{})
	before := w.pod(oldName)
	m := w.run()
	after := w.pod(oldName)
	if after.UID == before.UID || after.Annotations[v1alpha1.AnnotationStartedCold] != string(m.UID) {
		t.Errorf("pod %s, annotations %v, want a new one with its mark", after.UID, after.Annotations)
	}
	want := before.Spec.DeepCopy()
	want.NodeName, want.SchedulerName, want.Hostname = "", v1alpha1.SchedulerName, oldName
	want.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}
	if diff := cmp.Diff(*want, after.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before.Labels, after.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionStartedCold)
	if c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "memory") {
		t.Errorf("condition %+v", c)
	}
	c = meta.FindStatusCondition(named("both lost").begin(t, fault{}).run().Status.Conditions, v1alpha1.ConditionStartedCold)
	if c != nil {
		t.Errorf("nobody asked for it, and there is %+v", c)
	}
}

// What its owner asked for stays asked for; what a move left on it does not.
func TestColdPodKeepsItsOwnersWishes(t *testing.T) {
	p := goodFacts().Pod
	p.OwnerReferences = nil
	wishes := map[string]string{v1alpha1.AnnotationOnRestoreFailure: v1alpha1.OnRestoreFailureRestart, v1alpha1.AnnotationMigrate: "true",
		v1alpha1.AnnotationPeers: "app=db", v1alpha1.AnnotationLogPattern: "timeout", v1alpha1.AnnotationLogPattern + ".proxy": "refused", "own": "x"}
	p.Annotations = maps.Clone(wishes)
	p.Annotations[v1alpha1.AnnotationEpoch], p.Annotations[v1alpha1.AnnotationHandOver] = "3", "{}"
	m := &v1alpha1.PodMigration{}
	m.UID, m.Status.Source.PodName = "u", p.Name
	fresh, err := coldPod(m, p)
	if err != nil || fresh == nil {
		t.Fatalf("%v, %v", fresh, err)
	}
	wishes[v1alpha1.AnnotationStartedCold] = "u"
	if diff := cmp.Diff(wishes, fresh.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

func TestUnknownWishAboutRestores(t *testing.T) {
	f := goodFacts()
	for v, ok := range map[string]bool{"restart": true, "Restart": false, "": false} {
		f.Pod.Annotations[v1alpha1.AnnotationOnRestoreFailure] = v
		if r := Admit(wish(), f); (r == nil) != ok || r != nil && r.Reason != ReasonMalformedAnnotation {
			t.Errorf("%q: %+v", v, r)
		}
	}
}

// A copy that may still run, or be taken back, is never doubled.
func TestNeverAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*v1alpha1.PodMigration, *Facts)
		want   bool
	}{
		{"both gone", func(*v1alpha1.PodMigration, *Facts) {}, true},
		{"the source's node has booted", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.SourceNode = node("n1")
			f.SourceNode.Status.NodeInfo.BootID = "later"
		}, true},
		{"the source's agent has ended it", func(m *v1alpha1.PodMigration, f *Facts) { m.Status.Source.Ended, f.SourceNode = true, node("n1") }, true},
		{"the target's node is gone, unheard", func(m *v1alpha1.PodMigration, f *Facts) { m.Status.Target.Failed, f.TargetNode = false, nil }, true},
		{"the target is lost", func(m *v1alpha1.PodMigration, f *Facts) {
			m.Status.Target.Failed, m.Status.Target.Starting, m.Status.Lost = false, true, true
		}, true},
		{"the source's node is there", func(_ *v1alpha1.PodMigration, f *Facts) { f.SourceNode = node("n1") }, false},
		{"no boot ID was written down", func(m *v1alpha1.PodMigration, f *Facts) { m.Status.Source.BootID, f.SourceNode = "", node("n1") }, false},
		{"the source's object is there", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod = sourcePod() }, false},
		{"the target may run", func(m *v1alpha1.PodMigration, _ *Facts) { m.Status.Target.Failed = false }, false},
		{"the target runs", func(m *v1alpha1.PodMigration, _ *Facts) {
			m.Status.Target.Failed, m.Status.Target.Resumed = false, true
		}, false},
		{"not decided", func(m *v1alpha1.PodMigration, _ *Facts) { m.Status.Decision = v1alpha1.Undecided }, false},
		{"aborted", func(m *v1alpha1.PodMigration, _ *Facts) { m.Status.Decision = v1alpha1.Abort }, false},
		{"returned", func(m *v1alpha1.PodMigration, _ *Facts) { m.Status.Returned = true }, false},
		{"deleted by somebody", func(m *v1alpha1.PodMigration, _ *Facts) {
			setCondition(m, start, v1alpha1.ConditionSourceTerminating, true, ReasonDeletion, "")
		}, false},
	} {
		m, f := preparing()
		m.Status.Decision, m.Status.Target.Failed, m.Status.Source.BootID = v1alpha1.Commit, true, "boot-n1"
		f.Pod, f.SourceNode = nil, nil
		c.change(m, &f)
		if got := neverAgain(m, f); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}
