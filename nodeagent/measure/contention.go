package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/drover-project/drover/bpf/contention"
	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// WaitMeter counts run-queue waits by cgroup ID. contention.Attach gives the real one.
type WaitMeter interface {
	Read() (contention.Reading, error)
	Forget(id uint64) error
	Close() error
}

// AttachWaitMeter loads the kernel programs for the given hierarchy.
func AttachWaitMeter(h contention.Hierarchy) (WaitMeter, error) { return contention.Attach(h) }

// PodNames gives the names of what the control groups show. It is called once a second for
// every container and answers from memory.
type PodNames interface {
	// Container is false for a container that is not known, or is no user's container:
	// it is measured, but not reported.
	Container(podUID, containerID string) (pod model.PodID, container string, ok bool)
}

// ContentionConfig is what a Contention works with. All fields are wanted.
type ContentionConfig struct {
	Cgroups  Cgroups
	Kubepods Group
	// Proc is where the host's procfs is mounted.
	Proc string
	// Interval between two readings; Thresholds.Window holds several.
	Interval   time.Duration
	Thresholds pressure.Config
	Attach     func(contention.Hierarchy) (WaitMeter, error)
	Names      PodNames
	Log        *slog.Logger
}

// ContainerWait is the contention of one container at one moment. Rates are means over the
// last interval.
type ContainerWait struct {
	Pod         model.PodID
	Container   string
	ContainerID string
	// Total is all its wait since it was first seen, whatever the cause.
	Total time.Duration
	// Wait is that of the last interval, in seconds per second; External the part of it
	// that others cause (pressure.Share).
	Wait, External float64
	// Run is the CPU it used.
	Run model.Cores
	// Memory it uses, without the file cache not used lately.
	Memory model.Bytes
	// State is what the thresholds make of External.
	State pressure.State
	// Causes is what Total is made of; Shares is what it was, and for whom, over the
	// thresholds' window.
	Causes map[blame.Cause]time.Duration
	Shares blame.Shares
}

// ContentionSnapshot is everything known at one moment, ordered by pod and container.
type ContentionSnapshot struct {
	At         time.Time
	Containers []ContainerWait
	// Steal and SoftIRQ are the node's, as in a blame.Report.
	Steal, SoftIRQ float64
	// Lost is contention.Reading's.
	Lost uint64
}

// Report gives the form in which a node tells its users.
func (s ContentionSnapshot) Report() blame.Report {
	r := blame.Report{At: s.At, Containers: []blame.Shares{}, Steal: s.Steal, SoftIRQ: s.SoftIRQ}
	for _, c := range s.Containers {
		r.Containers = append(r.Containers, c.Shares)
	}
	return r
}

// Suffering lists the containers that suffer, in the form in which a node tells others.
func (s ContentionSnapshot) Suffering() []model.Contention {
	var list []model.Contention
	for _, c := range s.Containers {
		if c.State.Suffering {
			list = append(list, model.Contention{Pod: c.Pod, Container: c.Container, Wait: c.State.Mean, Since: c.State.Since})
		}
	}
	return list
}

// Contention follows how long the containers of this node wait for the CPU.
type Contention struct {
	config ContentionConfig

	// Of Run alone.
	known     map[string]*followed // by container ID
	groups    map[uint64]contention.Usage
	owners    map[uint64]owner // by cgroup ID
	stolen    []stolen
	busy      time.Duration
	at        time.Time
	forgotten time.Time

	mu       sync.Mutex
	snapshot ContentionSnapshot
}

// NewContention makes a Contention; Run starts it.
func NewContention(config ContentionConfig) *Contention {
	return &Contention{config: config, known: map[string]*followed{}}
}

// Snapshot gives the last reading; its At is zero before the second one.
func (c *Contention) Snapshot() ContentionSnapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot
}

// Run loads the kernel programs and reads them at every interval until ctx ends. It returns
// an error when they cannot be loaded; one reading that fails is logged and left out.
func (c *Contention) Run(ctx context.Context) error {
	if err := c.config.Thresholds.Validate(); err != nil {
		return err
	}
	meter, err := c.config.Attach(c.config.Cgroups.Hierarchy())
	if err != nil {
		return fmt.Errorf("measure contention: %w", err)
	}
	tick := time.NewTicker(c.config.Interval)
	defer tick.Stop()
	for {
		if err := c.read(time.Now(), meter); err != nil {
			c.config.Log.Warn("contention was not measured", "error", err)
		}
		select {
		case <-ctx.Done():
			return meter.Close()
		case <-tick.C:
		}
	}
}

// read takes one reading at now and publishes it.
func (c *Contention) read(now time.Time, meter WaitMeter) error {
	kernel, err := meter.Read()
	if err != nil {
		return err
	}
	m, err := readMachine(c.config.Proc)
	if err != nil {
		return err
	}
	busy := m.busy
	if node := c.config.Kubepods.parent(); node != "/" {
		if busy, err = c.config.Cgroups.CPUTime(node); err != nil {
			return err
		}
	}
	containers, err := c.config.Cgroups.Containers(c.config.Kubepods)
	if err != nil {
		return err
	}
	wall := now.Sub(c.at)
	first := c.at.IsZero()
	if !first && wall <= 0 {
		return fmt.Errorf("the clock went from %v to %v", c.at, now)
	}
	waits, problems := c.followAll(now, containers, kernel.Groups, reading{wall, m.cpus, busy - c.busy, c.owed(containers, kernel.Owed)})
	steal, softirq := c.lose(stolen{now, m.steal, m.softirq})
	c.groups, c.busy, c.at = kernel.Groups, busy, now
	if !first {
		c.mu.Lock()
		c.snapshot = ContentionSnapshot{now, waits, steal, softirq, kernel.Lost}
		c.mu.Unlock()
	}
	return errors.Join(append(problems, c.makeRoom(now, meter))...)
}

// followAll brings all containers up to date and drops those that are gone. What could not
// be read of one container does not keep back the others.
func (c *Contention) followAll(now time.Time, containers []Container, groups map[uint64]contention.Usage, r reading) ([]ContainerWait, []error) {
	var waits []ContainerWait
	var problems []error
	for _, container := range containers {
		w, ok, err := c.follow(now, container, groups, r)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may just have ended
			problems = append(problems, fmt.Errorf("container %s of pod %s: %w", container.ID, container.PodUID, err))
		}
		if !ok || err != nil {
			continue
		}
		if w.Pod, w.Container, ok = c.config.Names.Container(container.PodUID, container.ID); ok {
			w.Shares.Name = blame.Name{Namespace: w.Pod.Namespace, Pod: w.Pod.Name, Container: w.Container}
			waits = append(waits, w)
		}
	}
	for id, f := range c.known {
		if !f.seen {
			delete(c.known, id)
		}
		f.seen = false
	}
	slices.SortFunc(waits, func(a, b ContainerWait) int {
		return cmp.Or(cmp.Compare(a.Pod.String(), b.Pod.String()), cmp.Compare(a.Container, b.Container),
			cmp.Compare(a.ContainerID, b.ContainerID))
	})
	return waits, problems
}
