package measure

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// userHZ is the unit of the times in /proc/stat: 1/100 s on every architecture Go runs on
// (USER_HZ, which is not the kernel's own HZ).
const userHZ = 100

// machine is what procfs tells of the whole machine.
type machine struct {
	cpus model.Cores   // that are online
	busy time.Duration // summed over the CPUs, since boot
	// Parts of busy: taken by a hypervisor, and used for soft interrupts.
	steal, softirq time.Duration
}

var cpuLine = regexp.MustCompile(`^cpu\d+ `)

// readMachine reads stat of procfs. Waiting for disks is idle time; time that a hypervisor
// gave to another guest (steal) is not: nobody here can have it.
func readMachine(proc string) (machine, error) {
	file := filepath.Join(proc, "stat")
	f, err := os.Open(file)
	if err != nil {
		return machine{}, err
	}
	defer f.Close()
	var m machine
	// The line of the interrupts is longer than a Scanner's default.
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if cpuLine.MatchString(line) {
			m.cpus++
		}
		if !strings.HasPrefix(line, "cpu ") {
			continue
		}
		// user nice system idle iowait irq softirq steal guest guest_nice; the guests'
		// times are in user and nice already.
		for i, field := range strings.Fields(line)[1:] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return machine{}, fmt.Errorf("read %s: %q: %w", file, line, err)
			}
			d := time.Duration(ticks) * (time.Second / userHZ)
			if i != 3 && i != 4 && i < 8 {
				m.busy += d
			}
			switch i {
			case 6:
				m.softirq = d
			case 7:
				m.steal = d
			}
		}
	}
	if err := lines.Err(); err != nil {
		return machine{}, fmt.Errorf("read %s: %w", file, err)
	}
	if m.cpus == 0 {
		return machine{}, fmt.Errorf("read %s: no CPU in it", file)
	}
	return m, nil
}

// readMemoryUsed is what could not be given to a new process without swapping.
func readMemoryUsed(proc string) (model.Bytes, error) {
	file := filepath.Join(proc, "meminfo")
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	found := map[string]int64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || (fields[0] != "MemTotal:" && fields[0] != "MemAvailable:") {
			continue
		}
		if found[fields[0]], err = strconv.ParseInt(fields[1], 10, 64); err != nil {
			return 0, fmt.Errorf("read %s: %q: %w", file, lines.Text(), err)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	if len(found) != 2 {
		return 0, fmt.Errorf("read %s: MemTotal or MemAvailable is missing", file)
	}
	return max(0, model.Bytes(found["MemTotal:"]-found["MemAvailable:"])*model.KiB), nil
}
