package placement

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// overlaid gives a picture in which pods are longer apart than their nodes by so much.
func overlaid(s view.Snapshot, longer time.Duration) view.Snapshot {
	for id, n := range s.Nodes {
		n.State.PodRoutes = routes{}
		for to, r := range n.State.Routes {
			r.RTT += longer
			n.State.PodRoutes[to] = r
		}
		s.Nodes[id] = n
	}
	return s
}

// forget takes the pod path to a node away, from both ends.
func forget(s view.Snapshot, nodes ...model.NodeID) {
	for _, gone := range nodes {
		clear(s.Nodes[gone].State.PodRoutes)
		for _, n := range s.Nodes {
			delete(n.State.PodRoutes, gone)
		}
	}
}

// a is 1, 2 and 3 ms from b, c and d by the node path.
func TestOnePathInOneComparison(t *testing.T) {
	type row struct {
		T    time.Duration
		Path model.Path
	}
	half := 500 * time.Microsecond
	stale := func(s view.Snapshot) {
		for _, n := range s.Nodes {
			for to, r := range n.State.PodRoutes {
				r.At = t0.Add(-61 * time.Second)
				n.State.PodRoutes[to] = r
			}
		}
	}
	for _, tt := range []struct {
		name    string
		from    Viewpoint
		nodes   []model.NodeID
		spoil   func(view.Snapshot)
		want    map[model.NodeID]row
		reasons map[model.NodeID]string
	}{
		{name: "the pod path where it is known of all",
			want: map[model.NodeID]row{"b": {ms + half, "pod"}, "c": {2*ms + half, "pod"}, "d": {3*ms + half, "pod"}}},
		{name: "the node path where the pod path is known of none", spoil: func(s view.Snapshot) { forget(s, "a") },
			want: map[model.NodeID]row{"b": {ms, "node"}, "c": {2 * ms, "node"}, "d": {3 * ms, "node"}}},
		{name: "what is stale is not known", spoil: stale,
			want: map[model.NodeID]row{"b": {ms, "node"}, "c": {2 * ms, "node"}, "d": {3 * ms, "node"}}},
		// The median of 2.5 and 3.5: 1 ms by the node path would make b the nearest.
		{name: "one of which it is not known is no nearer for that", spoil: func(s view.Snapshot) { forget(s, "b") },
			want:    map[model.NodeID]row{"b": {3 * ms, "node"}, "c": {2*ms + half, "pod"}, "d": {3*ms + half, "pod"}},
			reasons: map[model.NodeID]string{"b": "no fresh route time to a by the pod path: the node path's 1ms counts, but as no nearer than the other nodes' median of 3ms"}},
		// The median of 1.5 and 2.5 is less than its 3.
		{name: "and as far as its node path is", spoil: func(s view.Snapshot) { forget(s, "d") },
			want:    map[model.NodeID]row{"b": {ms + half, "pod"}, "c": {2*ms + half, "pod"}, "d": {3 * ms, "node"}},
			reasons: map[model.NodeID]string{"d": "no fresh route time to a by the pod path: the node path's 3ms counts, but as no nearer than the other nodes' median of 2ms"}},
		{name: "the node path for all where most have no other", spoil: func(s view.Snapshot) { forget(s, "c", "d") },
			want: map[model.NodeID]row{"b": {ms, "node"}, "c": {2 * ms, "node"}, "d": {3 * ms, "node"}}},
		{name: "and where it is half", nodes: []model.NodeID{"b", "c"}, spoil: func(s view.Snapshot) { forget(s, "c") },
			want: map[model.NodeID]row{"b": {ms, "node"}, "c": {2 * ms, "node"}}},
		{name: "the pod path alone is enough", spoil: func(s view.Snapshot) {
			for _, n := range s.Nodes {
				clear(n.State.Routes)
			}
		}, want: map[model.NodeID]row{"b": {ms + half, "pod"}, "c": {2*ms + half, "pod"}, "d": {3*ms + half, "pod"}}},
		// To a by the pod path: 0.1, 1.5, 2.5, 3.5; to d, whose pod path nobody knows, 3, 2, 1, 0.1.
		{name: "each peer by a path of its own", spoil: func(s view.Snapshot) {
			for _, n := range s.Nodes {
				delete(n.State.PodRoutes, "d")
			}
		}, from: Viewpoint{Peers: map[model.NodeID]float64{"a": 1, "d": 1}}, nodes: []model.NodeID{"a", "b", "c"},
			want: map[model.NodeID]row{"a": {1550 * time.Microsecond, "node"}, "b": {1750 * time.Microsecond, ""}, "c": {1750 * time.Microsecond, ""}}},
		// Means of the pod path: a (1.5+2.5+3.5)/3, b (1.5+1.5+2.5)/3, c (2.5+1.5+1.5)/3.
		{name: "means to all", from: Viewpoint{Peers: map[model.NodeID]float64{}}, nodes: []model.NodeID{"a", "b", "c"},
			want: map[model.NodeID]row{"a": {2*ms + half, "pod"}, "b": {1833333, "pod"}, "c": {1833333, "pod"}}},
		// b (1+1+2)/3 by the node path; a (2.5+3.5)/2 and c (2.5+1.5)/2 by the pod path.
		{name: "means to all of which one is not known", from: Viewpoint{Peers: map[model.NodeID]float64{}}, nodes: []model.NodeID{"a", "b", "c"},
			spoil:   func(s view.Snapshot) { forget(s, "b") },
			want:    map[model.NodeID]row{"a": {3 * ms, "pod"}, "b": {2*ms + half, "node"}, "c": {2 * ms, "pod"}},
			reasons: map[model.NodeID]string{"b": "no fresh route time to the others by the pod path: the node path's 1.33ms counts, but as no nearer than the other nodes' median of 2.5ms"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := overlaid(line(), half)
			if tt.spoil != nil {
				tt.spoil(s)
			}
			if tt.from.Peers == nil {
				tt.from.Source = "a"
			}
			if tt.nodes == nil {
				tt.nodes = []model.NodeID{"b", "c", "d"}
			}
			got, why := map[model.NodeID]row{}, map[model.NodeID]string(nil)
			for _, c := range NewSurvey(s, unit(), t0).Candidates(tt.from, tt.nodes...) {
				got[c.Node] = row{c.Route.Time, c.Route.Path}
				for _, r := range reasons(c) {
					if why == nil {
						why = map[model.NodeID]string{}
					}
					why[c.Node] += r
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("route times (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.reasons, why); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
		})
	}
}

// Computed routes are sums of links of one path, never of both.
func TestComputedRoutesKeepToOnePath(t *testing.T) {
	from := Viewpoint{Source: nth(0)}
	s := overlaid(chain(100), ms)
	got := NewSurvey(s, unit(), t0).Candidates(from, nth(3))[0].Route
	if got.Time != 6*ms || got.Path != model.PathPod {
		t.Errorf("route %+v, want three links of 1+1 ms by the pod path", got)
	}
	delete(s.Nodes[nth(1)].State.PodRoutes, nth(2)) // one end alone has it: no link
	got = NewSurvey(s, unit(), t0).Candidates(from, nth(3))[0].Route
	if got.Time != 3*ms || got.Path != model.PathNode {
		t.Errorf("route %+v, want three links of 1 ms by the node path", got)
	}
	// The mean to the same few, by the pod path: twice that by the node path.
	s = overlaid(chain(100), ms)
	pod := NewSurvey(s, unit(), t0).Candidates(Viewpoint{})
	for i, node := range NewSurvey(chain(100), unit(), t0).Candidates(Viewpoint{}) {
		if d := pod[i].Route.Time - 2*node.Route.Time; d < -1 || d > 1 || pod[i].Route.Path != model.PathPod {
			t.Errorf("%s: mean %+v by the pod path, %v by the node path, want twice that", node.Node, pod[i].Route, node.Route.Time)
		}
	}
}
