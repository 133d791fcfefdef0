package pressure

import "github.com/drover-project/drover/internal/model"

// Share is what one container did and waited between two readings, per second of wall time.
type Share struct {
	// Wait is the run-queue wait of all its threads, whatever the cause, in seconds per second.
	Wait float64
	// Run is the CPU it used.
	Run model.Cores
	// Others is the CPU that everything else on the node used.
	Others model.Cores
	// Limit is the most it could have used with the node to itself: the least of the
	// node's CPU, its cpuset and its own quota.
	Limit model.Cores
	// Throttled is the increase of cpu.stat's throttled time of its own quotas (the
	// container's and the pod's), in seconds per second. The kernel sums it over the
	// run queues, one a CPU (kernel/sched/fair.c, cfs_bandwidth).
	Throttled float64
	// Threads is how many threads it has; matters only when Throttled is not 0.
	Threads int
}

// External gives how much of Wait others cause, in seconds per second. It is cautious,
// because a pod that is merely busy, or runs into its own limit, must never look like one
// that suffers:
//
//   - Wait less Throttled times Threads: while a run queue is throttled, each task of the
//     container on it waits, and there are at most Threads of them.
//   - Of that, the part that Others had of the CPU used: a pod on an idle node waits only
//     for itself.
//   - But no more than the part of its Limit that it did not get: one that has got all it
//     can ever have is not kept from anything.
//
// A container that is throttled and starved at once is therefore found late, or not at all.
// That is rare: one that is starved does not use up its quota.
func (s Share) External() float64 {
	busy := s.Run + s.Others
	if !(busy > 0) || !(s.Limit > 0) {
		return 0
	}
	wait := s.Wait - s.Throttled*float64(max(1, s.Threads))
	blame := min(s.Others/busy, 1-s.Run/s.Limit)
	if !(wait > 0) || !(blame > 0) { // not a number counts as nothing, too
		return 0
	}
	return wait * float64(blame)
}
