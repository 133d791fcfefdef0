package measure

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	detector              *pressure.Detector
	seen                  bool
}

// reading is what all containers have in common between two readings.
type reading struct {
	wall time.Duration
	cpus model.Cores
	busy time.Duration // of the node: the pods and all else in the group above them
	owed map[string]blame.Waits
}

// follow brings one container up to date. It is false for one that was not there at the
// previous reading.
func (c *Contention) follow(now time.Time, container Container, groups map[uint64]contention.Usage, r reading) (ContainerWait, bool, error) {
	f, old := c.known[container.ID]
	if !old {
		f = &followed{
			detector: pressure.New(c.config.Thresholds),
			lately:   blame.NewWindow(c.config.Thresholds.Window),
			causes:   map[blame.Cause]time.Duration{},
		}
		c.known[container.ID] = f
	}
	f.seen = true
	waits := r.owed[container.ID]
	var held time.Duration
	for _, id := range container.Cgroups {
		waits.Wait += grown(groups[id].Wait, c.groups[id].Wait)
		held += grown(groups[id].Throttled, c.groups[id].Throttled)
	}
	f.total += waits.Wait
	run, err := c.config.Cgroups.CPUTime(container.Group)
	if err != nil {
		return ContainerWait{}, false, err
	}
	throttled, err := c.throttled(container)
	if err != nil {
		return ContainerWait{}, false, err
	}
	ran, stopped := grown(run, f.run), grown(throttled, f.throttled)
	f.run, f.throttled = run, throttled
	if waits.Quota, waits.NodeQuota, err = c.quota(container, held); err != nil {
		return ContainerWait{}, false, err
	}
	for cause, d := range waits.Causes() {
		f.causes[cause] += d
	}
	if !old {
		f.detector.Feed(now, 0)
		return ContainerWait{}, false, nil
	}
	share := pressure.Share{
		Wait:      perSecond(waits.Wait, r.wall),
		Run:       model.Cores(perSecond(ran, r.wall)),
		Others:    model.Cores(perSecond(r.busy-ran, r.wall)),
		Throttled: perSecond(stopped, r.wall),
	}
	if share.Limit, err = c.config.Cgroups.CPULimit(container.Group, r.cpus); err != nil {
		return ContainerWait{}, false, err
	}
	if stopped > 0 {
		if share.Threads, err = c.config.Cgroups.Threads(container.Group); err != nil {
			return ContainerWait{}, false, err
		}
	}
	memory, err := c.config.Cgroups.Memory(container.Group)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ContainerWait{}, false, err
	}
	external := share.External()
	waits.Run = ran
	f.lately.Feed(now, r.wall, waits)
	lately, wall := f.lately.Sum()
	state := f.detector.Feed(now, external)
	shares := lately.Per(wall, blame.Name{})
	shares.Suffering = state.Suffering
	return ContainerWait{
		ContainerID: container.ID,
		Total:       f.total,
		Wait:        share.Wait,
		External:    external,
		Run:         share.Run,
		Memory:      memory,
		State:       state,
		Causes:      maps.Clone(f.causes),
		Shares:      shares,
	}, true, nil
}

// throttled is the throttled time of a container's own quotas: its own and its pod's. A
// quota above the pods is the node's: to be short of that is contention.
func (c *Contention) throttled(container Container) (time.Duration, error) {
	own, err := c.config.Cgroups.Throttled(container.Group)
	if err != nil {
		return 0, err
	}
	pod, err := c.config.Cgroups.Throttled(container.Pod)
	return own + pod, err
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
	if len(c.groups) < many || now.Sub(c.forgotten) < time.Minute {
		return nil
	}
	c.forgotten = now
	alive := map[uint64]bool{}
	if err := c.config.Cgroups.each("/", func(_ string, id uint64) error { alive[id] = true; return nil }); err != nil {
		return fmt.Errorf("find the groups that are gone: %w", err)
	}
	for id := range c.groups {
		if alive[id] {
			continue
		}
		if err := meter.Forget(id); err != nil {
			return err
		}
		delete(c.groups, id)
	}
	return nil
}
