package measure

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/drover-project/drover/internal/kernelfile"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// Pressure is, for each resource, the share of the last ten seconds (0..1) in which some
// task waited for it: "some avg10" of Linux's Documentation/accounting/psi.rst. A kernel
// without PSI gives none.
type Pressure map[model.Resource]float64

// ReadPressure reads the pressure of a group, as far as the kernel keeps it, else that of
// the whole machine. "/" is the whole machine. proc is where procfs is mounted.
func (c Cgroups) ReadPressure(g Group, proc string) Pressure {
	found := Pressure{}
	for _, r := range pressure.Resources {
		for _, file := range []string{c.pressureFile(g, r), machinePressure(proc, r)} {
			if file == "" {
				continue
			}
			if p, err := readPSI(file); err == nil {
				found[r] = p.avg10
				break
			}
		}
	}
	return found
}

// pressureFile is a group's own, "" where it has none: only v2 groups have. On hybrid
// systems the v2 group of that name counts if it holds processes.
func (c Cgroups) pressureFile(g Group, r model.Resource) string {
	if g == "/" {
		return ""
	}
	dir := filepath.Join(c.root, string(g))
	if c.v1 {
		dir = filepath.Join(c.root, "unified", string(g))
	}
	if populated, err := readField(filepath.Join(dir, "cgroup.events"), "populated"); err != nil || populated == 0 {
		return ""
	}
	return filepath.Join(dir, string(r)+".pressure")
}

func machinePressure(proc string, r model.Resource) string {
	return filepath.Join(proc, "pressure", string(r))
}

// psi is the line "some" of a file of pressure stall information.
type psi struct {
	avg10 float64       // 0..1
	total time.Duration // in which some task waited, since boot
}

func readPSI(file string) (psi, error) {
	text, err := kernelfile.Read(file)
	if err != nil {
		return psi{}, err
	}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "some avg10=")
		if !ok {
			continue
		}
		percent, rest, _ := strings.Cut(rest, " ")
		p, err := strconv.ParseFloat(percent, 64)
		if err != nil || !(p >= 0 && p <= 100) {
			return psi{}, fmt.Errorf("read %s: avg10 is %q, want a percentage", file, percent)
		}
		_, total, _ := strings.Cut(strings.TrimSpace(rest), "total=")
		us, err := strconv.ParseInt(total, 10, 64)
		if err != nil || us < 0 {
			return psi{}, fmt.Errorf("read %s: total is %q, want microseconds", file, total)
		}
		return psi{p / 100, time.Duration(us) * time.Microsecond}, nil
	}
	return psi{}, fmt.Errorf("read %s: no line begins with \"some avg10=\"", file)
}
