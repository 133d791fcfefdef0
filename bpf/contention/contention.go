// Package contention measures in the kernel how long the tasks of every control group wait
// in the CPU's run queue, who runs on that CPU meanwhile, and how long they run.
//
// It attaches to the BTF tracepoints sched_wakeup, sched_wakeup_new, sched_migrate_task and
// sched_switch, which needs Linux 5.13 or newer with BTF (task storage for tracing programs),
// CAP_BPF and CAP_PERFMON. Two switches with their two wake-ups, as `perf bench sched pipe` on
// one CPU makes them, cost 0.7 µs more; on two CPUs with a load of 25, where nearly every switch
// ends a wait that somebody else is to blame for, one switch costs up to as much.
// A reading visits all tasks of its own PID namespace and below, for the waits that go on: 0.3 µs
// for each (BenchmarkRead), and a few more for one that waits.
//
// Known limits: a run is charged when the task leaves the CPU, and no wait is while a CPU quota
// holds: both may show up late, all at once. What a CPU does besides running a task, interrupts and
// what a hypervisor takes (steal), counts as run by the task that was on it.
package contention

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/drover-project/drover/bpf/iterator"
	"github.com/drover-project/drover/bpf/pin"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -target bpfel contention contention.bpf.c

// Hierarchy tells which control groups are counted.
type Hierarchy uint8

const (
	// V2 counts by the cgroup v2 hierarchy.
	V2 Hierarchy = iota
	// V1CPU counts by the cgroup v1 hierarchy of the cpu controller; on hybrid systems
	// that is where containers are.
	V1CPU
)

// Usage is what the tasks of one control group, without those of its children, have had
// since the programs were attached. It only grows.
type Usage struct {
	// Wait is the time spent runnable but not on a CPU, summed over the tasks.
	Wait time.Duration
	// Run is the time spent on a CPU, summed over the tasks.
	Run time.Duration
	// Switches is how often a task was put on a CPU.
	Switches uint64
	// Throttled is the part of Wait in which a CPU quota, of the group or of one above it,
	// kept the group off the CPU. Nobody owes it.
	Throttled time.Duration
}

// Pair is a group whose tasks waited, and the group that ran on their CPU meanwhile; both by
// cgroup ID. Where the two are the same, tasks waited for others of their own group.
type Pair struct{ Waits, Runs uint64 }

// Reading is what a Meter knows at one moment.
type Reading struct {
	// Groups is the usage of every group that has had a task on a CPU, by cgroup ID: the
	// inode number of the group's directory.
	Groups map[uint64]Usage
	// Owed is how long groups have waited for one another since the reading before. What of
	// a group's Wait is neither owed nor Throttled is the time in which its CPU was idle
	// already, and about to come to it. Waits of the root group, where the kernel's own
	// threads are, are not told.
	//
	// It is exact for the last 128 changes from one group to another before a wait ends or is read.
	// What was waited before those is shared out by what the groups have run on that CPU
	// since the reading before.
	Owed map[Pair]time.Duration
	// On is how long the tasks of every group in Groups ran and waited on each CPU since the
	// programs were attached, by the CPU's number.
	On map[uint64][]time.Duration
	// Lost is how many charges found no room since the programs were attached; greater
	// than 0 means figures are too low.
	Lost uint64
}

// Meter holds the attached programs and their maps. It may be used by one goroutine at a time.
type Meter struct {
	objects contentionObjects
	links   []link.Link
	waiting *link.Iter // charges the waits that go on
	groups  batch[uint64, contentionUsage]
	pairs   batch[contentionPair, uint64]
	// Of the reading before.
	owed map[contentionPair]uint64
	self map[uint64]uint64 // owed by each group to itself
	ran  map[uint64][]uint64
}

// Attach loads the programs into the kernel and attaches them. The caller closes the Meter.
//
// pins is a directory in a BPF file system, or empty. There the programs and what they count
// outlive the Meter, and the next one goes on with them: see package pin.
func Attach(hierarchy Hierarchy, pins string) (_ *Meter, err error) {
	spec, err := loadContention()
	if err != nil {
		return nil, fmt.Errorf("read the contention programs: %w", err)
	}
	v1 := uint8(0)
	if hierarchy == V1CPU {
		v1 = 1
	}
	if err := spec.Variables[contentionVarV1Cpu].Set(v1); err != nil {
		return nil, fmt.Errorf("set the hierarchy of the contention programs: %w", err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs for the contention programs: %w", err)
	}
	spec.Maps[contentionMapCpus].MaxEntries = uint32(cpus)
	m := &Meter{groups: newBatch[uint64, contentionUsage](cpus), pairs: newBatch[contentionPair, uint64](cpus)}
	var pinned *pin.Set
	if pins != "" {
		if pinned, err = pin.Open(pins, spec, fmt.Sprintf("%x %d", sha256.Sum256(_ContentionBytes), v1)); err != nil {
			return nil, fmt.Errorf("pin the contention programs: %w", err)
		}
	}
	defer func() {
		if err != nil { // what is attached all the same nobody would read
			err = errors.Join(err, pinned.Detach())
		}
	}()
	if err := spec.LoadAndAssign(&m.objects, pinned.Options()); err != nil {
		return nil, fmt.Errorf("load the contention programs (Linux 5.13 with BTF, CAP_BPF and CAP_PERFMON are needed): %w", err)
	}
	if err := pinned.Replace(); err != nil {
		return nil, errors.Join(fmt.Errorf("pin the contention programs: %w", err), m.Close())
	}
	goesOn, err := pinned.Linked()
	if err == nil && len(goesOn) == 0 {
		err = m.forgetRuns()
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	// The switch comes first: it clears what a wake-up notes down, and not the other way round.
	for _, p := range []struct {
		name    string
		program *ebpf.Program
	}{
		{"sched_switch", m.objects.SchedSwitch}, {"sched_migrate_task", m.objects.SchedMigrateTask},
		{"sched_wakeup", m.objects.SchedWakeup}, {"sched_wakeup_new", m.objects.SchedWakeupNew},
	} {
		l, err := pinned.Link(p.name, func(link.Link) bool { return true }, func() (link.Link, error) {
			return link.AttachTracing(link.TracingOptions{Program: p.program})
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %v: %w", p.program, err), m.Close())
		}
		m.links = append(m.links, l)
	}
	if m.waiting, err = link.AttachIter(link.IterOptions{Program: m.objects.ChargeWaiting}); err != nil {
		return nil, errors.Join(fmt.Errorf("attach the iterator over tasks: %w", err), m.Close())
	}
	m.links = append(m.links, m.waiting)
	if len(goesOn) == 0 {
		if err := m.forgetWaits(); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// forgetRuns forgets what runs on each CPU and what ran there, as an older version's programs knew
// it: since they went nobody has.
func (m *Meter) forgetRuns() error {
	for cpu := range m.objects.Cpus.MaxEntries() {
		if err := m.objects.Cpus.Put(cpu, contentionCpu{}); err != nil {
			return fmt.Errorf("forget what ran on CPU %d: %w", cpu, err)
		}
	}
	return nil
}

// forgetWaits forgets what waits: the next reading finds what still does.
func (m *Meter) forgetWaits() error {
	i, err := link.AttachIter(link.IterOptions{Program: m.objects.ForgetWaiting})
	if err != nil {
		return fmt.Errorf("attach the iterator over tasks: %w", err)
	}
	if err = errors.Join(iterator.Run(i), i.Close()); err != nil {
		return fmt.Errorf("forget waits of before: %w", err)
	}
	return nil
}

// Read reads everything anew.
func (m *Meter) Read() (Reading, error) {
	if err := iterator.Run(m.waiting); err != nil {
		return Reading{}, fmt.Errorf("charge the waits that go on: %w", err)
	}
	owed, err := m.readOwed()
	if err != nil {
		return Reading{}, err
	}
	lost, err := m.lost()
	if err != nil {
		return Reading{}, err
	}
	r := Reading{Groups: make(map[uint64]Usage), On: make(map[uint64][]time.Duration), Lost: lost}
	ran, self := make(map[uint64][]uint64), make(map[uint64]uint64)
	err = inBatches(m.objects.Groups, &m.groups, func(id uint64, perCPU []contentionUsage) {
		var sum Usage
		ran[id], r.On[id] = make([]uint64, len(perCPU)), make([]time.Duration, len(perCPU))
		for cpu, u := range perCPU {
			sum.Wait += time.Duration(u.WaitNs)
			sum.Run += time.Duration(u.RunNs)
			sum.Switches += u.Switches
			sum.Throttled += time.Duration(u.ThrottledNs)
			self[id] += u.SelfNs
			ran[id][cpu], r.On[id][cpu] = u.RunNs, time.Duration(u.RunNs+u.WaitNs)
		}
		r.Groups[id] = sum
	})
	if err != nil {
		return Reading{}, fmt.Errorf("read the contention of %d or more groups: %w", len(r.Groups), err)
	}
	r.Owed = settle(grown(owed, m.owed), runs(ran, m.ran))
	for id, ns := range grown(self, m.self) {
		r.Owed[Pair{id, id}] += time.Duration(ns)
	}
	if err := m.makeRoom(owed); err != nil {
		return Reading{}, err
	}
	m.owed, m.self, m.ran = owed, self, ran
	return r, nil
}

// readOwed gives what each pair has come to.
func (m *Meter) readOwed() (map[contentionPair]uint64, error) {
	owed := make(map[contentionPair]uint64)
	err := inBatches(m.objects.Owed, &m.pairs, func(p contentionPair, perCPU []uint64) {
		owed[p] = 0
		for _, ns := range perCPU {
			owed[p] += ns
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read who waits for whom, %d pairs or more: %w", len(owed), err)
	}
	return owed, nil
}

// makeRoom drops the pairs that did not grow since the reading before, once half of the
// table is in use. One that comes again begins anew.
func (m *Meter) makeRoom(owed map[contentionPair]uint64) error {
	if len(owed) < int(m.objects.Owed.MaxEntries())/2 {
		return nil
	}
	for p, ns := range owed {
		if ns != m.owed[p] {
			continue
		}
		if err := m.objects.Owed.Delete(p); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget that cgroup %d waited for %d: %w", p.Waits, p.Runs, err)
		}
		delete(owed, p)
	}
	return nil
}

// Forget drops a group that is gone, to make room. Forgetting an unknown group is no error.
func (m *Meter) Forget(id uint64) error {
	if err := m.objects.Groups.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget cgroup %d: %w", id, err)
	}
	return nil
}

// lost counts the charges that found no room.
func (m *Meter) lost() (uint64, error) {
	var sum uint64
	for what := range m.objects.Lost.MaxEntries() {
		var perCPU []uint64
		if err := m.objects.Lost.Lookup(what, &perCPU); err != nil {
			return 0, fmt.Errorf("read the count of lost charges: %w", err)
		}
		for _, n := range perCPU {
			sum += n
		}
	}
	return sum, nil
}

// Close detaches the programs and frees the maps, unless they are pinned.
func (m *Meter) Close() error {
	errs := make([]error, 0, len(m.links)+1)
	for _, l := range m.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, m.objects.Close())...)
}
