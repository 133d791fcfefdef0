package measure

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/drover-project/drover/bpf/contention"
	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// followed is one container from one reading to the next.
type followed struct {
	total, run, throttled time.Duration
	causes                map[blame.Cause]time.Duration // of total
	lately                *blame.Window
	watch                 *pressure.Watch
	limits                limits
	memory                model.Bytes
	evidence              pressure.Evidence
	seen                  bool
}

// reading is what all containers have in common between two readings.
type reading struct {
	wall     time.Duration
	cpus     model.Cores
	busy     time.Duration // of the node: the pods and all else in the group above them
	all      cpuTime       // of the machine, and of each of its CPUs
	each     map[int]cpuTime
	groups   map[uint64]contention.Usage
	on       map[uint64][]time.Duration
	onBefore map[uint64][]time.Duration
	owed     map[string]blame.Waits
	measured bool // owed is right: nothing was lost
	// stalls is nil when memory and IO were not read; memory is the containers' use of it.
	stalls map[string]stallRates
	memory map[string]stallCounters
}

// follow brings one container up to date. It is false for one that was not there at the
// previous reading.
func (c *Contention) follow(now time.Time, container Container, r reading) (ContainerWait, bool, error) {
	f, old := c.known[container.ID]
	if !old {
		f = &followed{
			watch:  pressure.NewWatch(c.config.Thresholds),
			lately: blame.NewWindow(c.window()),
			causes: map[blame.Cause]time.Duration{},
		}
		c.known[container.ID] = f
	}
	f.seen = true
	waits, err := c.waits(container, r)
	if err != nil {
		return ContainerWait{}, false, err
	}
	run, err := c.config.Cgroups.CPUTime(container.Group)
	if err != nil {
		return ContainerWait{}, false, err
	}
	stopped, err := c.stopped(now, f, container, r.cpus)
	if err != nil {
		return ContainerWait{}, false, err
	}
	waits.Run = grown(run, f.run)
	f.run = run
	f.total += waits.Wait
	for cause, d := range waits.Causes() {
		f.causes[cause] += d
	}
	if s, ok := r.memory[container.ID]; ok {
		f.memory = s.memory.usage
	}
	if !old {
		f.watch.Feed(now, pressure.Sample{})
		return ContainerWait{}, false, nil
	}
	cpu, err := c.cpu(container, waits, f.limits.cpu, stopped, r)
	if err != nil {
		return ContainerWait{}, false, err
	}
	sample := pressure.Sample{CPU: &cpu}
	if s, ok := r.stalls[container.ID]; ok {
		sample.Memory, sample.IO, f.evidence = s.memory, s.io, s.evidence
	}
	f.lately.Feed(now, r.wall, waits)
	return f.told(container.ID, sample, f.watch.Feed(now, sample)), true, nil
}

// told is what is known of a container after a reading.
func (f *followed) told(id string, sample pressure.Sample, states pressure.States) ContainerWait {
	lately, wall := f.lately.Sum()
	shares := lately.Per(wall, blame.Name{})
	shares.Grades, shares.Evidence = states.Grades(), f.evidence
	_, worst := states.Worst()
	shares.Suffering = worst.Grade == model.Severe
	return ContainerWait{
		ContainerID: id, Total: f.total, Wait: sample.CPU.Wait, Run: sample.CPU.Run, Memory: f.memory,
		Sample: sample, States: states, Causes: maps.Clone(f.causes), Shares: shares,
	}
}

// waits is what a container waited since the reading before, by its causes.
func (c *Contention) waits(container Container, r reading) (waits blame.Waits, err error) {
	waits = r.owed[container.ID]
	var held time.Duration
	for _, id := range container.Cgroups {
		waits.Wait += grown(r.groups[id].Wait, c.kernel.Groups[id].Wait)
		held += grown(r.groups[id].Throttled, c.kernel.Groups[id].Throttled)
	}
	lost := r.interrupts(container)
	waits.Interrupt(lost.steal, lost.softirq)
	waits.Quota, waits.NodeQuota, err = c.quota(container, held)
	return waits, err
}

// cpu is what a container with a limit did and waited since the reading before, in which its own
// quotas had stopped its run queues for a time.
func (c *Contention) cpu(container Container, waits blame.Waits, limit model.Cores, stopped time.Duration, r reading) (cpu pressure.CPU, err error) {
	cpu = pressure.CPU{
		Limit:     limit,
		Wait:      perSecond(waits.Wait, r.wall),
		Run:       model.Cores(perSecond(waits.Run, r.wall)),
		Others:    model.Cores(perSecond(r.busy-waits.Run, r.wall)),
		Throttled: perSecond(stopped, r.wall),
	}
	if r.measured {
		cpu.Owed = &pressure.Owed{
			Others: perSecond(waits.Neighbour()+waits.Node+waits.Steal, r.wall),
			Shared: perSecond(waits.NodeQuota+waits.SoftIRQ, r.wall),
		}
	}
	if stopped > 0 {
		cpu.Threads, err = c.config.Cgroups.Threads(container.Group)
	}
	return cpu, err
}

// limits are what bounds a container's use of the CPU. They are seldom changed and dear to read:
// once in limitPause will do.
type limits struct {
	at     time.Time
	cpu    model.Cores // of all quotas and cpusets, its own and above
	quotas []Group     // its own group and its pod's, such of them as have a quota
}

const limitPause = 10 * time.Second

func (c *Contention) limits(now time.Time, container Container, cpus model.Cores) (l limits, err error) {
	l.at = now
	if l.cpu, err = c.config.Cgroups.CPULimit(container.Group, cpus); err != nil {
		return l, err
	}
	for _, g := range []Group{container.Group, container.Pod} {
		quota, err := c.config.Cgroups.CPUQuota(g)
		if err != nil {
			return l, err
		}
		if !math.IsInf(float64(quota), 1) {
			l.quotas = append(l.quotas, g)
		}
	}
	return l, nil
}

// stopped is for how long a container's own quotas, its own and its pod's, have stopped its run
// queues since the reading before. A quota above the pods is the node's: to be short of that is
// contention. What one that is new had done before does not count.
func (c *Contention) stopped(now time.Time, f *followed, container Container, cpus model.Cores) (time.Duration, error) {
	before := f.limits
	if now.Sub(f.limits.at) >= limitPause {
		l, err := c.limits(now, container, cpus)
		if err != nil {
			return 0, err
		}
		f.limits = l
	}
	var sum time.Duration
	for _, g := range f.limits.quotas {
		throttled, err := c.config.Cgroups.Throttled(g)
		if err != nil {
			return 0, err
		}
		sum += throttled
	}
	was := f.throttled
	f.throttled = sum
	if !slices.Equal(before.quotas, f.limits.quotas) {
		return 0, nil
	}
	return grown(sum, was), nil
}

// grown is how much a counter has grown; one that is less than before began anew.
func grown(now, before time.Duration) time.Duration {
	if now < before {
		return now
	}
	return now - before
}

// perSecond is a time per wall time; not below 0.
func perSecond(of, wall time.Duration) float64 {
	return max(0, of.Seconds()/wall.Seconds())
}

// makeRoom forgets groups that are gone: the kernel's table is finite, and every process
// started by hand may have had a group of its own. Done once a minute at most.
func (c *Contention) makeRoom(now time.Time, meter WaitMeter) error {
	const many = 1024
	if len(c.kernel.Groups) < many || now.Sub(c.forgotten) < time.Minute {
		return nil
	}
	c.forgotten = now
	alive := map[uint64]bool{}
	if err := c.config.Cgroups.each("/", func(_ string, id uint64) error { alive[id] = true; return nil }); err != nil {
		return fmt.Errorf("find the groups that are gone: %w", err)
	}
	for id := range c.kernel.Groups {
		if alive[id] {
			continue
		}
		if err := meter.Forget(id); err != nil {
			return err
		}
		delete(c.kernel.Groups, id)
	}
	return nil
}
