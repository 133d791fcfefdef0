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
	for _, n := range []int{100, 200, 400, 1024, 8192} {
		s := swarmed{Nodes: n, Sent: 12 * float64(n)}
		s.Told.Most99, s.Report.Most99, s.Location.Most99 = math.Log2(float64(n)), 5+math.Log2(float64(n)), 0
		swarms = append(swarms, s)
		if n < 1000 {
			r := result{Nodes: n, SentMean: 300 + 14*float64(n)}
			r.Told.Most99, r.Report.Most99 = 1.5*s.Told.Most99, 2*s.Report.Most99
			from = append(from, r)
		}
	}
	for _, n := range []int{1024, 32768} { // with a swarm of that size, and without
		p, ok := predict(from, swarms, n)
		sent, told, report := 300+14*float64(n), 1.5*math.Log2(float64(n)), 2*(5+math.Log2(float64(n)))
		if !ok || math.Abs(p.Sent/sent-1) > 1e-4 || math.Abs(p.Told/told-1) > 1e-4 || math.Abs(p.Report/report-1) > 1e-4 || p.Location != never {
			t.Errorf("of %d nodes: %+v; want %.0f bytes, %.2f s, %.2f s and no location", n, p, sent, told, report)
		}
	}
	for why, of := range map[string]func() (prediction, bool){
		"without a swarm":               func() (prediction, bool) { return predict(from, nil, 32768) },
		"without a cluster":             func() (prediction, bool) { return predict(nil, swarms, 32768) },
		"from swarms that put off less": func() (prediction, bool) { return predict(from, swarms[:3], 1024) },
	} {
		if p, ok := of(); ok {
			t.Errorf("predicted %+v %s", p, why)
		}
	}
}
