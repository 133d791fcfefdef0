package linkstate

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

const fresh = 30 * time.Second

// said is a node that measured these just now.
func said(routes map[model.NodeID]model.RouteTime) view.Node {
	for id, r := range routes {
		if r.At.IsZero() {
			r.At = start
		}
		if r.Stamp == "" {
			r.Stamp = model.StampKernel
		}
		routes[id] = r
	}
	return view.Node{Alive: true, Received: start, State: model.NodeState{Load: model.Load{At: start}, Routes: routes}}
}

type routes = map[model.NodeID]model.RouteTime

func took(rtt time.Duration) model.RouteTime { return model.RouteTime{RTT: rtt} }

func picture(nodes map[model.NodeID]view.Node) view.Snapshot {
	return view.Snapshot{At: start, Nodes: nodes}
}

// chain is a - b - c - d, 1, 2 and 3 ms, and e that nobody reaches.
func chain() map[model.NodeID]view.Node {
	return map[model.NodeID]view.Node{
		"a": said(routes{"b": took(1 * ms)}),
		"b": said(routes{"a": took(1 * ms), "c": took(2 * ms)}),
		"c": said(routes{"b": took(2 * ms), "d": took(3 * ms)}),
		"d": said(routes{"c": took(3 * ms)}),
		"e": said(routes{}),
	}
}

func TestRoutes(t *testing.T) {
	set := func(from, to model.NodeID, r model.RouteTime) func(map[model.NodeID]view.Node) {
		return func(n map[model.NodeID]view.Node) {
			state := n[from].State.Routes
			state[to] = r
			n[from] = said(state)
		}
	}
	type want map[model.NodeID]string
	all := want{"b": "1ms/1", "c": "3ms/2", "d": "6ms/3"}
	for _, tt := range []struct {
		name  string
		spoil []func(map[model.NodeID]view.Node)
		want  want
	}{
		{name: "sums of 1, 2 and 3 ms", want: all},
		{name: "the end counts that says more", spoil: []func(map[model.NodeID]view.Node){set("c", "b", took(5*ms))},
			want: want{"b": "1ms/1", "c": "6ms/2", "d": "9ms/3"}},
		{name: "whoever lies that it is near is as far as the others say",
			spoil: []func(map[model.NodeID]view.Node){set("c", "b", took(0)), set("c", "d", took(1))}, want: all},
		{name: "what one end alone says does not count",
			spoil: []func(map[model.NodeID]view.Node){set("d", "a", took(1)), set("d", "b", took(1)), set("a", "e", took(1))}, want: all},
		{name: "nor does a negative time, whatever the other end says",
			spoil: []func(map[model.NodeID]view.Node){set("d", "c", took(-1))}, want: want{"b": "1ms/1", "c": "3ms/2"}},
		{name: "nor the way to oneself", spoil: []func(map[model.NodeID]view.Node){set("a", "a", took(1))}, want: all},
		{name: "nor one to a node that nobody knows", spoil: []func(map[model.NodeID]view.Node){set("a", "x", took(1))}, want: all},
		{name: "a way round that is shorter counts",
			spoil: []func(map[model.NodeID]view.Node){set("a", "e", took(1*ms)), set("e", "a", took(1*ms)), set("e", "d", took(1*ms)), set("d", "e", took(1*ms))},
			want:  want{"b": "1ms/1", "c": "3ms/2", "d": "2ms/2", "e": "1ms/1"}},
		{name: "but not where the way itself was measured",
			spoil: []func(map[model.NodeID]view.Node){set("a", "d", took(50*ms)), set("d", "a", took(50*ms))},
			want:  want{"b": "1ms/1", "c": "3ms/2", "d": "50ms/1"}},
		{name: "what triangles show is taken off", // 3 + 3 less the shortest link of c: a and b, 1 ms apart, are 3 and 2 from it
			spoil: []func(map[model.NodeID]view.Node){set("a", "c", took(3*ms)), set("c", "a", took(3*ms))},
			want:  want{"b": "1ms/1", "c": "3ms/1", "d": "4ms/2"}},
		{name: "one as long over fewer links is taken",
			spoil: []func(map[model.NodeID]view.Node){set("a", "e", took(4*ms)), set("e", "a", took(4*ms)), set("e", "d", took(2*ms)), set("d", "e", took(2*ms))},
			want:  want{"b": "1ms/1", "c": "3ms/2", "d": "6ms/2", "e": "4ms/1"}},
		{name: "a link too old at one end is none",
			spoil: []func(map[model.NodeID]view.Node){set("d", "c", model.RouteTime{RTT: 3 * ms, At: start.Add(-fresh - 1)})},
			want:  want{"b": "1ms/1", "c": "3ms/2"}},
		{name: "a dead node makes no way",
			spoil: []func(map[model.NodeID]view.Node){func(n map[model.NodeID]view.Node) { b := n["b"]; b.Alive = false; n["b"] = b }}, want: want{}},
		{name: "nor one that was never heard",
			spoil: []func(map[model.NodeID]view.Node){func(n map[model.NodeID]view.Node) { b := n["b"]; b.Received = time.Time{}; n["b"] = b }}, want: want{}},
		{name: "the longest durations do not overflow",
			spoil: []func(map[model.NodeID]view.Node){set("c", "d", took(math.MaxInt64)), set("b", "c", took(math.MaxInt64))},
			want:  want{"b": "1ms/1", "c": time.Duration(math.MaxInt64).String() + "/2", "d": time.Duration(math.MaxInt64).String() + "/3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nodes := chain()
			for _, f := range tt.spoil {
				f(nodes)
			}
			from := NewGraph(picture(nodes), model.PathNode, start, fresh).From("a")
			got := want{}
			for id := range nodes {
				if r, ok := from.To(id); ok {
					got[id] = fmt.Sprintf("%v/%d", r.RTT, r.Hops)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("routes from a (-want +got):\n%s", diff)
			}
			if r, ok := from.To("x"); ok {
				t.Errorf("a route to a node that nobody knows: %+v", r)
			}
		})
	}
	if _, ok := NewGraph(picture(chain()), model.PathNode, start, fresh).From("x").To("a"); ok {
		t.Error("a route from a node that nobody knows")
	}
}

// Spreads of 3 and 4 make 5; the rest is that of the weakest link, in the reader's time.
func TestComputedRouteIsAsGoodAsItsWorstLink(t *testing.T) {
	link := func(rtt, spread time.Duration, samples int, stamp model.Stamp, age time.Duration) model.RouteTime {
		return model.RouteTime{RTT: rtt, Spread: spread, Samples: samples, Stamp: stamp, At: start.Add(-age)}
	}
	nodes := map[model.NodeID]view.Node{
		"a": said(routes{"b": link(9*ms, 1*ms, 50, model.StampKernel, 0)}),
		"b": said(routes{"a": link(10*ms, 3*ms, 40, model.StampKernel, 2*time.Second), "c": link(5*ms, 4*ms, 45, model.StampUser, 0)}),
		"c": said(routes{"b": link(4*ms, 9*ms, 50, model.StampKernel, time.Second)}),
	}
	// All of b's clock is an hour behind.
	b := nodes["b"]
	b.State.Load.At = b.State.Load.At.Add(-time.Hour)
	for id, r := range b.State.Routes {
		r.At = r.At.Add(-time.Hour)
		b.State.Routes[id] = r
	}
	nodes["b"] = b
	got, _ := NewGraph(picture(nodes), model.PathNode, start, fresh).From("a").To("c")
	want := Route{model.RouteTime{RTT: 15 * ms, Spread: 5 * ms, Samples: 40, Stamp: model.StampUser, At: start.Add(-2 * time.Second)}, 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// random is a picture of n nodes that say all sorts of things.
func random(rng *rand.Rand, n int) view.Snapshot {
	s := view.Snapshot{At: start, Nodes: map[model.NodeID]view.Node{}}
	for i := range n {
		said := said(routes{})
		said.Alive = rng.Intn(10) > 0
		s.Nodes[model.NodeID(fmt.Sprint("n", i))] = said
	}
	for _, from := range s.IDs() {
		for _, to := range s.IDs() {
			if rng.Intn(3) > 0 {
				continue
			}
			r := model.RouteTime{RTT: time.Duration(1 + rng.Intn(20)), Spread: time.Duration(rng.Intn(5)), At: start, Stamp: model.StampKernel}
			switch rng.Intn(12) {
			case 0:
				r.RTT = -r.RTT
			case 1:
				r.At = start.Add(-time.Hour)
			case 2:
				r.RTT = 0
			}
			s.Nodes[from].State.Routes[to] = r
			if rng.Intn(4) > 0 {
				s.Nodes[to].State.Routes[from] = r
			}
		}
	}
	return s
}

// The graph agrees with a naive twin (Floyd and Warshall 1962), and gives the same twice.
func TestGraphAgainstNaiveTwin(t *testing.T) {
	computed := 0
	for seed := range int64(300) {
		rng := rand.New(rand.NewSource(seed))
		s := random(rng, 2+rng.Intn(12))
		direct, shortest := twin(s)
		g, again := NewGraph(s, model.PathNode, start, fresh), NewGraph(s, model.PathNode, start, fresh)
		for _, from := range s.IDs() {
			routes := g.From(from)
			for _, to := range s.IDs() {
				got, ok := routes.To(to)
				if same, _ := again.From(from).To(to); same != got {
					t.Fatalf("seed %d: %s to %s: %+v, then %+v", seed, from, to, got, same)
				}
				want, reached := shortest[edge{from, to}]
				if d, measured := direct[edge{from, to}]; measured {
					want = d
				}
				reached = reached && from != to
				if ok != reached || ok && got.RTT != want {
					t.Fatalf("seed %d: %s to %s is %v over %d links (%v), the twin says %v (%v)", seed, from, to, got.RTT, got.Hops, ok, want, reached)
				}
				if _, measured := direct[edge{from, to}]; ok && measured != (got.Hops == 1) {
					t.Fatalf("seed %d: %s to %s, measured %v, leads over %d links", seed, from, to, measured, got.Hops)
				}
				if got.Hops > 1 {
					computed++
				}
			}
		}
	}
	if computed == 0 {
		t.Error("no route was computed")
	}
}

func twin(s view.Snapshot) (direct, shortest map[edge]time.Duration) {
	direct, shortest = map[edge]time.Duration{}, map[edge]time.Duration{}
	good := func(a, b model.NodeID) (model.RouteTime, bool) {
		r, ok := s.Nodes[a].State.Routes[b]
		return r, ok && a != b && s.Nodes[a].Alive && s.Nodes[b].Alive && r.RTT >= 0 && start.Sub(r.At) <= fresh
	}
	for a := range s.Nodes {
		for b := range s.Nodes {
			there, ok := good(a, b)
			back, too := good(b, a)
			if ok && too {
				direct[edge{a, b}] = max(there.RTT, back.RTT)
				shortest[edge{a, b}] = max(there.RTT, back.RTT)
			}
		}
	}
	for k := range s.Nodes {
		access := twinAccess(direct, k)
		for a := range s.Nodes {
			for b := range s.Nodes {
				there, ok := shortest[edge{a, k}]
				on, too := shortest[edge{k, b}]
				if have, known := shortest[edge{a, b}]; ok && too && (!known || there+on-access < have) {
					shortest[edge{a, b}] = there + on - access
				}
			}
		}
	}
	return direct, shortest
}

func twinAccess(direct map[edge]time.Duration, k model.NodeID) time.Duration {
	least := time.Duration(math.MaxInt64)
	var bounds []time.Duration
	for a, ka := range direct {
		if a.a != k {
			continue
		}
		least = min(least, ka)
		for b, kb := range direct {
			if ab, linked := direct[edge{a.b, b.b}]; b.a == k && a.b < b.b && linked {
				bounds = append(bounds, max(0, ka+kb-ab))
			}
		}
	}
	if len(bounds) == 0 {
		return 0
	}
	slices.Sort(bounds)
	return min(least, bounds[(len(bounds)-1)/10])
}

// Whatever a node says, nobody is nearer to one of its honest neighbours over it than that one
// has measured, and no route is shorter than one of its links.
func TestLiarBringsNobodyNearer(t *testing.T) {
	through := 0
	for seed := range int64(300) {
		rng := rand.New(rand.NewSource(seed))
		s := random(rng, 10)
		for id := range s.Nodes {
			s.Nodes["n0"].State.Routes[id] = model.RouteTime{RTT: time.Duration(rng.Intn(40)), At: start, Stamp: model.StampKernel}
		}
		direct, _ := twin(s)
		g := NewGraph(s, model.PathNode, start, fresh)
		for _, from := range s.IDs() {
			routes := g.From(from)
			for _, to := range s.IDs() {
				r, ok := routes.To(to)
				if !ok {
					continue
				}
				for _, l := range links(routes, to) {
					honest := s.Nodes[l.a].State.Routes[l.b]
					if l.a == "n0" {
						honest = s.Nodes[l.b].State.Routes[l.a]
					}
					if l.a == "n0" || l.b == "n0" {
						through++
					}
					if r.RTT < honest.RTT || r.RTT < direct[l] {
						t.Fatalf("seed %d: %s to %s is %v, over a link %v of %v, measured as %v by an honest end", seed, from, to, r.RTT, l, direct[l], honest.RTT)
					}
				}
			}
		}
	}
	if through == 0 {
		t.Error("no route led over the liar")
	}
}

// links are those that a route leads over.
func links(r Routes, to model.NodeID) []edge {
	name := map[int32]model.NodeID{}
	for id, i := range r.graph.index {
		name[i] = id
	}
	if route, _ := r.To(to); route.Hops == 1 {
		return []edge{{name[r.source], to}}
	}
	var all []edge
	for at := r.graph.index[to]; at != r.source; at = r.steps[at].from {
		all = append(all, edge{name[r.steps[at].from], name[at]})
	}
	return all
}

// a, b, c and d are behind one switch, 1, 2, 3 and 4 ms away: every way is the sum of two. One
// over c passes c's own 3 ms there and back for nothing.
func TestAccessIsNotCountedTwice(t *testing.T) {
	pair := func(nodes map[model.NodeID]view.Node, a, b model.NodeID, rtt time.Duration) {
		for _, e := range []edge{{a, b}, {b, a}} {
			n, ok := nodes[e.a]
			if !ok {
				n = said(routes{})
			}
			n.State.Routes[e.b] = model.RouteTime{RTT: rtt, At: start, Stamp: model.StampKernel}
			nodes[e.a] = n
		}
	}
	nodes := map[model.NodeID]view.Node{}
	pair(nodes, "a", "b", 3*ms)
	pair(nodes, "b", "c", 5*ms)
	pair(nodes, "c", "d", 7*ms)
	// Without triangles nothing is known of anybody's access.
	if r, _ := NewGraph(picture(nodes), model.PathNode, start, fresh).From("a").To("d"); r.RTT != 15*ms {
		t.Errorf("a to d is %v, want 3+5+7 ms", r.RTT)
	}
	pair(nodes, "a", "c", 4*ms)
	// At c: 4+5-3 = 6, no more than 4. Over c alone: 4+7-4, where the truth is 1+4 = 5.
	for _, e := range []edge{{"a", "d"}, {"d", "a"}} {
		if r, _ := NewGraph(picture(nodes), model.PathNode, start, fresh).From(e.a).To(e.b); r.RTT != 7*ms || r.Hops != 2 {
			t.Errorf("%s to %s is %v over %d links, want 4+7-4 ms over 2", e.a, e.b, r.RTT, r.Hops)
		}
	}
}

// large is a picture of n nodes in zones of 16, each with the routes of its plan.
func large(n int) view.Snapshot {
	rng := rand.New(rand.NewSource(1))
	s := view.Snapshot{At: start, Nodes: map[model.NodeID]view.Node{}}
	zones := cluster(n, n/16+1)
	for a := range zones {
		own := routes{}
		for _, b := range Plan(a, zones) {
			own[b] = took(time.Duration(rng.Intn(int(10 * ms))))
		}
		s.Nodes[a] = said(own)
	}
	return s
}

func BenchmarkGraph(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		s := large(n)
		links := 0
		for _, node := range s.Nodes {
			links += len(node.State.Routes)
		}
		b.Run(fmt.Sprintf("new/nodes=%d", n), func(b *testing.B) {
			for b.Loop() {
				NewGraph(s, model.PathNode, start, fresh)
			}
			b.ReportMetric(float64(links)/float64(n), "links/node")
		})
		g := NewGraph(s, model.PathNode, start, fresh)
		b.Run(fmt.Sprintf("from/nodes=%d", n), func(b *testing.B) {
			for b.Loop() {
				g.From("node-0")
			}
		})
	}
}
