package measure

import (
	"maps"
	"math"
	"time"

	"github.com/drover-project/drover/bpf/contention"
	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/model"
)

// owner is the container that a control group belongs to.
type owner struct {
	id   string
	name blame.Name // none of a container that is no user's, or not known yet
}

// owed gives the waits of the containers, by ID, that somebody on the CPU owes them. A group
// that is gone is its container's that was.
func (c *Contention) owed(containers []Container, owed map[contention.Pair]time.Duration) map[string]blame.Waits {
	now := map[uint64]owner{}
	for _, container := range containers {
		o := owner{id: container.ID}
		if pod, name, ok := c.config.Names.Container(container.PodUID, container.ID); ok {
			o.name = blame.Name{Namespace: pod.Namespace, Pod: pod.Name, Container: name}
		}
		for _, id := range container.Cgroups {
			now[id] = o
		}
	}
	owners := maps.Clone(c.owners)
	if owners == nil {
		owners = map[uint64]owner{}
	}
	maps.Copy(owners, now)
	c.owners = now

	waits := map[string]blame.Waits{}
	for p, d := range owed {
		waiting, ok := owners[p.Waits]
		if !ok {
			continue
		}
		w := waits[waiting.id]
		switch running := owners[p.Runs]; {
		case running.id == waiting.id:
			w.Own += d
		case running.name == blame.Name{}:
			w.Node += d
		default:
			w.Owe(running.name, d)
		}
		waits[waiting.id] = w
	}
	return waits
}

// quota says whose a throttling was: the container's or its pod's, where one of them has a
// quota; else the node's, above all pods.
func (c *Contention) quota(container Container, throttled time.Duration) (own, node time.Duration, err error) {
	if throttled == 0 {
		return 0, 0, nil
	}
	for _, g := range []Group{container.Group, container.Pod} {
		quota, err := c.config.Cgroups.CPUQuota(g)
		if err != nil {
			return 0, 0, err
		}
		if !math.IsInf(float64(quota), 1) {
			return throttled, 0, nil
		}
	}
	return 0, throttled, nil
}

// interrupts are the parts (0..1) of the time of a CPU that ran something in which a hypervisor
// had taken it, and in which it served soft interrupts.
type interrupts struct{ steal, softirq float64 }

func (t cpuTime) interrupts() interrupts {
	if t.busy <= 0 {
		return interrupts{}
	}
	part := func(d time.Duration) float64 { return max(0, min(1, float64(d)/float64(t.busy))) }
	return interrupts{part(t.steal), part(t.softirq)}
}

// interrupts are those of the CPUs that a container ran or waited on since the reading before,
// each as much as it was there; where that is not known, of all CPUs.
func (r reading) interrupts(container Container) interrupts {
	var sum interrupts
	var weights float64
	for _, id := range container.Cgroups {
		before := r.onBefore[id]
		for cpu, on := range r.on[id] {
			if cpu < len(before) {
				on = grown(on, before[cpu])
			}
			i, weight := r.each[cpu].interrupts(), on.Seconds()
			sum.steal += weight * i.steal
			sum.softirq += weight * i.softirq
			weights += weight
		}
	}
	if weights <= 0 {
		return r.all.interrupts()
	}
	return interrupts{sum.steal / weights, sum.softirq / weights}
}

// stolen is what the machine lost until a moment, since boot.
type stolen struct {
	at time.Time
	cpuTime
}

// lose notes down what the machine has lost, and gives it per second over the window.
func (c *Contention) lose(now stolen) (steal, softirq float64) {
	c.stolen = append(c.stolen, now)
	for len(c.stolen) > 2 && !c.stolen[1].at.After(now.at.Add(-c.window())) {
		c.stolen = c.stolen[1:]
	}
	first := c.stolen[0]
	wall := now.at.Sub(first.at)
	if wall <= 0 {
		return 0, 0
	}
	return perSecond(now.steal-first.steal, wall), perSecond(now.softirq-first.softirq, wall)
}

// window is what shares are told over: that in which the CPU's contention is graded.
func (c *Contention) window() time.Duration {
	return c.config.Thresholds[model.OnCPU].Severe.Window
}
