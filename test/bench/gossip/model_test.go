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

func TestPredictionLeavesOutWhatWasNeverOver(t *testing.T) {
	var from []result
	for _, n := range []int{100, 200, 400} {
		r := result{Nodes: n, BytesMean: 10 * float64(n)}
		r.Report.Most99, r.Report.All99, r.Location.Most99 = math.Log2(float64(n)), never, 0
		from = append(from, r)
	}
	p := predict(from, 1024)
	if math.Abs(p.Bytes-10240) > 0.1 || math.Abs(p.Report99-10) > 1e-4 || p.ReportAll != never || p.Place != never {
		t.Errorf("predicted %+v; want 10240 B/s, 10 s, and neither of the others", p)
	}
}
