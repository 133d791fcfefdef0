package placement

import (
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Best is quick and not exact: spreads count for nothing. Without them it is Rank's order.
func TestBestAreTheFirstOfAll(t *testing.T) {
	r, b := rand.New(rand.NewSource(4)), NewBuffer()
	for _, exponent := range []float64{1, 2, 0.5} {
		p := unit()
		p.Exponent = exponent
		s := scattered(r, 300)
		for _, n := range s.Nodes {
			for to, route := range n.State.Routes {
				route.Spread = 0
				n.State.Routes[to] = route
			}
		}
		ids := s.IDs()
		dead := s.Nodes[ids[9]]
		dead.Alive = false
		s.Nodes[ids[9]] = dead
		v := NewSurvey(s, p, t0)
		for _, from := range []Viewpoint{
			{Source: ids[8]},
			{Peers: map[model.NodeID]float64{ids[8]: 1, ids[150]: 3, ids[299]: 2}},
			{Source: ids[8], Needs: res(6, 6)},
		} {
			got := slices.Clone(b.Best(v, from, 20))
			want := map[model.NodeID]float64{}
			var least float64
			for i, score := range rankedByA(p, v.Candidates(from)) {
				if want[score.Node] = score.A; i == 19 {
					least = score.A
				}
			}
			if len(got) != 20 {
				t.Fatalf("%d nodes, want 20", len(got))
			}
			last := 0.
			for i, id := range got {
				// The unit of the last place of float32 may swap two.
				if want[id] < least*(1-1e-5) || i > 0 && want[id] > last*(1+1e-5) {
					t.Errorf("exponent %v, from %+v: %s with A %v is the %dth, the 20th has %v", exponent, from, id, want[id], i+1, least)
				}
				last = want[id]
			}
		}
	}
}

func rankedByA(p Params, cs []Candidate) []Score {
	scores := Rank(p, cs)
	slices.SortStableFunc(scores, func(a, b Score) int {
		switch {
		case a.A > b.A:
			return -1
		case a.A < b.A:
			return 1
		}
		return 0
	})
	return scores
}

func TestBestOfNothing(t *testing.T) {
	b, resources := NewBuffer(), unit()
	resources.Exponent = 0
	s := chain(100)
	for name, got := range map[string][]model.NodeID{
		"no peers":                 b.Best(NewSurvey(s, unit(), t0), Viewpoint{}, 5),
		"route times do not count": b.Best(NewSurvey(s, resources, t0), Viewpoint{Source: nth(0)}, 5),
		"none wanted":              b.Best(NewSurvey(s, unit(), t0), Viewpoint{Source: nth(0)}, 0),
		"an empty picture":         b.Best(NewSurvey(view.Snapshot{}, unit(), t0), Viewpoint{Source: nth(0)}, 5),
		"a stale picture":          b.Best(NewSurvey(s, unit(), t0.Add(time.Hour)), Viewpoint{Source: nth(0)}, 5),
		"from nowhere":             b.Best(NewSurvey(s, unit(), t0), Viewpoint{Source: "gone"}, 5),
	} {
		if len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestBestTakesNoMemory(t *testing.T) {
	s := scattered(rand.New(rand.NewSource(1)), 300)
	v, b, ids := NewSurvey(s, Defaults(), t0), NewBuffer(), s.IDs()
	from := Viewpoint{Peers: map[model.NodeID]float64{ids[7]: 1, ids[100]: 2}}
	if n := testing.AllocsPerRun(10, func() { b.Best(v, from, 32) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
