package measure

import (
	"errors"
	"io/fs"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// Memory and IO of the containers are read at every interval while the node stalls for one
// of them, and for stallHold afterwards; else once in stallPause, which is for the evidence.
const (
	stallHold  = 10 * time.Second
	stallPause = 10 * time.Second
)

// stallCounters are what a container has come to. They only grow, but for the memory that it holds.
type stallCounters struct {
	memoryStalled, ioStalled *time.Duration // nil where the kernel keeps no PSI of it
	memory                   memoryStat
	nearest                  limited // of the container's group and its pod's
	io                       int64
	ioBy                     map[int]int64 // by process, where io is not told
	ioLimited                bool
}

// readStalls reads all of one container. What the kernel does not keep is left out. Whether its IO
// is limited is taken from before, unless that is nil.
func (c Cgroups) readStalls(container Container, proc string, before *stallCounters) (s stallCounters, err error) {
	s.memoryStalled = c.stalled(container.Group, model.OnMemory)
	s.ioStalled = c.stalled(container.Group, model.OnIO)
	if s.memory, err = c.MemoryStat(container.Group); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if s.nearest, err = c.nearest(container, s.memory); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if s.io, err = c.IOBytes(container.Group); err != nil {
		return s, err
	}
	if c.v1 && s.io == 0 {
		if s.ioBy, err = c.processIO(container.Group, proc); err != nil {
			return s, err
		}
	}
	if before != nil {
		s.ioLimited = before.ioLimited
		return s, nil
	}
	for _, g := range []Group{container.Group, container.Pod} {
		limited, err := c.ioLimited(g)
		if err != nil {
			return s, err
		}
		s.ioLimited = s.ioLimited || limited
	}
	return s, nil
}

func (c Cgroups) stalled(g Group, r model.Resource) *time.Duration {
	file := c.pressureFile(g, r)
	if file == "" {
		return nil
	}
	p, err := readPSI(file)
	if err != nil {
		return nil // no PSI, or turned off for this group
	}
	return &p.total
}

// ioSince is what was read and written since a reading before, in bytes.
func (s stallCounters) ioSince(was stallCounters) float64 {
	sum := max(0, s.io-was.io)
	for pid, n := range s.ioBy {
		sum += max(0, n-was.ioBy[pid])
	}
	return float64(sum)
}

// stallReading is what all containers have in common between two readings of memory and IO.
type stallReading struct {
	at                             time.Time
	memoryStalled, ioStalled, disk int64 // since boot: ns, ns, bytes
	node                           limited
	free                           float64                  // part of the memory, 0..1
	containers                     map[string]stallCounters // by ID
	limitsAt                       time.Time                // when it was last seen whether their IO is limited
}

// readAllStalls reads memory and IO of the node and of all containers. What could not be read
// of one container does not keep back the others.
func (c *Contention) readAllStalls(now time.Time, containers []Container) (stallReading, error) {
	r := stallReading{at: now, containers: map[string]stallCounters{}, limitsAt: c.stalls.limitsAt}
	if now.Sub(r.limitsAt) >= limitPause {
		r.limitsAt = now
	}
	var err error
	if r.node, r.free, err = c.nodeMemory(); err != nil {
		return r, err
	}
	r.memoryStalled, r.ioStalled = c.nodeStalled(model.OnMemory), c.nodeStalled(model.OnIO)
	if r.disk, err = readDiskBytes(c.config.Proc); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	var problems []error
	for _, container := range containers {
		var before *stallCounters
		if s, ok := c.stalls.containers[container.ID]; ok && !r.limitsAt.Equal(now) {
			before = &s
		}
		s, err := c.config.Cgroups.readStalls(container, c.config.Proc, before)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		r.containers[container.ID] = s
	}
	return r, errors.Join(problems...)
}

// nodeStalled is how long some task of the node has stalled, in nanoseconds; 0 without PSI.
func (c *Contention) nodeStalled(r model.Resource) int64 {
	p, err := readPSI(c.nodePressureFile(r))
	if err != nil {
		return 0
	}
	return p.total.Nanoseconds()
}

// stallsDue says whether memory and IO are to be read at now. Where the kernel sends no word
// of the node's stalls, they are asked for.
func (c *Contention) stallsDue(now time.Time) bool {
	if !c.triggered {
		asked := nodeStall{now, c.nodeStalled(model.OnMemory), c.nodeStalled(model.OnIO)}
		before := c.asked
		c.asked = asked
		if wall := now.Sub(before.at); !before.at.IsZero() && wall > 0 {
			of := func(r model.Resource, ns int64) bool {
				return perSecond(time.Duration(ns), wall) >= c.config.Thresholds[r].Tight.Trigger
			}
			if of(model.OnMemory, asked.memory-before.memory) || of(model.OnIO, asked.io-before.io) {
				c.stallUntil = now.Add(stallHold)
			}
		}
	}
	return now.Before(c.stallUntil) || now.Sub(c.stalls.at) >= stallPause
}

// nodeStall is how long some task of the node has stalled until a moment, in nanoseconds.
type nodeStall struct {
	at         time.Time
	memory, io int64
}

// stallRates are the figures of one container between two readings of memory and IO.
type stallRates struct {
	memory   *pressure.Memory // nil: not known, or not of this interval
	io       *pressure.IO
	evidence pressure.Evidence
}

// rates makes rates of two readings, by container.
func (now stallReading) rates(before stallReading) map[string]stallRates {
	wall := now.at.Sub(before.at)
	if before.at.IsZero() || wall <= 0 {
		return nil
	}
	per := func(n, was int64) float64 { return float64(max(0, n-was)) / wall.Seconds() }
	part := func(n, was *time.Duration) *float64 {
		if n == nil || was == nil {
			return nil
		}
		share := min(1, perSecond(*n-*was, wall))
		return &share
	}
	rates := map[string]stallRates{}
	var faults, bytes float64
	for id, n := range now.containers {
		was, ok := before.containers[id]
		if !ok {
			continue
		}
		e := pressure.Evidence{
			MajorFaults: per(n.memory.majorFaults, was.memory.majorFaults),
			Refaults:    per(n.memory.refaults, was.memory.refaults),
			OOMKills:    int(n.memory.oomKills),
		}
		m := &pressure.Memory{
			Stalled: part(n.memoryStalled, was.memoryStalled), NodeStalled: min(1, per(now.memoryStalled, before.memoryStalled)/1e9),
			Faults: e.MajorFaults + e.Refaults, Usage: n.nearest.usage, Held: n.nearest.held, Limit: n.nearest.limit,
			NodeFree: now.free, NodeHeld: now.node.held, NodeSize: now.node.limit, OwnHeld: n.memory.held,
		}
		i := &pressure.IO{
			Stalled: part(n.ioStalled, was.ioStalled), NodeStalled: min(1, per(now.ioStalled, before.ioStalled)/1e9),
			Own: n.ioSince(was) / wall.Seconds(), Node: per(now.disk, before.disk), Limited: n.ioLimited,
		}
		faults += m.Faults
		bytes += i.Own
		rates[id] = stallRates{m, i, e}
	}
	for id, r := range rates {
		r.memory.NodeFaults = faults
		r.io.Others = bytes - r.io.Own
		r.evidence.OfLimit, r.evidence.MemoryStall, r.evidence.IOStall = r.memory.OfLimit(), r.memory.All(), r.io.All()
		rates[id] = r
	}
	return rates
}
