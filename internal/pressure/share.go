package pressure

import "github.com/drover-project/drover/internal/model"

// Share is what one container did and waited between two readings, per second of wall time.
type Share struct {
	// Wait is the run-queue wait of all its threads, whatever the cause, in seconds per second.
	Wait float64
	// Run is the CPU it used.
	Run model.Cores
	// Others is the CPU that everything else on the machine used.
	Others model.Cores
	// Limit is the most it could have used with the machine to itself: the least of the
	// node's CPU, its cpuset and its own quota.
	Limit model.Cores
	// Throttled is the increase of cpu.stat's throttled time of its own quotas (the
	// container's and the pod's), in seconds per second. The kernel sums it over the
	// run queues, one a CPU (kernel/sched/fair.c, cfs_bandwidth).
	Throttled float64
	// Threads is how many threads it has; matters only when Throttled is not 0.
	Threads int
}

// External gives how much of Wait others cause, in seconds per second. It is a lower bound,
// the least of three, because a pod that is merely busy, or runs into its own limit, must
// never look like one that suffers:
//
//   - Wait less Throttled times Threads. While a run queue is throttled, each task of the
//     container on it waits, and there are at most Threads of them.
//   - Of that, the part that falls to others when the blame is shared as the CPU was: a pod
//     on an idle node waits only for itself.
//   - Limit less Run. Alone it would have run that much more, and no more.
//
// A container that is throttled and starved at once is therefore found late, or not at all.
// That is rare: one that is starved does not use up its quota.
func (s Share) External() float64 {
	busy := s.Run + s.Others
	if !(busy > 0) {
		return 0
	}
	wait := s.Wait - s.Throttled*float64(max(1, s.Threads))
	wait *= float64(s.Others / busy)
	wait = min(wait, float64(s.Limit-s.Run))
	if !(wait > 0) { // not a number counts as nothing, too
		return 0
	}
	return wait
}
