package placement

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

func nth(i int) model.NodeID { return model.NodeID(fmt.Sprintf("n%04d", i)) }

// chain is n nodes, each 1 ms from the next.
func chain(n int) view.Snapshot {
	s := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}
	for i := range n {
		near := map[model.NodeID]float64{}
		for _, j := range []int{i - 1, i + 1} {
			if j >= 0 && j < n {
				near[nth(j)] = 1
			}
		}
		s.Nodes[nth(i)] = heard(near)
	}
	return s
}

func reasons(c Candidate) (all []string) {
	for _, r := range c.Reasons {
		all = append(all, r.String())
	}
	return all
}

func TestComputedRoutes(t *testing.T) {
	from := Viewpoint{Source: nth(0)}
	many := linkstate.FullMesh + 1
	for _, tt := range []struct {
		name    string
		n       int
		spoil   func(view.Snapshot)
		want    Route // from n0000 to n0003
		reasons []string
	}{
		{name: "measured where everybody probes everybody, or not known", n: many - 1,
			reasons: []string{"no fresh route time to this node from n0000"}},
		// 3 ms; spreads of 0.01 ms each: sqrt(3) * 0.01.
		{name: "over three links", n: many, want: Route{Time: 3 * ms, Spread: 17320, Known: true, Path: model.PathNode},
			reasons: []string{"route time 3ms to n0000 is computed over 3 hops: neither measured it"}},
		{name: "a measured one stands", n: many, want: Route{Time: 50 * ms, Spread: ms / 100, Known: true, Path: model.PathNode},
			spoil: func(s view.Snapshot) {
				s.Nodes[nth(3)].State.Routes[nth(0)] = model.RouteTime{RTT: 50 * ms, Spread: ms / 100, At: t0}
			}},
		{name: "no way leads over what one end alone says", n: many,
			spoil:   func(s view.Snapshot) { delete(s.Nodes[nth(1)].State.Routes, nth(2)) },
			reasons: []string{"no fresh route time to this node from n0000"}},
		{name: "dead nodes do not make it many", n: many,
			spoil: func(s view.Snapshot) {
				n := s.Nodes[nth(60)]
				n.Alive = false
				s.Nodes[nth(60)] = n
			},
			reasons: []string{"no fresh route time to this node from n0000"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := chain(tt.n)
			if tt.spoil != nil {
				tt.spoil(s)
			}
			got := NewSurvey(s, unit(), t0).Candidates(from, nth(3))[0]
			if diff := cmp.Diff(tt.want, got.Route); diff != "" {
				t.Errorf("route (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.reasons, reasons(got)); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
		})
	}
}

// Of two peers one way is measured and one computed: (1 + 3) / 2 ms from n0002.
func TestComputedRouteToOneOfSeveralPeers(t *testing.T) {
	peers := Viewpoint{Peers: map[model.NodeID]float64{nth(1): 1, nth(5): 1}}
	got := NewSurvey(chain(100), unit(), t0).Candidates(peers, nth(2))[0]
	if got.Route.Time != 2*ms || !got.Route.Known {
		t.Errorf("route %+v, want 2 ms", got.Route)
	}
	if diff := cmp.Diff([]string{"route time 3ms to n0005 is computed over 3 hops: neither measured it"}, reasons(got)); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

// The routes to a node from all others at once are those from each, whoever is dead, unheard, or alone in what it
// says.
func TestAllRoutesAtOnceAreThoseOfEach(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	n := linkstate.FullMesh + 40
	s := chain(n)
	for range 20 * n {
		i, j := nth(r.Intn(n)), nth(r.Intn(n))
		route := model.RouteTime{RTT: time.Duration(r.Intn(30)-1) * ms, At: t0.Add(-time.Duration(r.Intn(40)) * time.Second)}
		s.Nodes[i].State.Routes[j] = route
		if r.Intn(2) == 0 {
			s.Nodes[j].State.Routes[i] = route
		}
	}
	s.Nodes[nth(1)].State.Routes["gone"] = model.RouteTime{RTT: ms, At: t0}
	for _, i := range []int{5, 50} {
		dead, unheard := s.Nodes[nth(i)], s.Nodes[nth(i+1)]
		dead.Alive, unheard.Received = false, time.Time{}
		s.Nodes[nth(i)], s.Nodes[nth(i+1)] = dead, unheard
	}
	v := NewSurvey(s, unit(), t0)
	known := map[int]int{}
	for j := range n {
		all := v.node.column(nth(j))
		for i := range n {
			want := v.node.route(nth(i), nth(j))
			if diff := cmp.Diff(want, all.routes[i]); diff != "" {
				t.Fatalf("from %s to %s (-of each +at once):\n%s", nth(i), nth(j), diff)
			}
			if want.Known {
				known[want.Hops]++
			}
		}
	}
	if known[0] == 0 || known[2] == 0 {
		t.Errorf("routes by their hops: %v, want measured and computed ones", known)
	}
}

// Among many nodes the mean is to the same few for all, over whatever links.
func TestMeanToASample(t *testing.T) {
	n := 200
	s := chain(n)
	sample := linkstate.Sample(s.IDs(), sampleSize)
	// One of them has measured the way to one far away, 5 ms longer than it is computed.
	far := slices.Index(s.IDs(), sample[0])
	from := (far + n/2) % n
	s.Nodes[nth(from)].State.Routes[sample[0]] = model.RouteTime{RTT: time.Duration(n/2+5) * ms, At: t0}
	for _, c := range NewSurvey(s, unit(), t0).Candidates(Viewpoint{}) {
		i := slices.Index(s.IDs(), c.Node)
		sum, count := 0, 0
		for _, to := range sample {
			if j := slices.Index(s.IDs(), to); j != i {
				sum, count = sum+max(i-j, j-i), count+1
				if i == from && j == far {
					sum += 5
				}
			}
		}
		if want := time.Duration(sum) * ms / time.Duration(count); !c.Route.Known || c.Route.Time.Round(time.Microsecond) != want.Round(time.Microsecond) {
			t.Errorf("%s is %v from all others, want %v", c.Node, c.Route.Time, want)
		}
		if len(c.Reasons) > 0 {
			t.Errorf("%s: %v", c.Node, reasons(c))
		}
	}
}

func TestComputedRoutesAreUsedAgain(t *testing.T) {
	from := Viewpoint{Source: nth(0)}
	longer := func(n int) view.Snapshot {
		s := chain(n)
		for _, e := range [][2]int{{1, 2}, {2, 1}} {
			s.Nodes[nth(e[0])].State.Routes[nth(e[1])] = model.RouteTime{RTT: 9 * ms, At: t0}
		}
		return s
	}
	for _, tt := range []struct {
		name  string
		after time.Duration
		n     int
		asked bool // the earlier one
		want  time.Duration
	}{
		{"while they are young", keepComputed - 1, 100, true, 3 * ms},
		{"not when they are old", keepComputed, 100, true, 11 * ms},
		{"not when nobody had asked for them", 0, 100, false, 11 * ms},
		{"not by a clock that went back", -1, 100, true, 11 * ms},
		{"not where everybody probes everybody", 0, linkstate.FullMesh, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			earlier := NewSurvey(chain(100), unit(), t0)
			if tt.asked {
				earlier.Candidates(from, nth(3))
			}
			now := NewSurvey(longer(tt.n), unit(), t0.Add(tt.after)).After(earlier)
			if got := now.Candidates(from, nth(3))[0].Route.Time; got != tt.want {
				t.Errorf("n0003 is %v away, want %v", got, tt.want)
			}
		})
	}
	if s := NewSurvey(chain(100), unit(), t0); s.After(nil) != s {
		t.Error("without an earlier one there is nothing to use")
	}
	for alive, want := range map[int]time.Duration{100: 10 * time.Second, 4000: 16 * time.Second, 100_000: 20 * time.Second} {
		if got := keeps(alive); got != want {
			t.Errorf("of %d nodes they serve for %v, want %v", alive, got, want)
		}
	}
}

// BenchmarkSparse ranks the nodes of large clusters by one picture: the first question makes
// the graph, later ones find it.
func BenchmarkSparse(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		zones := map[model.NodeID]string{}
		for i := range n {
			zones[nth(i)] = fmt.Sprint(i % (n/16 + 1))
		}
		s := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}
		for id, zone := range zones {
			rtt := map[model.NodeID]float64{}
			for _, to := range linkstate.Plan(id, zones) {
				rtt[to] = 2
				if zones[to] == zone {
					rtt[to] = 0.3
				}
			}
			s.Nodes[id] = heard(rtt)
		}
		for name, from := range map[string]Viewpoint{"source": {Source: nth(0)}, "mean": {}} {
			b.Run(fmt.Sprintf("first/%s/nodes=%d", name, n), func(b *testing.B) {
				for b.Loop() {
					NewSurvey(s, unit(), t0).Candidates(from)
				}
			})
			survey, buffer, ids := NewSurvey(s, unit(), t0), NewBuffer(), s.IDs()
			b.Run(fmt.Sprintf("next/%s/nodes=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				survey.Candidates(from)
				for b.Loop() {
					buffer.Candidates(NewSurvey(s, unit(), t0).After(survey), from, ids[:1])
				}
			})
			b.Run(fmt.Sprintf("later/%s/nodes=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					buffer.Evaluate(unit(), buffer.Candidates(survey, from, ids))
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/node")
			})
		}
	}
}
