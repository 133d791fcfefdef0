package main

import (
	"cmp"
	"slices"
	"time"
)

// shortlist is how many of all placements, the best by mean, the oracle simulates.
const shortlist = 100

// oracle knows the world and what will happen in it, tries every placement of the chain, and gives
// the one whose requests take the least on the median. It simulates those of the shortlist.
func oracle(w *world, requests int, seed uint64, shortlist int) []int {
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
	best, least := all[0].place, time.Duration(0)
	for _, o := range all[:min(shortlist, len(all))] {
		if m := quantile(open(w, o.place, requests, seed), .5); least == 0 || m < least {
			best, least = o.place, m
		}
	}
	return best
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
