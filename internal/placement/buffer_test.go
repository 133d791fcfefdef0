package placement

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// What was in a buffer before changes nothing.
func TestABufferChangesNoResult(t *testing.T) {
	r, b := rand.New(rand.NewSource(9)), NewBuffer()
	for range 20000 {
		p, in := hostile(r)
		if diff := gocmp.Diff(Evaluate(p, in), b.Evaluate(p, in), equalNaN()); diff != "" {
			t.Fatalf("of %+v\n(-without +with a buffer):\n%s", in, diff)
		}
	}
}

func equalNaN() gocmp.Option {
	return gocmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })
}

func TestABufferChangesNoCandidate(t *testing.T) {
	r, b := rand.New(rand.NewSource(9)), NewBuffer()
	known := 0
	for range 300 {
		s := overlaid(scattered(r, 5+r.Intn(90)), ms)
		ids := s.IDs()
		forget(s, ids[r.Intn(len(ids))])
		from := Viewpoint{Source: ids[0]}
		if r.Intn(2) == 0 {
			from.Peers = map[model.NodeID]float64{ids[1]: r.Float64(), ids[3]: 1, "gone": 2}
		}
		v := NewSurvey(s, unit(), t0)
		ids = append(ids, "gone", "nobody")
		r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		want, got := v.Candidates(from, ids...), slices.Clone(b.Candidates(v, from, ids))
		for i := range got {
			if len(got[i].Reasons) == 0 {
				got[i].Reasons = nil
			}
			if got[i].Route.Known {
				known++
			}
		}
		if diff := gocmp.Diff(want, got, equalNaN()); diff != "" {
			t.Fatalf("(-without +with a buffer):\n%s", diff)
		}
	}
	if known < 1000 {
		t.Errorf("%d routes were known, want many", known)
	}
}

// scattered is n nodes in zones of 16 that measure as agents do; some do not.
func scattered(r *rand.Rand, n int) view.Snapshot {
	zones := map[model.NodeID]string{}
	for i := range n {
		zones[nth(i)] = fmt.Sprint(i / 16)
	}
	s := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}
	for id := range zones {
		s.Nodes[id] = heard(nil)
	}
	for _, id := range slices.Sorted(maps.Keys(zones)) {
		node := s.Nodes[id]
		node.State.Load.Used.CPU = model.Cores(r.Float64() * 3)
		s.Nodes[id] = node
		for _, to := range linkstate.Plan(id, zones) {
			if _, known := s.Nodes[id].State.Routes[to]; known || r.Intn(20) == 0 {
				continue
			}
			rtt := ms + time.Duration(r.Intn(int(2*ms)))
			if zones[id] == zones[to] {
				rtt = ms/5 + time.Duration(r.Intn(int(ms/3)))
			}
			route := model.RouteTime{RTT: rtt, Spread: rtt / 50, At: t0}
			s.Nodes[id].State.Routes[to], s.Nodes[to].State.Routes[id] = route, route
		}
	}
	return s
}

func TestRankingTakesNoMemory(t *testing.T) {
	s := scattered(rand.New(rand.NewSource(1)), 300)
	v, b, ids := NewSurvey(s, Defaults(), t0), NewBuffer(), s.IDs()
	for name, from := range map[string]Viewpoint{
		"peers": {Peers: map[model.NodeID]float64{ids[7]: 1, ids[100]: 2, ids[200]: 1}}, "a source": {Source: ids[7]}, "neither": {},
	} {
		if n := testing.AllocsPerRun(10, func() {
			b.Evaluate(Defaults(), b.Candidates(v, from, ids))
		}); n > 0 {
			t.Errorf("with %s: %v allocations", name, n)
		}
	}
}

// Of a thousand peers' nodes the heaviest count, and of equal ones some of everywhere.
func TestPeersAreBounded(t *testing.T) {
	peers := map[model.NodeID]float64{}
	for i := range 1000 {
		peers[nth(i)] = 1
	}
	peers[nth(500)], peers[nth(501)] = 7, 9
	got := slices.Clone(new(Buffer).from(Viewpoint{Peers: peers}))
	if len(got) != MostPeers || !slices.IsSortedFunc(got, func(a, b peer) int { return cmp.Compare(a.node, b.node) }) {
		t.Fatalf("%d peers %v, want %d in order", len(got), got, MostPeers)
	}
	weights, low := map[model.NodeID]float64{}, 0
	for _, p := range got {
		weights[p.node] = p.weight
		if p.node < nth(500) {
			low++
		}
	}
	if weights[nth(501)] != 1 || weights[nth(500)] != 7./9 || low < 8 || low > 24 {
		t.Errorf("peers %v: want the two heaviest, and others of all over", got)
	}
	again := new(Buffer).from(Viewpoint{Peers: peers})
	if !slices.Equal(got, again) {
		t.Errorf("peers %v, then %v", got, again)
	}
}

// What is prepared beside the scheduling of pods is used, and says what would be computed anew.
func TestASurveyIsPreparedInThePlaceOfAnother(t *testing.T) {
	from := Viewpoint{Source: nth(0)}
	first := NewSurvey(chain(100), unit(), t0)
	if first.Ageing(t0.Add(renews(0))) {
		t.Error("nothing is computed yet that could age")
	}
	first.Candidates(from, nth(3))
	if first.Ageing(t0.Add(renews(0)-1)) || !first.Ageing(t0.Add(renews(0))) {
		t.Errorf("it must be time for another after %v", renews(0))
	}
	longer := chain(100)
	for _, e := range [][2]int{{1, 2}, {2, 1}} {
		longer.Nodes[nth(e[0])].State.Routes[nth(e[1])] = model.RouteTime{RTT: 9 * ms, At: t0}
	}
	now := t0.Add(renews(0))
	next := NewSurvey(longer, unit(), now).Like(first)
	if len(next.node.computed.columns) != 1 {
		t.Errorf("%d columns are prepared, want that of n0000", len(next.node.computed.columns))
	}
	used := NewSurvey(longer, unit(), now.Add(time.Second)).After(next)
	if used.node.computed != next.node.computed || used.Candidates(from, nth(3))[0].Route.Time != 11*ms {
		t.Errorf("what was prepared is not used: %+v", used.Candidates(from, nth(3))[0])
	}
}

// A node comes: what was computed still serves, for all the others.
func TestComputedRoutesServeWhenANodeComes(t *testing.T) {
	from := Viewpoint{Source: nth(0)}
	first := NewSurvey(chain(100), unit(), t0)
	first.Candidates(from)
	more := chain(100)
	more.Nodes["a-new-one"] = heard(map[model.NodeID]float64{nth(0): 1})
	second := NewSurvey(more, unit(), t0.Add(time.Second)).After(first)
	for i := 1; i < 100; i++ {
		if got := second.Candidates(from, nth(i))[0].Route.Time; got != time.Duration(i)*ms {
			t.Fatalf("%s is %v away, want %d ms", nth(i), got, i)
		}
	}
	third := NewSurvey(more, unit(), t0.Add(2*time.Second)).After(second)
	if third.node.computed != second.node.computed {
		t.Error("columns are made anew for the same nodes")
	}
}

func TestSortFrom(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for _, n := range []int{0, 1, 2, 50, 1000} {
		for _, from := range []int{1, 7, 13} {
			keys := make([]uint64, n)
			for i := range keys {
				keys[i] = uint64(r.Int63())>>r.Intn(63)<<from | uint64(i)&(1<<from-1)
			}
			want := slices.Clone(keys)
			slices.SortStableFunc(want, func(a, b uint64) int { return cmp.Compare(a>>from, b>>from) })
			got, spare := sortFrom(keys, make([]uint64, n), from)
			if !slices.Equal(got, want) || len(spare) != n {
				t.Errorf("%d keys from bit %d: %v, want %v; %d are spare", n, from, got, want, len(spare))
			}
		}
	}
}
