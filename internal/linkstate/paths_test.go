package linkstate

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// pathTrial is one route over two paths that differ by 1 ms: 8 ports are spread over them by
// chance, 50 samples are taken from the ports in turn, each up to 5% above its path's time,
// and some of them in a queue of up to 10 ms.
type pathTrial struct {
	fast, slow time.Duration
	share      float64 // of the ports, on the slow path
	disturbed  float64 // of the samples, in a queue
}

// run gives the samples by port, and the mean time of the ports' paths without noise.
func (p pathTrial) run(rng *rand.Rand) (byPort [8][]time.Duration, truth time.Duration) {
	var path [len(byPort)]time.Duration
	for i := range path {
		if path[i] = p.fast; rng.Float64() < p.share {
			path[i] = p.slow
		}
		truth += path[i] / time.Duration(len(path))
	}
	first := rng.Intn(len(path))
	for i := range 50 {
		port := (first + i) % len(path)
		rtt := path[port] + time.Duration(rng.Int63n(int64(path[port])/20))
		if rng.Float64() < p.disturbed {
			rtt += time.Duration(rng.Int63n(int64(10 * ms)))
		}
		byPort[port] = append(byPort[port], rtt)
	}
	return byPort, truth
}

// estimators are ways to make one route time, and its spread, of the samples by port.
var estimators = []struct {
	name string
	of   func(byPort [8][]time.Duration) (rtt, spread time.Duration)
}{
	{"this window", func(byPort [8][]time.Duration) (rtt, spread time.Duration) {
		w := NewWindow(time.Hour, 50)
		for port, rtts := range byPort {
			for _, rtt := range rtts {
				w.Add(start, rtt, model.StampKernel, port)
			}
		}
		route, _ := w.RouteTime(start)
		return route.RTT, route.Spread
	}},
	{"quartile of all", func(byPort [8][]time.Duration) (rtt, spread time.Duration) {
		all := slices.Sorted(slices.Values(slices.Concat(byPort[:]...)))
		return quantile(all, 0.25), (quantile(all, 0.75) - quantile(all, 0.25)) / 2
	}},
	{"mean of quartiles", func(byPort [8][]time.Duration) (rtt, spread time.Duration) {
		of := map[int]time.Duration{}
		for port, rtts := range byPort {
			of[port] = quantile(slices.Sorted(slices.Values(rtts)), 0.25)
		}
		mean, between := levels(of)
		return mean, between / 2
	}},
	{"median of quartiles", func(byPort [8][]time.Duration) (rtt, spread time.Duration) {
		var of []time.Duration
		for _, rtts := range byPort {
			of = append(of, quantile(slices.Sorted(slices.Values(rtts)), 0.25))
		}
		slices.Sort(of)
		return quantile(of, 0.5), (of[len(of)-1] - of[0]) / 2
	}},
}

// With paths that differ, the route time is near the mean of the paths that the ports took,
// and half of the paths' distance is always within the spread, also while every third sample
// is disturbed. -v prints the comparison of docs/decisions/0016.
func TestPathsThatDiffer(t *testing.T) {
	const trials = 1000
	var table strings.Builder
	for _, share := range []float64{0, 0.125, 0.25, 0.5} {
		for _, disturbed := range []float64{0, 0.1, 0.3, 0.5} {
			rng := rand.New(rand.NewSource(1))
			trial := pathTrial{fast: 1 * ms, slow: 2 * ms, share: share, disturbed: disturbed}
			off := make([][]time.Duration, len(estimators))
			hidden, differ := make([]int, len(estimators)), 0
			for range trials {
				byPort, truth := trial.run(rng)
				apart := truth > trial.fast && truth < trial.slow
				if apart {
					differ++
				}
				for i, e := range estimators {
					rtt, spread := e.of(byPort)
					off[i] = append(off[i], (rtt - truth).Abs())
					if apart && 2*spread < (trial.slow-trial.fast)*9/10 {
						hidden[i]++
					}
				}
			}
			fmt.Fprintf(&table, "| %.1f%% | %.0f%% |", 100*share, 100*disturbed)
			for i := range estimators {
				slices.Sort(off[i])
				fmt.Fprintf(&table, " %.2f, %.2f | %.1f%% |", quantile(off[i], 0.5).Seconds()*1000,
					quantile(off[i], 0.95).Seconds()*1000, 100*float64(hidden[i])/float64(max(1, differ)))
			}
			table.WriteByte('\n')
			if disturbed <= 0.3 && quantile(off[0], 0.95) > trial.fast/10 {
				t.Errorf("%+v: the error's p95 is %v, more than a tenth", trial, quantile(off[0], 0.95))
			}
			if hidden[0] > 0 {
				t.Errorf("%+v: the spread did not show %d of %d", trial, hidden[0], differ)
			}
		}
	}
	t.Logf("slow, disturbed, then per estimator the error in ms p50, p95, and how often the spread is too small\n%s", table.String())
}
