package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/client-go/rest"

	"github.com/drover-project/drover/test/bench/report"
)

// who places.
const (
	byDefault  = "default"
	byRoute    = "RouteTime"
	byOverhead = "NetworkOverhead"
	byOracle   = "oracle"
	byTail     = "tail oracle" // by the 99th percentile
)

var everybody = []string{byDefault, byRoute, byOverhead, byOracle, byTail}

// figures is how one placement did.
type figures struct {
	place    []int
	p50, p99 time.Duration
	rate     float64 // requests a second of 64 users
	ways     time.Duration
	// worked is for how long a CPU worked for a request that takes as long as the 99th percentile.
	worked time.Duration
}

// waited is what such a request waited: for the CPU, because others had it.
func (f figures) waited() time.Duration { return f.p99 - f.ways - f.worked }

// result is one world's, by who placed. Who breaks ties at random placed several times.
type result struct {
	w  *world
	by map[string][]figures
}

const closedUsers = 64

// play has everybody place the chain in a world, and simulates each placement.
func play(ctx context.Context, server *rest.Config, w *world, requests int) (result, error) {
	r := result{w, map[string][]figures{}}
	places, err := placements(ctx, server, w)
	if err != nil {
		return r, err
	}
	places[byOracle] = [][]int{oracle(w, requests/10, w.seed, shortlist)}
	places[byTail] = [][]int{tailOracle(w, requests, w.seed, longlist)}
	var distinct [][]int
	number := map[string]int{}
	for _, who := range everybody {
		for _, place := range places[who] {
			if key := fmt.Sprint(place); number[key] == 0 {
				distinct = append(distinct, place)
				number[key] = len(distinct)
			}
		}
	}
	found := make([]figures, len(distinct))
	each(len(distinct), func(i int) { found[i] = simulated(w, distinct[i], requests) })
	for who, all := range places {
		for _, place := range all {
			r.by[who] = append(r.by[who], found[number[fmt.Sprint(place)]-1])
		}
	}
	return r, nil
}

// simulated is how a placement does.
func simulated(w *world, place []int, requests int) figures {
	answers := open(w, place, requests, w.seed)
	took := times(answers)
	return figures{
		place: place, p50: quantile(took, .5), p99: quantile(took, .99), ways: ways(w, place), worked: tailWork(answers),
		rate: closed(w, place, closedUsers, requests, w.seed),
	}
}

// tailWork is the mean of what was worked for requests between the percentiles 98.5 and 99.5.
func tailWork(of []answer) time.Duration {
	sorted := slices.SortedFunc(slices.Values(of), func(a, b answer) int { return cmp.Compare(a.took, b.took) })
	sorted = sorted[len(sorted)*985/1000 : len(sorted)*995/1000]
	var sum time.Duration
	for _, a := range sorted {
		sum += a.worked
	}
	return sum / time.Duration(len(sorted))
}

// middle is the median over the placements of one that placed.
func (r result) middle(who string, of func(figures) float64) float64 {
	var all []float64
	for _, f := range r.by[who] {
		all = append(all, of(f))
	}
	return report.Median(all)
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

func p50(f figures) float64  { return milliseconds(f.p50) }
func p99(f figures) float64  { return milliseconds(f.p99) }
func rate(f figures) float64 { return f.rate }
