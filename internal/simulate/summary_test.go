package simulate

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func placedOn(node, name, app, peers string) Placement {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID(name), Labels: map[string]string{"app": app}}}
	p.Annotations = map[string]string{"drover.dev/peers": peers}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}}}}
	return Placement{Pod: p, Node: node}
}

// a and b are in one zone, 0.5 ms apart; c in another, 3 ms from a; nobody has measured b to c.
func world(t *testing.T) (*Cluster, view.Snapshot) {
	t.Helper()
	var objects []Object
	s := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}
	route := func(ms float64) model.RouteTime {
		return model.RouteTime{RTT: time.Duration(ms * float64(time.Millisecond)), At: t0.Add(-time.Hour)}
	}
	for name, zone := range map[string]string{"a": "x", "b": "x", "c": "y"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
		n.Status.Capacity = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("10")}
		objects = append(objects, Object{n, "here"})
	}
	s.Nodes["a"] = view.Node{Alive: true, Received: t0.Add(-time.Hour), State: model.NodeState{
		Load:      model.Load{Used: model.Resources{CPU: 3.25}, At: t0.Add(-time.Hour)},
		PodRoutes: map[model.NodeID]model.RouteTime{"b": route(.5), "c": route(3)},
	}}
	objects = append(objects, Object{placedOn("a", "db", "db", "").Pod, "here"})
	c, err := NewCluster(objects)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestSummary(t *testing.T) {
	c, s := world(t)
	all := []Placement{
		placedOn("a", "one", "web", "app=db"),           // on the node itself: the floor, 0.2 ms
		placedOn("b", "two", "web", "app=db"),           // 0.5
		placedOn("c", "three", "web", "app=db,app=q:3"), // (1*3 + 3*3)/4 = 3: q is on a too
		placedOn("a", "q", "q", ""),                     // has no peers
		{Pod: placedOn("", "left", "web", "app=db").Pod, Reason: "no room"},
		placedOn("b", "four", "web", "app=far"), // its peer is on c, and nobody measured that
		placedOn("c", "far", "far", "app="),     // malformed: has none
	}
	j := newJudge(c, s)
	f := newFellows(c, all)
	routes := j.routes(f, all)
	if want := map[int]time.Duration{0: 200 * time.Microsecond, 1: 500 * time.Microsecond, 2: 3 * time.Millisecond}; !cmp.Equal(want, routes) {
		t.Errorf("route times %v, want %v", routes, want)
	}
	want := Summary{
		Pods: 7, Placed: 6, PerNode: map[string]float64{"a": 2, "b": 2, "c": 2}, PerZone: map[string]float64{"x": 4, "y": 2},
		RouteMean: (.2 + .5 + 3) / 3, RouteP99: 3, Routes: 3,
		// On a are db, one and q: 3 of 4 cores, 3 of 8 GiB.
		CPU: Share{"a", .75}, Memory: Share{"a", .375},
		// 0.75 were idle on a, which alone was measured; 2 come.
		Overshoot: 1.25, Measured: 1,
		// one-db, two-db, three-db, three-q, four-far; the last three across.
		Pairs: 5, CrossZone: 3,
	}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
	if diff := cmp.Diff(want, j.summary(all, f, routes), near); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

// Of 150 route times of 1, 2, ... ms the 149th is the first that is not below 99 of a hundred.
func TestPercentile(t *testing.T) {
	c, s := world(t)
	j := newJudge(c, s)
	for n, want := range map[int]float64{1: 1, 99: 99, 100: 99, 101: 100, 150: 149} {
		routes := map[int]time.Duration{}
		for i := range n {
			routes[i] = time.Duration(i+1) * time.Millisecond
		}
		if got := j.summary(nil, newFellows(c, nil), routes).RouteP99; got != want {
			t.Errorf("of %d: %v, want %v", n, got, want)
		}
	}
}

// The mean of runs, and of a pod the node that came most often, the first of equals.
func TestRunsAreMeant(t *testing.T) {
	pod := placedOn("", "p", "web", "").Pod
	var runs []run
	for i, node := range []string{"b", "a", "a", "b", ""} {
		s := Summary{Pods: 1, PerNode: map[string]float64{}, CPU: Share{fmt.Sprint("n", i), float64(i) / 10}}
		if node != "" {
			s.Placed, s.PerNode[node] = 1, 1
		}
		runs = append(runs, run{placements: []Placement{{Pod: pod, Node: node}}, summary: s})
	}
	p := answer("p", []*corev1.Pod{pod}, runs)
	if o := p.Pods[0]; o.Node != "b" || o.Runs != 2 || !cmp.Equal(o.Nodes, map[string]int{"a": 2, "b": 2, "": 1}) {
		t.Errorf("outcome %+v", o)
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
	if s := p.Summary; !near(s.Placed, .8) || !near(s.PerNode["b"], .4) || !near(s.CPU.Share, .2) || s.CPU.Node != "n4" {
		t.Errorf("mean %+v", s)
	}
}
