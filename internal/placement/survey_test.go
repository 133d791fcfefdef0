package placement

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peak"
	"github.com/drover-project/drover/internal/view"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type routes = map[model.NodeID]model.RouteTime

// heard is a healthy node that measured these round trips in milliseconds just now.
func heard(rtt map[model.NodeID]float64) view.Node {
	n := view.Node{Received: t0, Alive: true, State: model.NodeState{
		Load:   model.Load{Allocatable: res(4, 8), At: t0},
		Routes: routes{},
	}}
	for id, t := range rtt {
		n.State.Routes[id] = model.RouteTime{RTT: time.Duration(t * float64(ms)), Spread: ms / 100, At: t0}
	}
	return n
}

// line is a - b - c - d with 1 ms a hop; only the left one of two measured.
func line() view.Snapshot {
	return view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{
		"a": heard(map[model.NodeID]float64{"b": 1, "c": 2, "d": 3}),
		"b": heard(map[model.NodeID]float64{"c": 1, "d": 2}),
		"c": heard(map[model.NodeID]float64{"d": 1}),
		"d": heard(nil),
	}}
}

func times(cs []Candidate) map[model.NodeID]time.Duration {
	ts := map[model.NodeID]time.Duration{}
	for _, c := range cs {
		if c.Route.Known {
			ts[c.Node] = c.Route.Time
		}
	}
	return ts
}

func TestCandidatesRouteTimes(t *testing.T) {
	us := time.Microsecond // the floor of unit() is 100 µs
	for _, tt := range []struct {
		name  string
		from  Viewpoint
		nodes []model.NodeID
		want  map[model.NodeID]time.Duration
	}{
		{
			// a: (1+2+3)/3; b: (1+1+2)/3; c: (2+1+1)/3; d: (3+2+1)/3.
			name: "no peers: the mean to all others",
			want: map[model.NodeID]time.Duration{"a": 2 * ms, "b": 1333333, "c": 1333333, "d": 2 * ms},
		},
		{
			name: "one peer, measured from either end; its own node is at the floor",
			from: Viewpoint{Peers: map[model.NodeID]float64{"b": 7}},
			want: map[model.NodeID]time.Duration{"a": 1 * ms, "b": 100 * us, "c": 1 * ms, "d": 2 * ms},
		},
		{
			// a: (3*0.1 + 1*3)/4; b: (3*1 + 1*2)/4; c: (3*2 + 1*1)/4; d: (3*3 + 1*0.1)/4.
			name: "the weighted mean over peers",
			from: Viewpoint{Peers: map[model.NodeID]float64{"a": 3, "d": 1}},
			want: map[model.NodeID]time.Duration{"a": 825 * us, "b": 1250 * us, "c": 1750 * us, "d": 2275 * us},
		},
		{
			name:  "a move without peers: from the source",
			from:  Viewpoint{Source: "a"},
			nodes: []model.NodeID{"d", "b"},
			want:  map[model.NodeID]time.Duration{"b": 1 * ms, "d": 3 * ms},
		},
		{
			name:  "a move with peers: from the peers",
			from:  Viewpoint{Source: "a", Peers: map[model.NodeID]float64{"d": 1}},
			nodes: []model.NodeID{"b", "c"},
			want:  map[model.NodeID]time.Duration{"b": 2 * ms, "c": 1 * ms},
		},
		{
			name: "weights that make no sense are left out, great ones do not overflow",
			from: Viewpoint{Peers: map[model.NodeID]float64{"a": math.NaN(), "b": -1, "c": 0, "d": math.MaxFloat64, "nowhere": math.Inf(1)}},
			want: map[model.NodeID]time.Duration{"a": 3 * ms, "b": 2 * ms, "c": 1 * ms, "d": 100 * us},
		},
		{
			name: "a peer on a node that nobody knows is left out for all",
			from: Viewpoint{Peers: map[model.NodeID]float64{"a": 1, "nowhere": 5}},
			want: map[model.NodeID]time.Duration{"a": 100 * us, "b": 1 * ms, "c": 2 * ms, "d": 3 * ms},
		},
		{
			name: "only such peers: nothing is known",
			from: Viewpoint{Peers: map[model.NodeID]float64{"nowhere": 5}},
			want: map[model.NodeID]time.Duration{},
		},
		{
			name:  "a node that is not in the picture has no route",
			nodes: []model.NodeID{"a", "stranger"},
			want:  map[model.NodeID]time.Duration{"a": 2 * ms},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cs := NewSurvey(line(), unit(), t0).Candidates(tt.from, tt.nodes...)
			if diff := cmp.Diff(tt.want, times(cs)); diff != "" {
				t.Errorf("route times (-want +got):\n%s", diff)
			}
			for _, c := range cs {
				if !c.Route.Known && len(c.Reasons) == 0 {
					t.Errorf("%s has no route time and no reason", c.Node)
				}
			}
		})
	}
}

func TestMissingRouteToOneOfSeveralPeers(t *testing.T) {
	s := line()
	// c and d lose each other. To d, then, c takes the median of a's 3 ms and b's 2 ms.
	delete(s.Nodes["c"].State.Routes, "d")
	cs := NewSurvey(s, unit(), t0).Candidates(Viewpoint{Peers: map[model.NodeID]float64{"a": 1, "d": 1}}, "a", "b", "c")
	want := map[model.NodeID]time.Duration{
		"a": 1550 * time.Microsecond, // (0.1 + 3) / 2
		"b": 1500 * time.Microsecond, // (1 + 2) / 2
		"c": 2250 * time.Microsecond, // (2 + 2.5) / 2
	}
	if diff := cmp.Diff(want, times(cs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := cs[2].Reasons; len(r) != 1 || r[0].String() != "no fresh route time to d: the other nodes' median of 2.5ms is taken" {
		t.Errorf("reasons %v", r)
	}
}

func TestStaleAndMissing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(s view.Snapshot, n *view.Node)
		want  Kind
	}{
		{"never heard", func(_ view.Snapshot, n *view.Node) { *n = view.Node{Alive: true} }, KindNoState},
		{"dead", func(_ view.Snapshot, n *view.Node) { n.Alive = false }, KindNotAlive},
		{"stale", func(_ view.Snapshot, n *view.Node) { n.Received = t0.Add(-61 * time.Second) }, KindStaleState},
		{"no load yet", func(_ view.Snapshot, n *view.Node) { n.State.Load = model.Load{} }, KindNoLoad},
		{"stale routes on both ends", func(s view.Snapshot, n *view.Node) {
			old := model.RouteTime{RTT: ms, At: t0.Add(-61 * time.Second)}
			n.State.Routes["a"], s.Nodes["a"].State.Routes["c"] = old, old
		}, KindNoRoute},
		{"negative route", func(s view.Snapshot, _ *view.Node) {
			s.Nodes["a"].State.Routes["c"] = model.RouteTime{RTT: -ms, At: t0}
		}, KindNoRoute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := line()
			n := s.Nodes["c"]
			tt.spoil(s, &n)
			s.Nodes["c"] = n
			got := Rank(unit(), NewSurvey(s, unit(), t0).Candidates(Viewpoint{Source: "a"}, "b", "c", "d"))
			c := find(t, got, "c")
			if c.Known || !slices.Contains(kinds(c), tt.want) || !slices.Contains(kinds(c), KindMedian) || c.Points != 50 {
				t.Errorf("%+v, want unknown for %s with the median of 0 and 100", c, tt.want)
			}
			if b := find(t, got, "b"); !b.Known || b.Points != 100 {
				t.Errorf("the others must not suffer: %+v", b)
			}
		})
	}
}

func TestReverseMeasurementStandsInForAStaleOne(t *testing.T) {
	s := line()
	s.Nodes["d"].State.Routes["a"] = model.RouteTime{RTT: 9 * ms, At: t0.Add(-2 * time.Minute)}
	if r := NewSurvey(s, unit(), t0).Route("d", "a"); !r.Known || r.Time != 3*ms {
		t.Errorf("got %+v, want a's fresh 3ms", r)
	}
	s.Nodes["d"].State.Routes["a"] = model.RouteTime{RTT: 9 * ms, At: t0}
	if r := NewSurvey(s, unit(), t0).Route("d", "a"); r.Time != 9*ms {
		t.Errorf("got %+v, want d's own 9ms", r)
	}
}

func TestWithoutMeasurementsAllAreEqual(t *testing.T) {
	for name, s := range map[string]view.Snapshot{
		"empty":       {},
		"members":     {At: t0, Nodes: map[model.NodeID]view.Node{"a": {Alive: true}, "b": {Alive: true}}},
		"loads alone": {At: t0, Nodes: map[model.NodeID]view.Node{"a": heard(nil), "b": heard(nil)}},
	} {
		for _, from := range []Viewpoint{{}, {Source: "a"}, {Peers: map[model.NodeID]float64{"a": 1}}} {
			for _, got := range Rank(unit(), NewSurvey(s, unit(), t0).Candidates(from, "a", "b")) {
				if got.Points != NeutralPoints || len(got.Reasons) == 0 {
					t.Errorf("%s, from %v: %+v", name, from, got)
				}
			}
		}
	}
}

func TestSurveyTakesAnything(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	for range 3000 {
		s := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}
		var ids []model.NodeID
		for i := range r.Intn(6) {
			ids = append(ids, model.NodeID(fmt.Sprint("n", i)))
		}
		for _, id := range ids {
			n := heard(nil)
			n.State.PodRoutes = routes{}
			n.Alive = r.Intn(5) > 0
			n.Received = t0.Add(-time.Duration(r.Intn(120)) * time.Second)
			for _, other := range ids {
				for _, by := range []routes{n.State.Routes, n.State.PodRoutes} {
					if r.Intn(3) > 0 {
						by[other] = model.RouteTime{RTT: time.Duration(r.Int63() - r.Int63()), Spread: time.Duration(r.Int63() - r.Int63()), At: t0}
					}
				}
			}
			s.Nodes[id] = n
		}
		from := Viewpoint{Source: "n0"}
		if r.Intn(2) == 0 {
			from.Peers = map[model.NodeID]float64{"n1": r.NormFloat64(), "n2": math.Inf(r.Intn(2)), "n9": 1}
		}
		cs := NewSurvey(s, unit(), t0).Candidates(from, ids...)
		sane(t, cs, Rank(unit(), cs))
	}
}

func BenchmarkRank(b *testing.B) {
	for _, n := range []int{100, 500, 5000} {
		in := make([]Candidate, n)
		r := rand.New(rand.NewSource(1))
		for i := range in {
			in[i] = cand(model.NodeID(fmt.Sprint("node-", i)), r.Float64()*64, r.Float64()*256, time.Duration(r.Intn(int(5*ms))), ms/20)
		}
		buffer := NewBuffer()
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				buffer.Evaluate(unit(), in)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/node")
		})
	}
}

// 4 cores, of which 1 is in use and 2 more were: half of those count a minute later.
func TestRecentUseCounts(t *testing.T) {
	s := line()
	n := s.Nodes["c"]
	n.State.Load.Used.CPU = 1
	n.Recent = peak.Excess{Amount: model.Resources{CPU: 2, Memory: 4 * model.GiB}, At: t0}
	s.Nodes["c"] = n
	p := unit()
	p.StaleAfter = 2 * peak.HalfLife
	for age, want := range map[time.Duration]model.Resources{0: res(4-1-2, 8-4), peak.HalfLife: res(4-1-1, 8-2)} {
		got := Rank(p, NewSurvey(s, p, t0.Add(age)).Candidates(Viewpoint{}, "c"))[0]
		if diff := cmp.Diff(want, got.Idle); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", age, diff)
		}
	}
}
