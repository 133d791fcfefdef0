// Package linkstate turns single round trips into what a node says of its routes: a robust
// route time with its spread and its age. It is part of the pure core.
package linkstate

import (
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// routeQuantile is where in a path's sorted samples the route time lies.
//
// What disturbs a round trip (a queue, an interrupt, a processor that sleeps) only ever
// makes it longer. The median would follow a link that is disturbed for half of the window,
// and placement would chase load that another term of the formula already counts. The
// minimum would rest on one sample and say nothing of the usual. A quarter keeps still
// while up to three quarters of the samples are disturbed, and follows a real change of
// route as soon as a quarter of the window has been measured on the shorter one, or three
// quarters on the longer.
const routeQuantile = 0.25

// Window holds the latest samples of one route, which may go over several paths. It is not safe for concurrent use; what it
// gives is a copy.
type Window struct {
	age     time.Duration
	samples []sample // a ring: next is the oldest once it is full
	next    int
	size    int
	sorted  []time.Duration
	least   map[int]time.Duration // by path
}

type sample struct {
	at    time.Time
	rtt   time.Duration
	stamp model.Stamp
	path  int
}

// NewWindow gives an empty window that keeps at most size samples (at least one), none
// older than age.
func NewWindow(age time.Duration, size int) *Window {
	size = max(1, size)
	return &Window{age: age, size: size, samples: make([]sample, 0, size), sorted: make([]time.Duration, 0, size), least: map[int]time.Duration{}}
}

// Add puts in one round trip that was measured now over one of the paths, whatever numbers
// they have. One that is negative is nonsense and is left out.
func (w *Window) Add(now time.Time, rtt time.Duration, stamp model.Stamp, path int) {
	if rtt < 0 {
		return
	}
	s := sample{now, rtt, stamp, path}
	if len(w.samples) < w.size {
		w.samples = append(w.samples, s)
		return
	}
	w.samples[w.next] = s
	w.next = (w.next + 1) % w.size
}

// RouteTime gives the route time over the samples that are not older than the window's age,
// and false when there is none: then the route time is unknown.
//
// A path's level is its least sample, and what is above the level is taken together over all
// paths. The route time is the mean of the levels, as connections are spread over the paths,
// and the lower quartile of what is above. The spread is half the distance between the
// quartiles of what is above, and half the distance between the least and the greatest level.
// Of a single path that makes the lower quartile and half the distance between the quartiles.
// docs/decisions/0016 compares this with other ways.
//
// Samples that were stamped in user space count only while there are none from the kernel:
// the two measure different things, and a mixture of both would be neither.
func (w *Window) RouteTime(now time.Time) (model.RouteTime, bool) {
	route := model.RouteTime{Stamp: model.StampUser}
	oldest := now.Add(-w.age)
	for _, s := range w.samples {
		if s.stamp == model.StampKernel && !s.at.Before(oldest) {
			route.Stamp = model.StampKernel
			break
		}
	}
	counts := func(s sample) bool { return s.stamp == route.Stamp && !s.at.Before(oldest) }
	clear(w.least)
	for _, s := range w.samples {
		if !counts(s) {
			continue
		}
		if least, known := w.least[s.path]; !known || s.rtt < least {
			w.least[s.path] = s.rtt
		}
		if s.at.After(route.At) {
			route.At = s.at
		}
	}
	if len(w.least) == 0 {
		return model.RouteTime{}, false
	}
	w.sorted = w.sorted[:0]
	for _, s := range w.samples {
		if counts(s) {
			w.sorted = append(w.sorted, s.rtt-w.least[s.path])
		}
	}
	slices.Sort(w.sorted)
	mean, between := levels(w.least)
	route.Samples = len(w.sorted)
	route.RTT = mean + quantile(w.sorted, routeQuantile)
	route.Spread = (between + quantile(w.sorted, 0.75) - quantile(w.sorted, 0.25)) / 2
	return route, true
}

// levels gives the mean of the paths' levels and the distance between the least and the
// greatest. There is at least one.
func levels(of map[int]time.Duration) (mean, between time.Duration) {
	least, greatest, n := time.Duration(-1), time.Duration(0), time.Duration(len(of))
	for _, level := range of {
		mean += level / n // their sum might not fit
		greatest = max(greatest, level)
		if least < 0 || level < least {
			least = level
		}
	}
	return mean, greatest - least
}

// quantile gives the q-th quantile (0..1) of ascending values, of which there is at least
// one, with linear interpolation between neighbours (Hyndman and Fan 1996, type 7).
func quantile(ascending []time.Duration, q float64) time.Duration {
	position := q * float64(len(ascending)-1)
	below := int(position)
	if below+1 >= len(ascending) {
		return ascending[len(ascending)-1]
	}
	step := float64(ascending[below+1] - ascending[below])
	return ascending[below] + time.Duration((position-float64(below))*step)
}
