package measure

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-project/drover/internal/kernelfile"
	"github.com/drover-project/drover/internal/model"
)

// userHZ is the unit of the times in /proc/stat: 1/100 s on every architecture Go runs on
// (USER_HZ, which is not the kernel's own HZ).
const userHZ = 100

// machine is what procfs tells of the whole machine.
type machine struct {
	cpus model.Cores // that are online
	all  cpuTime
	each map[int]cpuTime // by the CPU's number
}

// cpuTime is what one CPU, or all, did since boot.
type cpuTime struct {
	busy           time.Duration
	steal, softirq time.Duration // parts of busy: taken by a hypervisor, and used for soft interrupts
}

func (t cpuTime) less(before cpuTime) cpuTime {
	return cpuTime{t.busy - before.busy, t.steal - before.steal, t.softirq - before.softirq}
}

// readMachine reads stat of procfs. Waiting for disks is idle time; time that a hypervisor
// gave to another guest (steal) is not: nobody here can have it.
func readMachine(proc string) (machine, error) {
	file := filepath.Join(proc, "stat")
	text, err := kernelfile.Read(file)
	if err != nil {
		return machine{}, err
	}
	m := machine{each: map[int]cpuTime{}}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, " ")
		number, ok := strings.CutPrefix(name, "cpu")
		if !ok {
			continue
		}
		t, err := parseCPUTime(rest)
		if err != nil {
			return machine{}, fmt.Errorf("read %s: %q: %w", file, line, err)
		}
		if number == "" {
			m.all = t
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			return machine{}, fmt.Errorf("read %s: %q: %w", file, line, err)
		}
		m.each[n] = t
	}
	if m.cpus = model.Cores(len(m.each)); m.cpus == 0 {
		return machine{}, fmt.Errorf("read %s: no CPU in it", file)
	}
	return m, nil
}

// parseCPUTime reads "user nice system idle iowait irq softirq steal guest guest_nice"; the
// guests' times are in user and nice already.
func parseCPUTime(line string) (t cpuTime, err error) {
	for i, field := range strings.Fields(line) {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return t, err
		}
		d := time.Duration(ticks) * (time.Second / userHZ)
		if i != 3 && i != 4 && i < 8 {
			t.busy += d
		}
		switch i {
		case 6:
			t.softirq = d
		case 7:
			t.steal = d
		}
	}
	return t, nil
}

// memory is what a machine has; what nobody uses, not even as cache; and what could be given to a
// new process without swapping.
type memory struct{ total, free, available model.Bytes }

func readMemory(proc string) (memory, error) {
	file := filepath.Join(proc, "meminfo")
	text, err := kernelfile.Read(file)
	if err != nil {
		return memory{}, err
	}
	found := map[string]int64{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !slices.Contains([]string{"MemTotal:", "MemFree:", "MemAvailable:"}, fields[0]) {
			continue
		}
		if found[fields[0]], err = strconv.ParseInt(fields[1], 10, 64); err != nil {
			return memory{}, fmt.Errorf("read %s: %q: %w", file, line, err)
		}
	}
	if len(found) != 3 || found["MemTotal:"] <= 0 {
		return memory{}, fmt.Errorf("read %s: MemTotal, MemFree or MemAvailable is missing", file)
	}
	kib := func(name string) model.Bytes { return model.Bytes(found[name]) * model.KiB }
	return memory{kib("MemTotal:"), kib("MemFree:"), kib("MemAvailable:")}, nil
}

// readMemoryUsed is what could not be given to a new process.
func readMemoryUsed(proc string) (model.Bytes, error) {
	m, err := readMemory(proc)
	return max(0, m.total-m.available), err
}
