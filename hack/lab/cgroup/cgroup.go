// Package cgroup makes and removes the cgroups of a lab, on cgroup v1, hybrid and v2 machines.
//
// A lab owns one directory in every hierarchy and nothing else:
//
//	<lab>/_daemons/<node>   the node's own programs (kubelet, containerd, ...)
//	<lab>/<node>            kubelet's cgroupRoot: the node's pods; its CPU quota is the node's speed
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Hierarchy is one mounted cgroup tree.
type Hierarchy struct {
	Mount       string   // where it is mounted, for example /sys/fs/cgroup/cpu
	Version     int      // 1 or 2
	Controllers []string // v1: as mounted ("cpu", "cpuacct", "name=systemd"); v2: what the root offers
}

// Has tells whether the hierarchy holds the controller.
func (h Hierarchy) Has(controller string) bool {
	for _, c := range h.Controllers {
		if c == controller {
			return true
		}
	}
	return false
}

// Path is the directory of a cgroup ("/drover-lab-x/n1") in this hierarchy.
func (h Hierarchy) Path(group string) string { return filepath.Join(h.Mount, group) }

// Tree is every hierarchy of the machine.
type Tree []Hierarchy

// Detect reads the machine's hierarchies from /proc/self/mountinfo.
func Detect() (Tree, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	defer f.Close()
	tree, err := Parse(f)
	if err != nil {
		return nil, err
	}
	for i := range tree {
		if tree[i].Version == 2 {
			b, err := os.ReadFile(filepath.Join(tree[i].Mount, "cgroup.controllers"))
			if err != nil {
				return nil, fmt.Errorf("read controllers of cgroup v2: %w", err)
			}
			tree[i].Controllers = strings.Fields(string(b))
		}
	}
	if len(tree) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup")
	}
	return tree, nil
}

// v1Words are mount options of a v1 hierarchy that are not controllers.
var v1Words = map[string]bool{"rw": true, "ro": true, "clone_children": true, "xattr": true, "noprefix": true, "cpuset_v2_mode": true}

// Parse reads hierarchies from text in the format of /proc/self/mountinfo (proc(5)). A hierarchy
// mounted twice, or a mount of only a part of one, counts once or not at all.
func Parse(r io.Reader) (Tree, error) {
	var tree Tree
	seen := map[string]bool{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || left[3] != "/" || seen[left[2]] {
			continue
		}
		h := Hierarchy{Mount: left[4]}
		switch right[0] {
		case "cgroup2":
			h.Version = 2
		case "cgroup":
			h.Version = 1
			for _, o := range strings.Split(right[2], ",") {
				if !v1Words[o] && !strings.HasPrefix(o, "release_agent=") {
					h.Controllers = append(h.Controllers, o)
				}
			}
		default:
			continue
		}
		seen[left[2]] = true
		tree = append(tree, h)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return tree, nil
}

// wanted are the v2 controllers a kubelet needs on its cgroupRoot.
var wanted = []string{"cpuset", "cpu", "memory", "pids", "io"}

// Make makes the cgroup in every hierarchy, parents first. In v1 it fills cpuset.cpus and
// cpuset.mems from the parent; in v2, if delegate is set, it enables the controllers that kubelet
// needs on every level down to and including the group.
func (t Tree) Make(group string, delegate bool) error {
	for _, h := range t {
		if err := h.make(group, delegate); err != nil {
			return fmt.Errorf("make cgroup %s in %s: %w", group, h.Mount, err)
		}
	}
	return nil
}

func (h Hierarchy) make(group string, delegate bool) error {
	dir := h.Mount
	if h.Version == 2 && delegate {
		if err := h.enable(dir); err != nil {
			return err
		}
	}
	for _, part := range strings.Split(strings.Trim(group, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		switch {
		case h.Version == 1 && h.Has("cpuset"):
			if err := inheritCpuset(parent, dir); err != nil {
				return err
			}
		case h.Version == 2 && delegate:
			if err := h.enable(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// enable turns on what is both wanted and offered for the children of dir (cgroup v2).
func (h Hierarchy) enable(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	on, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	offered, enabled := strings.Fields(string(b)), strings.Fields(string(on))
	for _, c := range missing(wanted, offered, enabled) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("enable controller %s: %w", c, err)
		}
	}
	return nil
}

// missing are the wanted controllers that are offered and not yet enabled.
func missing(wanted, offered, enabled []string) []string {
	in := func(list []string, x string) bool {
		for _, l := range list {
			if l == x {
				return true
			}
		}
		return false
	}
	var out []string
	for _, w := range wanted {
		if in(offered, w) && !in(enabled, w) {
			out = append(out, w)
		}
	}
	return out
}

func inheritCpuset(parent, dir string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(b)) != "" {
			continue
		}
		if b, err = os.ReadFile(filepath.Join(parent, f)); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Join moves the calling process into the cgroup, in every hierarchy but the v1 ones named in
// except.
func (t Tree) Join(group string, except ...string) error {
	for _, h := range t {
		if h.Version == 1 && hasAny(h, except) {
			continue
		}
		if err := os.WriteFile(filepath.Join(h.Path(group), "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join cgroup %s in %s: %w", group, h.Mount, err)
		}
	}
	return nil
}

func hasAny(h Hierarchy, controllers []string) bool {
	for _, c := range controllers {
		if h.Has(c) {
			return true
		}
	}
	return false
}

// quotaPeriod is CFS bandwidth's default period.
const quotaPeriod = 100_000 // microseconds

// SetSpeed limits the cgroup to that many cores of CPU time; 0 takes the limit away.
func (t Tree) SetSpeed(group string, cores float64) error {
	for _, h := range t {
		if !h.Has("cpu") {
			continue
		}
		file, value := "cpu.cfs_quota_us", "-1"
		if cores > 0 {
			value = strconv.Itoa(quota(cores))
		}
		if h.Version == 2 {
			file = "cpu.max"
			if cores > 0 {
				value = fmt.Sprintf("%d %d", quota(cores), quotaPeriod)
			} else {
				value = "max"
			}
		}
		if err := os.WriteFile(filepath.Join(h.Path(group), file), []byte(value), 0o644); err != nil {
			return fmt.Errorf("set speed of %s to %g cores: %w", group, cores, err)
		}
		return nil
	}
	return errors.New("no cgroup hierarchy has the cpu controller: a node's speed cannot be set")
}

// quota is the CFS quota in microseconds per period; the kernel takes no less than 1 ms.
func quota(cores float64) int { return max(int(cores*quotaPeriod), 1000) }
