package main

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// shortlist is how many of all placements, the best by mean, the oracle simulates, and longlist the
	// one that goes by the 99th percentile, which the mean says less of.
	shortlist = 100
	longlist  = 300
	// finalists are simulated with all requests, since a few hold the 99th percentile.
	finalists = 10
)

// oracle knows the world and what will happen in it, tries every placement of the chain, and gives
// the one whose requests take the least on the median. It simulates those of the shortlist.
func oracle(w *world, requests int, seed uint64, shortlist int) []int {
	best := likeliest(w, shortlist)
	return best[least(w, best, requests, seed, .5)[0]]
}

// tailOracle is the same by the 99th percentile: nobody can be better by that, but where the shortlist and chance
// have it miss the best.
func tailOracle(w *world, requests int, seed uint64, shortlist int) []int {
	best := likeliest(w, shortlist)
	var last [][]int
	for _, i := range least(w, best, requests/10, seed, .99)[:min(finalists, len(best))] {
		last = append(last, best[i])
	}
	return last[least(w, last, requests, seed, .99)[0]]
}

// likeliest are so many of all placements with room, the best by mean.
func likeliest(w *world, most int) [][]int {
	type option struct {
		place []int
		mean  time.Duration
	}
	var all []option
	place := make([]int, len(w.chain))
	var try func(link int)
	try = func(link int) {
		if link == len(place) {
			if fits(w, place) {
				all = append(all, option{slices.Clone(place), mean(w, place)})
			}
			return
		}
		for n := range w.nodes {
			place[link] = n
			try(link + 1)
		}
	}
	try(0)
	slices.SortStableFunc(all, func(a, b option) int { return cmp.Compare(a.mean, b.mean) })
	var best [][]int
	for _, o := range all[:min(most, len(all))] {
		best = append(best, o.place)
	}
	return best
}

// least orders placements by a quantile of what requests take, the least first, and gives their numbers.
func least(w *world, places [][]int, requests int, seed uint64, q float64) []int {
	took, order := make([]time.Duration, len(places)), make([]int, len(places))
	each(len(places), func(i int) { took[i], order[i] = quantile(times(open(w, places[i], requests, seed)), q), i })
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(took[a], took[b]) })
	return order
}

// each does something for each of n, on all processors.
func each(n int, do func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

// fits tells whether all requests have room, as the scheduler sees it.
func fits(w *world, place []int) bool {
	asked := make([]float64, len(w.nodes))
	for i, n := range place {
		asked[n] += w.chain[i].request
	}
	for i, n := range w.nodes {
		if asked[i] > 0 && n.requested+asked[i] > n.cores {
			return false
		}
	}
	return true
}

// quantile is that of some times, which it does not change.
func quantile(times []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
