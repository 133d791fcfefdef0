package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Resource is one that the kernel keeps pressure stall information of.
type Resource string

// The resources, named as the kernel names them.
const (
	CPU    Resource = "cpu"
	Memory Resource = "memory"
	IO     Resource = "io"
)

// Pressure is, for each resource, the share of the last ten seconds (0..1) in which some
// task waited for it: "some avg10" of Linux's Documentation/accounting/psi.rst. A kernel
// without PSI gives none.
type Pressure map[Resource]float64

// ReadPressure reads the pressure of a group, as far as the kernel keeps it, else that of
// the whole machine. "/" is the whole machine. proc is where procfs is mounted.
func (c Cgroups) ReadPressure(g Group, proc string) Pressure {
	found := Pressure{}
	for _, r := range []Resource{CPU, Memory, IO} {
		for _, file := range []string{c.pressureFile(g, r), filepath.Join(proc, "pressure", string(r))} {
			if file == "" {
				continue
			}
			if some, err := readPressure(file); err == nil {
				found[r] = some
				break
			}
		}
	}
	return found
}

// pressureFile is a group's own, "" where it has none: only v2 groups have. On hybrid
// systems the v2 group of that name counts if it holds processes.
func (c Cgroups) pressureFile(g Group, r Resource) string {
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

func readPressure(file string) (float64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "some avg10=")
		if !ok {
			continue
		}
		percent, _, _ := strings.Cut(rest, " ")
		p, err := strconv.ParseFloat(percent, 64)
		if err != nil || !(p >= 0 && p <= 100) {
			return 0, fmt.Errorf("read %s: avg10 is %q, want a percentage", file, percent)
		}
		return p / 100, nil
	}
	return 0, fmt.Errorf("read %s: no line begins with \"some avg10=\"", file)
}
