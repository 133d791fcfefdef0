package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peak"
	"github.com/drover-project/drover/internal/view"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestStatusShowsTheMatrix(t *testing.T) {
	s := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{
		"a": {Alive: true, Received: t0.Add(-time.Second), Recent: peak.Excess{Amount: model.Resources{CPU: .5}, At: t0.Add(-peak.HalfLife)}, State: model.NodeState{
			Load: model.Load{
				Allocatable: model.Resources{CPU: 4, Memory: 8 * model.GiB},
				Requested:   model.Resources{CPU: 1, Memory: model.GiB},
				Used:        model.Resources{CPU: 2.5, Memory: model.GiB},
				Pressure:    0.25,
			},
			Routes: map[model.NodeID]model.RouteTime{
				"b": {RTT: 1500 * time.Microsecond, Samples: 9, Stamp: model.StampKernel},
				"c": {RTT: 3 * time.Millisecond, Samples: 9, Stamp: model.StampUser},
			},
			PodRoutes: map[model.NodeID]model.RouteTime{"c": {RTT: 4 * time.Millisecond, Samples: 9, Stamp: model.StampKernel}},
		}},
		"b": {Alive: true, Received: t0, State: model.NodeState{CannotRestore: "criu is not there"}},
		"c": {},
		"d": {Received: t0.Add(-2 * time.Minute), Phase: model.Suspected, Since: t0.Add(-90 * time.Second), Why: "no member; its kernel answers a"},
	}}
	var out bytes.Buffer
	printNodes(&out, s)
	printRoutes(&out, "NODE PATH", model.PathNode, s)
	printRoutes(&out, "POD PATH", model.PathPod, s)
	for _, want := range []string{
		"1.25 of 4.00",          // 4 less the greater of 1 and 2.5 with half of the recent 0.5
		"7.0 of 8.0 GiB",        // 8 - 1
		"25 %",                  // the pressure
		"no: criu is not there", // b
		"c      not heard   -",  // by an agent that tells no phase
		"d      suspected   90s     2m0s", "no: it is held for suspected: no member; its kernel answers a",
		"1.500 ms", "3.000 ms*", "* stamped", // the matrix, and what the star means
		"NODE PATH", "POD PATH", "a   -   ?   4.000 ms", // the one of pods
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status lacks %q:\n%s", want, out.String())
		}
	}
}

func TestProgressIsPrintedOnce(t *testing.T) {
	at := func(ms int) metav1.MicroTime {
		return metav1.NewMicroTime(t0.Add(time.Duration(ms) * time.Millisecond))
	}
	m := &v1alpha1.PodMigration{Spec: v1alpha1.PodMigrationSpec{PodName: "p"}}
	m.Status.Timeline = []v1alpha1.TimelineEntry{{Step: "Accepted", By: "controller", At: at(0)}, {Step: "Frozen", By: "n1", At: at(250)}}
	var out bytes.Buffer
	p := printer{out: &out}
	p.print(m)
	p.print(m)
	m.Status.Phase, m.Status.Target.Node, m.Status.Target.PodName, m.Status.Bytes = v1alpha1.PhaseCompleted, "n2", "p-dm1", 3<<20
	m.Status.FrozenTime = &metav1.Duration{Duration: 1234 * time.Millisecond}
	p.print(m)
	p.print(m)
	want := "   0.000s  controller   Accepted         \n" +
		"   0.250s  n1           Frozen           \n" +
		"p runs on n2 as p-dm1; frozen for 1.234s, 3.0 MiB moved\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func fakeClient(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(s).WithObjects(objects...).Build()
}

func TestAnOldNameLeadsToTheMovedPod(t *testing.T) {
	move := func(name, from, to string, d v1alpha1.Decision) *v1alpha1.PodMigration {
		m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Spec: v1alpha1.PodMigrationSpec{PodName: from}}
		m.Status.Decision, m.Status.Target.PodName = d, to
		return m
	}
	c := fakeClient(t,
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p-dm5"}},
		move("m1", "p", "p-dm3", v1alpha1.Commit),
		move("m2", "p-dm3", "p-dm4", v1alpha1.Abort),
		move("m3", "p-dm3", "p-dm5", v1alpha1.Commit),
		move("loop", "q", "q", v1alpha1.Commit),
	)
	for name, want := range map[string]string{"p": "p-dm5", "p-dm3": "p-dm5", "p-dm5": "p-dm5", "q": "", "p-dm4": ""} {
		pod, err := currentPod(context.Background(), c, "x", name)
		switch {
		case want == "" && err == nil:
			t.Errorf("%s: found %s, want an error", name, pod.Name)
		case want != "" && (err != nil || pod.Name != want):
			t.Errorf("%s: %v, %v, want %s", name, pod, err, want)
		}
	}
}

func TestOrderOfNonsenseCreatesNothing(t *testing.T) {
	c := fakeClient(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p", UID: "u"}})
	for _, o := range []struct{ pod, to, want string }{
		{"q", "", `no pod "q" in namespace "x"`},
		{"p", "n9", `no node "n9"`},
	} {
		_, err := order(context.Background(), c, "x", o.pod, v1alpha1.PodMigrationSpec{TargetNode: o.to})
		if err == nil || !strings.Contains(err.Error(), o.want) {
			t.Errorf("order(%q, %q): %v, want %q", o.pod, o.to, err, o.want)
		}
	}
	all := &v1alpha1.PodMigrationList{}
	if err := c.List(context.Background(), all); err != nil || len(all.Items) != 0 {
		t.Errorf("%d PodMigrations, %v", len(all.Items), err)
	}
	m, err := order(context.Background(), c, "x", "p", v1alpha1.PodMigrationSpec{PostCopy: true})
	if err != nil || m.Spec.PodUID != "u" {
		t.Errorf("order of a good move: %+v, %v", m, err)
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	for _, args := range [][]string{{"bogus"}, {"migrate"}, {"migrate", "a", "b"}, {"where", ""}, {"explain", "--bogus"}, {"contention"}, {"contention", "n1", "n2"}, {"contention", "n1", "-o", "yaml"}} {
		c := root()
		c.SetArgs(args)
		if err := c.Execute(); !errors.Is(err, errUsage) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want one line that is about usage", args, err)
		}
	}
}
