package pressure

import "github.com/drover-project/drover/internal/model"

// CPU is what one container did and waited between two readings, per second of wall time.
type CPU struct {
	// Wait is the run-queue wait of all its threads, whatever the cause, in seconds per second.
	Wait float64 `json:"wait"`
	// Run is the CPU it used.
	Run model.Cores `json:"run"`
	// Others is the CPU that everything else on the node used.
	Others model.Cores `json:"others"`
	// Limit is the most it could have used with the node to itself: the least of the
	// node's CPU, its cpuset and its own quota.
	Limit model.Cores `json:"limit"`
	// Throttled is the increase of cpu.stat's throttled time of its own quotas (the
	// container's and the pod's), in seconds per second. The kernel sums it over the
	// run queues, one a CPU (kernel/sched/fair.c, cfs_bandwidth).
	Throttled float64 `json:"throttled,omitempty"`
	// Threads is how many threads it has; matters only when Throttled is not 0.
	Threads int `json:"threads,omitempty"`
	// Owed is whom the kernel saw on the CPU meanwhile; nil where that is not known.
	Owed *Owed `json:"owed,omitempty"`
}

// Owed are the parts of CPU.Wait that others may have caused, in seconds per second.
type Owed struct {
	// Others: neighbours or what is in no container ran, or a hypervisor took the CPU.
	Others float64 `json:"others"`
	// Shared: a quota above the pods was used up, or soft interrupts were served. Whose they
	// were is not known; the container's own are among them.
	Shared float64 `json:"shared,omitempty"`
}

// External gives how much of Wait others cause, in seconds per second: as the kernel
// measured it where that is known, else an estimate, by the part that others had of the CPU
// used. For that, Throttled times Threads are taken off the wait: while a run queue is throttled,
// each task of the container on it waits, and there are at most Threads of them.
//
// Both are cautious, because a pod that is merely busy, or runs into its own limit, must
// never look like one that suffers. What is shared is the others' by their part of the CPU
// that was used, and nobody is kept from more than the part of its Limit that it did not
// get.
func (c CPU) External() float64 {
	busy := c.Run + c.Others
	if !(busy > 0) || !(c.Limit > 0) || !(c.Wait > 0) { // not a number counts as nothing, too
		return 0
	}
	others, missed := float64(c.Others/busy), max(0, float64(1-c.Run/c.Limit))
	external := min(others, missed) * max(0, c.Wait-c.Throttled*float64(max(1, c.Threads)))
	if c.Owed != nil {
		external = min(c.Owed.Others+c.Owed.Shared*others, c.Wait, missed*(c.Wait+float64(c.Run)))
	}
	if !(external > 0) {
		return 0
	}
	return external
}

// Stall is External as a share of the time in which the container's threads could run, 0..1.
//
// It is a share because a thread that has a hundred others of its own container to wait
// for, waits for every neighbour a hundred times: what they lost by it is little. A
// container that wants less than one thread's time is taken for one that wants that,
// so that a moment's wait of one that hardly runs is not much.
func (c CPU) Stall() float64 {
	return share(c.External() / max(1, c.Wait+float64(c.Run)))
}
