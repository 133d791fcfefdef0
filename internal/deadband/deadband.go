// Package deadband says which changes of what a node measures are worth telling all others:
// within a dead band of what was said last nothing is sent. Each band is about a tenth of
// what would change a decision, so that all that is lost is precision that nobody uses, and is
// taken around what was said, not around the last reading, so that a slow drift is told, too.
//
// What is no number at all is always worth telling.
package deadband

import (
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// The bands.
const (
	// CPUShare and MemoryShare are of the allocatable: what is idle, C and M of the formula,
	// is a difference of these. Memory moves less from second to second than CPU.
	CPUShare, MemoryShare = 0.05, 0.02
	// LeastCPU and LeastMemory keep a small node from telling every process.
	LeastCPU    model.Cores = 0.1
	LeastMemory             = 32 * model.MiB
	// Requests are told by the thousandth of a core, as users give them, and the byte: what is
	// left over of them decides whether a pod fits, and they change only when pods come and go.
	Requested model.Cores = 0.0005
	// Pressure is a share of time: internal/pressure's thresholds lie 0.05 and more apart.
	Pressure = 0.05
	// Rates of a node's devices move all the time, and no decision is made from them: a
	// quarter of what was said, a tenth of what the devices can carry, or this.
	RateShare, CapacityShare            = 0.25, 0.1
	LeastRate                model.Rate = 1e6
	// Route times below the formula's floor (0.2 ms) count as that; of those above, an eighth
	// changes a score by an eighth, and what lies within the spread counts as equal.
	RouteShare, LeastRoute = 1.0 / 8, 50 * time.Microsecond
	// SpreadShare is of the spread itself: it says how far to trust a figure, and is none.
	SpreadShare = 0.5
	// Samples by this factor: whether a route time rests on one answer or on many.
	Samples = 4
	// Wait is a stall of a container that is in contention anyway.
	Wait = 0.1
	// Volume by this factor: what edges have carried are weights of a mean of route times, of which
	// the greatest decide. One that is silent is said again every 35 minutes.
	Volume = 1.5
)

// within tells whether b lies in the band around a; never for what is no number.
func within[N ~float64 | ~int64](a, b, band N) bool { return max(a-b, b-a) <= band }

// Load tells whether a load is worth telling after the other was said. That it was measured
// later is no change.
func Load(said, now model.Load) bool {
	cpu := max(LeastCPU, CPUShare*now.Allocatable.CPU)
	memory := max(LeastMemory, model.Bytes(MemoryShare*float64(now.Allocatable.Memory)))
	switch {
	case said.At.IsZero() != now.At.IsZero(),
		!within(said.Requested.CPU, now.Requested.CPU, Requested), said.Requested.Memory != now.Requested.Memory,
		!within(said.Used.CPU, now.Used.CPU, cpu), !within(said.Used.Memory, now.Used.Memory, memory),
		!within(said.Pressure, now.Pressure, Pressure), len(said.Pressures) != len(now.Pressures):
		return true
	}
	for r, p := range now.Pressures {
		if before, told := said.Pressures[r]; !told || !within(before, p, Pressure) {
			return true
		}
	}
	return false
}

// Bandwidth is the same for what a node's devices carry; their capacity is no part of it.
func Bandwidth(said, now *model.Bandwidth) bool {
	if said == nil || now == nil {
		return said != now
	}
	rate := func(said, rate model.Rate) bool {
		return !within(said, rate, max(LeastRate, RateShare*said, CapacityShare*now.Capacity))
	}
	return rate(said.Sent, now.Sent) || rate(said.Received, now.Received)
}

// Route is the same for one route time. How old its last answer is is no change: an agent
// forgets a route that is not answered for 10 s.
func Route(said, now model.RouteTime) bool {
	return said.Stamp != now.Stamp ||
		!within(said.RTT, now.RTT, max(LeastRoute, said.Spread, share(said.RTT, RouteShare))) ||
		!within(said.Spread, now.Spread, max(LeastRoute, share(said.RTT, RouteShare), share(said.Spread, SpreadShare))) ||
		said.Samples*Samples <= now.Samples || now.Samples*Samples <= said.Samples
}

func share(d time.Duration, part float64) time.Duration { return time.Duration(part * float64(d)) }

// Edge is the same for what an edge has carried.
func Edge(said, now model.Bytes) bool {
	return float64(now) > Volume*float64(said) || float64(said) > Volume*float64(now)
}

// Suffering is the same for the containers in contention. It is grave when another one
// moves a pod now, or one does no more: nobody shall send a pod to where pods suffer.
func Suffering(said, now []model.Contention) (differs, grave bool) {
	for _, pair := range [][2][]model.Contention{{said, now}, {now, said}} {
		for _, c := range pair[0] {
			i := slices.IndexFunc(pair[1], func(o model.Contention) bool {
				return o.Pod.UID == c.Pod.UID && o.Container == c.Container && o.Resource == c.Resource
			})
			switch {
			case i < 0 || pair[1][i].Grade != c.Grade:
				differs, grave = true, grave || c.Severe()
			case !within(pair[1][i].Wait, c.Wait, Wait):
				differs = true
			}
		}
	}
	return differs, grave
}
