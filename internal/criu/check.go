package criu

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Version of a CRIU or a runc.
type Version struct{ Major, Minor, Patch int }

// String gives 1.2.3.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Before tells whether v is older than o.
func (v Version) Before(o Version) bool {
	if v.Major != o.Major {
		return v.Major < o.Major
	}
	if v.Minor != o.Minor {
		return v.Minor < o.Minor
	}
	return v.Patch < o.Patch
}

// Least versions with which moves work.
var (
	// Older ones lack network-lock in the configuration or the time namespaces of restores.
	least = Version{3, 17, 0}
	// From kernel 6.16 on, older ones cannot dump any inet socket.
	leastSockets = Version{4, 2, 0}
	// runc learnt "--manage-cgroups-mode ignore" in 1.1.
	leastRunc = Version{1, 1, 0}
)

var number = regexp.MustCompile(`(\d+)\.(\d+)(?:\.(\d+))?`)

// ParseVersion finds the first version number in a program's own words.
func ParseVersion(s string) (Version, error) {
	m := number.FindStringSubmatch(s)
	if m == nil {
		return Version{}, fmt.Errorf("no version number in %.80q", s)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // the pattern leaves digits or nothing
	}
	return Version{n[0], n[1], n[2]}, nil
}

// Runner runs a program on the node and returns all that it wrote.
type Runner func(ctx context.Context, args ...string) (string, error)

// CannotRestore checks that runc and CRIU are there, new enough for this kernel, and that
// CRIU finds what it needs. It is empty when pods can be dumped and restored, or else the
// reason in one line.
func CannotRestore(ctx context.Context, run Runner, runc, kernel string) string {
	out, err := run(ctx, runc, "--version")
	if err != nil {
		return fmt.Sprintf("runc cannot be run: %v", err)
	}
	if v, err := ParseVersion(out); err != nil || v.Before(leastRunc) {
		return fmt.Sprintf("runc %s is too old, %s is needed (%s)", v, leastRunc, oneLine(out))
	}
	out, err = run(ctx, "criu", "--version")
	if err != nil {
		return fmt.Sprintf("CRIU cannot be run, is it installed? %v", err)
	}
	v, err := ParseVersion(out)
	if err != nil {
		return fmt.Sprintf("CRIU's version is not known: %v", err)
	}
	need := least
	if k, err := ParseVersion(kernel); err == nil && !k.Before(Version{6, 16, 0}) {
		need = leastSockets
	}
	if v.Before(need) {
		return fmt.Sprintf("CRIU %s is too old for kernel %s, %s is needed", v, kernel, need)
	}
	if out, err := run(ctx, "criu", "check"); err != nil {
		return fmt.Sprintf("criu check: %s", oneLine(out))
	}
	return ""
}

// CannotLoadLater checks that CRIU can load memory of processes that run already: that there is
// userfaultfd, which CRIU may use, and which tells of forks and changes of the memory's map; and
// that the runtime can ask CRIU for it, as crun cannot. It is empty when that is so, or else
// the reason in one line.
func CannotLoadLater(ctx context.Context, run Runner, runc string) string {
	if out, err := run(ctx, runc, "restore", "--help"); err != nil || !strings.Contains(out, "--lazy-pages") {
		return fmt.Sprintf("%s restore --help names no --lazy-pages (%v)", runc, err)
	}
	if out, err := run(ctx, "criu", "check", "--feature", "uffd-noncoop"); err != nil {
		return fmt.Sprintf("criu check --feature uffd-noncoop: %s", oneLine(out))
	}
	return ""
}

// CannotTrack checks that CRIU can tell which pages were written to: that the kernel marks them as
// soft-dirty. It is empty when that is so, or else the reason in one line.
func CannotTrack(ctx context.Context, run Runner) string {
	if out, err := run(ctx, "criu", "check", "--feature", "mem_dirty_track"); err != nil {
		return fmt.Sprintf("criu check --feature mem_dirty_track: %s", oneLine(out))
	}
	return ""
}

// oneLine keeps what the last line that is not empty says.
func oneLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	for _, l := range lines {
		if strings.Contains(l, "Error") {
			last = strings.TrimSpace(l)
		}
	}
	if len(last) > 200 {
		last = last[:200]
	}
	return last
}
