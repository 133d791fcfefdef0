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

// AttachWaitMeter gives what loads the kernel programs for a hierarchy. They are pinned in a
// directory of a BPF file system; where that cannot be, they are not, and what they counted
// ends with the agent.
func AttachWaitMeter(pins string, log *slog.Logger) func(contention.Hierarchy) (WaitMeter, error) {
	return func(h contention.Hierarchy) (WaitMeter, error) {
		return pinned(pins, log, "contention is counted anew with each start of the agent", func(pins string) (WaitMeter, error) {
			return contention.Attach(h, pins)
		})
	}
}

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
	// Interval between two readings; every window of Thresholds holds two or more.
	Interval   time.Duration
	Thresholds pressure.Thresholds
	Attach     func(contention.Hierarchy) (WaitMeter, error)
	// Triggers tells of the node's stalls for memory and IO: OpenTriggers. Where it gives an
	// error, they are read at every interval.
	Triggers func(files map[string]float64) (PressureTriggers, error)
	Names    PodNames
	Log      *slog.Logger
}

// ContainerWait is the contention of one container at one moment. Rates are means over the
// last interval.
type ContainerWait struct {
	Pod         model.PodID
	Container   string
	ContainerID string
	// Total is all its wait for the CPU since it was first seen, whatever the cause.
	Total time.Duration
	// Wait is that of the last interval, in seconds per second.
	Wait float64
	// Run is the CPU it used.
	Run model.Cores
	// Memory it uses, without the file cache not used lately.
	Memory model.Bytes
	// Sample is what was read of it; States is what the thresholds make of that.
	Sample pressure.Sample
	States pressure.States
	// Causes is what Total is made of; Shares is what it was, and for whom, over the
	// window of severe contention for the CPU.
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

// Suffering lists the containers that suffer, once for every resource that is tight or severe,
// in the form in which a node tells others.
func (s ContentionSnapshot) Suffering() []model.Contention {
	var list []model.Contention
	for _, c := range s.Containers {
		for _, r := range pressure.Resources {
			if state := c.States[r]; state.Grade != model.Fine {
				list = append(list, model.Contention{Pod: c.Pod, Container: c.Container, Resource: r, Grade: state.Grade, Wait: state.Mean, Since: state.Since})
			}
		}
	}
	return list
}

// Contention follows how long the containers of this node wait for CPU, memory and IO.
type Contention struct {
	config ContentionConfig

	// Of Run alone.
	known     map[string]*followed // by container ID
	kernel    contention.Reading   // the one before
	cpus      machine
	owners    map[uint64]owner // by cgroup ID
	stolen    []stolen
	busy      time.Duration
	at        time.Time
	forgotten time.Time

	// triggered: the kernel tells of the node's stalls; else they were asked for. stalls is the
	// last reading of memory and IO, which are read at every interval until stallUntil.
	triggered  bool
	asked      nodeStall
	stalls     stallReading
	stallUntil time.Time

	mu       sync.Mutex
	snapshot ContentionSnapshot
	failures uint64 // readings that failed, or did for some container
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

// Current gives the last reading as far as it still says something at now: without containers once
// it is older than every window.
func (c *Contention) Current(now time.Time) ContentionSnapshot {
	s := c.Snapshot()
	if !c.fresh(s, now) {
		s.Containers = nil
	}
	return s
}

func (c *Contention) fresh(s ContentionSnapshot, now time.Time) bool {
	return now.Sub(s.At) <= c.config.Thresholds.Window()
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
	fired, stop := c.openTriggers()
	defer stop()
	tick := time.NewTicker(c.config.Interval)
	defer tick.Stop()
	for {
		c.round(time.Now(), meter)
		if fired = c.wait(ctx, tick.C, fired); ctx.Err() != nil {
			return meter.Close()
		}
	}
}

// round takes one reading at now; one that fails is logged and counted.
func (c *Contention) round(now time.Time, meter WaitMeter) {
	err := c.read(now, meter)
	if err == nil {
		return
	}
	c.config.Log.Warn("contention was not measured", "error", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures++
}

// openTriggers has the kernel tell of the node's stalls, if it does; else the channel is nil.
func (c *Contention) openTriggers() (fired <-chan struct{}, stop func()) {
	t, err := c.config.Triggers(c.triggerFiles())
	if c.triggered = err == nil; !c.triggered {
		c.config.Log.Info("the kernel sends no word of the node's stalls for memory and IO: they are read at every interval", "error", err)
		return nil, func() {}
	}
	return t.Fired(), func() {
		if err := t.Close(); err != nil {
			c.config.Log.Warn("a pressure trigger was not closed", "error", err)
		}
	}
}

// wait returns when it is time to read, or ctx has ended. It gives the channel to wait on next.
func (c *Contention) wait(ctx context.Context, tick <-chan time.Time, fired <-chan struct{}) <-chan struct{} {
	for {
		select {
		case <-ctx.Done():
			return fired
		case <-tick:
			return fired
		case _, ok := <-fired:
			if !ok { // the node's control group is another one now
				c.triggered, fired = false, nil
				continue
			}
			now := time.Now()
			news := !now.Before(c.stallUntil)
			if c.stallUntil = now.Add(stallHold); news {
				return fired
			}
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
	busy := m.all.busy
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
	r := reading{
		wall: wall, cpus: m.cpus, busy: busy - c.busy, all: m.all.less(c.cpus.all), each: map[int]cpuTime{},
		groups: kernel.Groups, on: kernel.On, onBefore: c.kernel.On,
		owed: c.owed(containers, kernel.Owed), measured: kernel.Owed != nil && kernel.Lost == c.kernel.Lost,
	}
	for cpu, t := range m.each {
		r.each[cpu] = t.less(c.cpus.each[cpu])
	}
	problem := c.look(now, containers, &r)
	waits, problems := c.followAll(now, containers, r)
	steal, softirq := c.lose(stolen{now, m.all})
	c.kernel, c.cpus, c.busy, c.at = kernel, m, busy, now
	if !first {
		c.mu.Lock()
		c.snapshot = ContentionSnapshot{now, waits, steal, softirq, kernel.Lost}
		c.mu.Unlock()
	}
	return errors.Join(append(problems, problem, c.makeRoom(now, meter))...)
}

// look reads memory and IO if they are due, or if there is a container that was not there
// before. Rates over more than the time since the last reading are no news, and count as evidence
// alone.
func (c *Contention) look(now time.Time, containers []Container, r *reading) error {
	due := c.stallsDue(now)
	for _, container := range containers {
		_, known := c.known[container.ID]
		due = due || !known
	}
	if !due {
		return nil
	}
	stalls, err := c.readAllStalls(now, containers)
	r.memory, r.stalls = stalls.containers, stalls.rates(c.stalls)
	if !c.stalls.at.Equal(c.at) {
		for id, s := range r.stalls {
			r.stalls[id] = stallRates{evidence: s.evidence}
		}
	}
	c.stalls = stalls
	return err
}

// followAll brings all containers up to date and drops those that are gone. What could not
// be read of one container does not keep back the others.
func (c *Contention) followAll(now time.Time, containers []Container, r reading) ([]ContainerWait, []error) {
	var waits []ContainerWait
	var problems []error
	for _, container := range containers {
		w, ok, err := c.follow(now, container, r)
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
