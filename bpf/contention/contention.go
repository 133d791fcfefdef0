// Package contention measures in the kernel how long the tasks of every control group wait
// in the CPU's run queue, and how long they run.
//
// It attaches to the BTF tracepoints sched_wakeup, sched_wakeup_new and sched_switch, which
// needs Linux 5.11 or newer with BTF (task storage for tracing programs), CAP_BPF and
// CAP_PERFMON. One scheduler switch costs 140 to 200 ns more.
//
// Known limits: a wait is charged when it ends, so a task that is kept from the CPU for
// seconds shows up late, all at once; a run likewise, when the task leaves the CPU. What is
// reported includes the time in which a group was throttled by a CPU quota.
package contention

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror" -target bpfel contention contention.bpf.c

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
}

// Meter holds the attached programs and their maps. It may be used by one goroutine at a time.
type Meter struct {
	objects contentionObjects
	links   []link.Link
}

// Attach loads the programs into the kernel and attaches them. The caller closes the Meter.
func Attach(hierarchy Hierarchy) (*Meter, error) {
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
	m := &Meter{}
	if err := spec.LoadAndAssign(&m.objects, nil); err != nil {
		return nil, fmt.Errorf("load the contention programs (Linux 5.11 with BTF, CAP_BPF and CAP_PERFMON are needed): %w", err)
	}
	// The switch comes first: it clears what a wake-up notes down, and not the other way round.
	for _, program := range []*ebpf.Program{m.objects.SchedSwitch, m.objects.SchedWakeup, m.objects.SchedWakeupNew} {
		l, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %v: %w", program, err), m.Close())
		}
		m.links = append(m.links, l)
	}
	return m, nil
}

// Read gives the usage of every group that has had a task on a CPU, by cgroup ID: the inode
// number of the group's directory.
func (m *Meter) Read() (map[uint64]Usage, error) {
	groups := make(map[uint64]Usage)
	var id uint64
	var perCPU []contentionUsage
	entries := m.objects.Groups.Iterate()
	for entries.Next(&id, &perCPU) {
		var sum Usage
		for _, u := range perCPU {
			sum.Wait += time.Duration(u.WaitNs)
			sum.Run += time.Duration(u.RunNs)
			sum.Switches += u.Switches
		}
		groups[id] = sum
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read the contention of %d or more groups: %w", len(groups), err)
	}
	return groups, nil
}

// Forget drops a group that is gone, to make room. Forgetting an unknown group is no error.
func (m *Meter) Forget(id uint64) error {
	if err := m.objects.Groups.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget cgroup %d: %w", id, err)
	}
	return nil
}

// Lost is how many charges found no room; greater than 0 means figures are too low.
func (m *Meter) Lost() (uint64, error) {
	var perCPU []uint64
	if err := m.objects.Lost.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read the count of lost charges: %w", err)
	}
	var sum uint64
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}

// Close detaches the programs and frees the maps.
func (m *Meter) Close() error {
	errs := make([]error, 0, len(m.links)+1)
	for _, l := range m.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, m.objects.Close())...)
}
