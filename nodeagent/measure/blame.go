package measure

import (
	"maps"
	"math"
	"time"

	"github.com/drover-project/drover/bpf/contention"
	"github.com/drover-project/drover/internal/blame"
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

// stolen is what the machine lost until a moment, since boot.
type stolen struct {
	at             time.Time
	steal, softirq time.Duration
}

// lose notes down what the machine has lost, and gives it per second over the window.
func (c *Contention) lose(now stolen) (steal, softirq float64) {
	c.stolen = append(c.stolen, now)
	for len(c.stolen) > 2 && !c.stolen[1].at.After(now.at.Add(-c.config.Thresholds.Window)) {
		c.stolen = c.stolen[1:]
	}
	first := c.stolen[0]
	wall := now.at.Sub(first.at)
	if wall <= 0 {
		return 0, 0
	}
	return perSecond(now.steal-first.steal, wall), perSecond(now.softirq-first.softirq, wall)
}
