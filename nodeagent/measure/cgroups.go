package measure

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/contention"
	"github.com/drover-project/drover/internal/kernelfile"
	"github.com/drover-project/drover/internal/model"
)

// Group is the path of a control group below the root of its hierarchy: "/" or
// "/kubepods/burstable". With cgroup v1 the same path is meant in every hierarchy.
type Group string

// parent of "/" is "/".
func (g Group) parent() Group { return Group(path.Dir(string(g))) }

// Cgroups reads the control groups of a machine: v1, hybrid (v1 controllers beside a v2
// hierarchy without any) or v2.
type Cgroups struct {
	root string
	v1   bool
}

// OpenCgroups looks at what is mounted at root, usually /sys/fs/cgroup.
func OpenCgroups(root string) (Cgroups, error) {
	if _, err := os.Stat(filepath.Join(root, "cpu")); err == nil {
		return Cgroups{root: root, v1: true}, nil
	}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		return Cgroups{}, fmt.Errorf("find control groups in %s: neither the v1 cpu hierarchy nor v2 is there; mount the host's /sys/fs/cgroup: %w", root, err)
	}
	return Cgroups{root: root}, nil
}

// Hierarchy is the one whose groups the kernel programs count.
func (c Cgroups) Hierarchy() contention.Hierarchy {
	if c.v1 {
		return contention.V1CPU
	}
	return contention.V2
}

// file is the path of a group's file. controller names the v1 hierarchy.
func (c Cgroups) file(controller string, g Group, name string) string {
	if c.v1 {
		return filepath.Join(c.root, controller, string(g), name)
	}
	return filepath.Join(c.root, string(g), name)
}

// dir is a group's directory in the hierarchy whose groups are counted.
func (c Cgroups) dir(g Group) string { return c.file("cpu", g, "") }

// unified is the root of the cgroup v2 hierarchy, which with v1 need not be mounted.
func (c Cgroups) unified() string {
	if c.v1 {
		return filepath.Join(c.root, "unified")
	}
	return c.root
}

// CPUTime is the CPU time that a group and all below it have used.
func (c Cgroups) CPUTime(g Group) (time.Duration, error) {
	if c.v1 {
		ns, err := readInt(c.file("cpuacct", g, "cpuacct.usage"))
		return time.Duration(ns), err
	}
	us, err := readField(c.file("cpu", g, "cpu.stat"), "usage_usec")
	return time.Duration(us) * time.Microsecond, err
}

// Throttled is the time for which the group's own quota has kept its run queues off the
// CPU, summed over the CPUs. A group without the cpu controller has none.
func (c Cgroups) Throttled(g Group) (time.Duration, error) {
	name, unit := "throttled_usec", time.Microsecond
	if c.v1 {
		name, unit = "throttled_time", time.Nanosecond
	}
	n, err := readField(c.file("cpu", g, "cpu.stat"), name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoField) {
		return 0, nil
	}
	return time.Duration(n) * unit, err
}

// CPUQuota is the most CPU that the group's own quota lets it use; +Inf without a quota.
func (c Cgroups) CPUQuota(g Group) (model.Cores, error) {
	none := model.Cores(math.Inf(1))
	var quota, period string
	if c.v1 {
		text, err := readOptional(c.file("cpu", g, "cpu.cfs_quota_us"))
		if err != nil || text == "" || strings.HasPrefix(text, "-") {
			return none, err
		}
		if period, err = readOptional(c.file("cpu", g, "cpu.cfs_period_us")); err != nil {
			return none, err
		}
		quota = text
	} else {
		text, err := readOptional(c.file("cpu", g, "cpu.max"))
		if err != nil || text == "" {
			return none, err
		}
		quota, period, _ = strings.Cut(text, " ")
		if quota == "max" {
			return none, nil
		}
	}
	q, errQ := strconv.ParseFloat(quota, 64)
	p, errP := strconv.ParseFloat(period, 64)
	if errQ != nil || errP != nil || p <= 0 {
		return none, fmt.Errorf("read the CPU quota of %s: %q microseconds in %q make no sense", g, quota, period)
	}
	return model.Cores(q / p), nil
}

// CPUSet is how many CPUs the group's cpuset lets it use; +Inf where none is set.
func (c Cgroups) CPUSet(g Group) (model.Cores, error) {
	name := "cpuset.cpus.effective"
	if c.v1 {
		name = "cpuset.effective_cpus"
	}
	text, err := readOptional(c.file("cpuset", g, name))
	if err != nil || text == "" {
		return model.Cores(math.Inf(1)), err
	}
	cpus, err := countCPUs(text)
	if err != nil {
		return model.Cores(math.Inf(1)), fmt.Errorf("read the cpuset of %s: %w", g, err)
	}
	return model.Cores(cpus), nil
}

// CPULimit is the most CPU that a group can use of a machine with the given number: the
// least of the quotas and cpusets of the group and all above it, up to the root.
func (c Cgroups) CPULimit(g Group, machine model.Cores) (model.Cores, error) {
	limit := machine
	for ; ; g = g.parent() {
		for _, read := range []func(Group) (model.Cores, error){c.CPUQuota, c.CPUSet} {
			own, err := read(g)
			if err != nil {
				return 0, err
			}
			limit = min(limit, own)
		}
		if g == "/" || g == "." {
			return limit, nil
		}
	}
}

// Memory is what the group and all below it use and could not give back at once: its usage
// less the file cache that was not used lately, as kubelet counts it.
func (c Cgroups) Memory(g Group) (model.Bytes, error) {
	name, inactive := "memory.current", "inactive_file"
	if c.v1 {
		name, inactive = "memory.usage_in_bytes", "total_inactive_file"
	}
	usage, err := readInt(c.file("memory", g, name))
	if err != nil {
		return 0, err
	}
	cache, err := readField(c.file("memory", g, "memory.stat"), inactive)
	if err != nil {
		return 0, err
	}
	return model.Bytes(max(0, usage-cache)), nil
}

// MemoryLimit is the least memory limit of a group and all above it, or of is less.
func (c Cgroups) MemoryLimit(g Group, of model.Bytes) (model.Bytes, error) {
	name := "memory.max"
	if c.v1 {
		name = "memory.limit_in_bytes"
	}
	for ; g != "/" && g != "."; g = g.parent() {
		text, err := readOptional(c.file("memory", g, name))
		if err != nil {
			return 0, err
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			of = min(of, model.Bytes(n))
		}
	}
	return of, nil
}

// Threads is how many threads the group and all below it have.
func (c Cgroups) Threads(g Group) (int, error) {
	name := "cgroup.threads"
	if c.v1 {
		name = "tasks"
	}
	threads := 0
	err := c.each(g, func(dir string, _ uint64) error {
		text, err := readOptional(filepath.Join(dir, name))
		threads += len(strings.Fields(text))
		return err
	})
	return threads, err
}

// each visits a group and all below it in the hierarchy whose groups are counted, with the
// kernel's ID of each: on 64-bit systems the inode number (fs/kernfs, kernfs_ino). What
// vanishes meanwhile is left out.
func (c Cgroups) each(g Group, visit func(dir string, id uint64) error) error {
	return eachBelow(c.dir(g), visit)
}

func eachBelow(dir string, visit func(dir string, id uint64) error) error {
	var s unix.Stat_t
	err := unix.Lstat(dir, &s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if err := visit(dir, s.Ino); err != nil || s.Nlink == leafLinks {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := eachBelow(filepath.Join(dir, e.Name()), visit); err != nil {
			return err
		}
	}
	return nil
}

// leafLinks is how many links a directory has with none below it: its name, and its own ".".
// Most groups are such, and to list their many files is dear. A file system that does not
// count so says 1 (Btrfs).
const leafLinks = 2

// countCPUs counts a list such as "0-3,7".
func countCPUs(list string) (int, error) {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil || b < a {
			return 0, fmt.Errorf("%q is no list of CPUs", list)
		}
		n += int(b-a) + 1
	}
	return n, nil
}

var errNoField = errors.New("no such field")

// readField reads one number of a file with a name and a number on each line.
func readField(file, name string) (int64, error) {
	text, err := kernelfile.Read(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if field, value, ok := strings.Cut(line, " "); ok && field == name {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s of %s: %w", name, file, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("read %s of %s: %w", name, file, errNoField)
}

// readFields reads some numbers of such a file at once. One that is not there is 0.
func readFields(file string, names ...string) (map[string]int64, error) {
	text, err := kernelfile.Read(file)
	if err != nil {
		return nil, err
	}
	found := make(map[string]int64, len(names))
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, " ")
		if !slices.Contains(names, name) {
			continue
		}
		if found[name], err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", name, file, err)
		}
	}
	return found, nil
}

func readInt(file string) (int64, error) {
	text, err := kernelfile.Read(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return n, nil
}

// readOptional gives "" when there is no such file: the controller is not on, or the group
// is the root.
func readOptional(file string) (string, error) {
	text, err := kernelfile.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(text), err
}
