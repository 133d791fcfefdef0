// Package features tells what of Linux that Drover uses the running kernel has, by using it.
package features

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Feature is one thing that a kernel has or has not.
type Feature struct {
	Name  string
	Since Version // the first Linux that has it, if it was built with it
	// Try uses the feature, and may tell more of it in a word or two. It leaves nothing behind.
	Try func() (detail string, err error)
	// Optional features are not mounted everywhere, and Drover does without.
	Optional bool
}

// Version is that of a kernel.
type Version struct{ Major, Minor int }

// Before tells whether v is older.
func (v Version) Before(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// ParseVersion reads the beginning of what uname -r prints.
func ParseVersion(release string) (Version, error) {
	var v Version
	if _, err := fmt.Sscanf(release, "%d.%d", &v.Major, &v.Minor); err != nil {
		return Version{}, fmt.Errorf("%q is no release of Linux: %w", release, err)
	}
	return v, nil
}

// Release is what uname -r prints.
func Release() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// All are the features, in the order in which they are shown. They want root.
func All() []Feature {
	return []Feature{
		{Name: "BTF of the kernel", Since: Version{5, 4}, Try: btfOfKernel},
		{Name: "tp_btf: the scheduler's tracepoints", Since: Version{5, 5}, Try: tracing("sched_switch")},
		{Name: "tp_btf: tcp_probe", Since: Version{5, 5}, Try: tracing("tcp_probe")},
		{Name: "task storage for tracing", Since: Version{5, 13}, Try: taskStorage},
		{Name: "quotas' clock, as contention reads it", Since: Version{4, 19}, Try: quotaClock},
		{Name: "sock_ops on the v2 root", Since: Version{4, 13}, Try: sockOps},
		{Name: "clsact", Since: Version{4, 5}, Try: clsact},
		{Name: "tcx", Since: Version{6, 6}, Try: tcx},
		{Name: "XDP, generic", Since: Version{5, 9}, Try: xdp},
		{Name: "kprobes", Since: Version{4, 17}, Try: kprobe},
		{Name: "PSI", Since: Version{4, 20}, Try: psi},
		{Name: "PSI of a control group", Since: Version{4, 20}, Try: psiOfGroup},
		{Name: "PSI triggers", Since: Version{5, 2}, Try: psiTrigger},
		{Name: "cgroup v1: cpu", Since: Version{2, 6}, Try: v1("cpu", "cpu.shares"), Optional: true},
		{Name: "cgroup v1: cpuacct", Since: Version{2, 6}, Try: v1("cpuacct", "cpuacct.usage"), Optional: true},
		{Name: "cgroup v1: cpuset", Since: Version{2, 6}, Try: v1("cpuset", "cpuset.cpus"), Optional: true},
		{Name: "cgroup v1: memory", Since: Version{2, 6}, Try: v1("memory", "memory.limit_in_bytes"), Optional: true},
		{Name: "cgroup v1: freezer", Since: Version{2, 6}, Try: v1("freezer", "freezer.state"), Optional: true},
		{Name: "cgroup v2: freezer", Since: Version{5, 2}, Try: v2Freezer},
		{Name: "soft-dirty, for pre-copy", Since: Version{3, 11}, Try: softDirty},
		{Name: "userfaultfd", Since: Version{4, 3}, Try: userfaultfd},
		{Name: "nf_tables", Since: Version{3, 13}, Try: nfTables},
		{Name: "runc and CRIU can restore", Since: Version{3, 11}, Try: canRestore},
	}
}

// inScratch runs f in a new directory of the given one, which f must leave empty.
func inScratch(in string, f func(dir string) (string, error)) (detail string, err error) {
	dir, err := os.MkdirTemp(in, "drover-feature-")
	if err != nil {
		return "", err
	}
	defer func() {
		if gone := os.Remove(dir); err == nil {
			err = gone
		}
	}()
	return f(dir)
}
