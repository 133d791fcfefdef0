package gossip

import (
	"math"
	"testing"
)

func TestModelFindsItsTerms(t *testing.T) {
	for name, want := range map[string]weights{
		"all terms":         {700, 30, 4},
		"no constant":       {0, 120, 9},
		"linear":            {0, 0, 12.5},
		"constant":          {250, 0, 0},
		"log alone":         {0, 80, 0},
		"constant, linear":  {1000, 0, 3},
		"small and linear":  {1, 0, 100},
		"constant and log2": {200, 55, 0},
	} {
		var points []point
		for _, n := range []float64{100, 200, 300, 500} {
			points = append(points, point{n, want.at(n, ofBytes)})
		}
		got := fit(points, ofBytes)
		for i := range want {
			if math.Abs(got[i]-want[i]) > 1e-4*(1+want[i]) {
				t.Errorf("%s: fitted %.6v, want %v", name, got, want)
				break
			}
		}
	}
}

// What falls with n has no negative weight: the best that has none is a constant.
func TestModelHasNoNegativeTerms(t *testing.T) {
	m := fit([]point{{100, 10}, {200, 9}, {400, 8}}, ofBytes)
	for i, w := range m {
		if w < 0 || i > 0 && w > 0 {
			t.Errorf("fitted %v, want a constant", m)
		}
	}
	if at := m.at(1000, ofBytes); at < 8 || at > 10 {
		t.Errorf("the constant is %v, want one between the points", at)
	}
}

// What swarms send and how long it takes in them is known; clusters send 300 bytes and 2 for
// each node besides, and take half as long again.
func TestPredictionIsOfSwarmsAndTheRest(t *testing.T) {
	var from []result
	var swarms []swarmed
	for _, n := range []int{100, 200, 400, 800, 1024} {
		s := swarmed{Nodes: n, Sent: 12 * float64(n)}
		s.Told.Most99, s.Report.Most99, s.Location.Most99 = math.Log2(float64(n)), never, 0
		swarms = append(swarms, s)
		if n < 800 {
			r := result{Nodes: n, SentMean: 300 + 14*float64(n)}
			r.Told.Most99, r.Report.Most99 = 1.5*math.Log2(float64(n)), 3
			from = append(from, r)
		}
	}
	for _, n := range []int{1024, 4096} { // with a swarm of that size, and without
		p, ok := predict(from, swarms, n)
		sent, told := 300+14*float64(n), 1.5*math.Log2(float64(n))
		if !ok || math.Abs(p.Sent/sent-1) > 1e-4 || math.Abs(p.Told/told-1) > 1e-4 || p.Report != never || p.Location != never {
			t.Errorf("of %d nodes: %+v; want %.0f bytes, %.2f s and neither of the others", n, p, sent, told)
		}
	}
	if _, ok := predict(from, nil, 4096); ok {
		t.Error("predicted without a swarm")
	}
}
