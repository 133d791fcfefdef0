// Package cgroup finds, freezes and empties the control groups of containers, in cgroup v1,
// in v2, and in the hybrid of both.
//
// Kernel sources: Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst and
// Documentation/admin-guide/cgroup-v2.rst.
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

// hierarchy is one mounted tree of groups.
type hierarchy struct {
	// dir is where it is mounted, as this process reaches it; root is the group mounted there.
	dir, root string
	// name is how /proc/PID/cgroup calls it: "cpu,cpuacct", "name=systemd", "" for v2.
	name string
}

// Hierarchies are the control groups as one process, usually a node's first, sees them.
type Hierarchies struct {
	proc string // "/proc"
	all  []hierarchy
}

// Host reads the hierarchies of process 1: the node's, for a process in the node's pid
// namespace. Paths go through /proc/1/root, so the caller may have another mount namespace.
func Host() (*Hierarchies, error) { return load("/proc", "/proc/1") }

// Own reads the hierarchies of the calling process.
func Own() (*Hierarchies, error) { return load("/proc", "/proc/self") }

func load(proc, process string) (*Hierarchies, error) {
	f, err := os.Open(filepath.Join(process, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("find the control groups: %w", err)
	}
	defer f.Close()
	h := &Hierarchies{proc: proc}
	prefix := filepath.Join(process, "root")
	if process == "/proc/self" {
		prefix = "/"
	}
	if h.all, err = parseMounts(f, prefix); err != nil {
		return nil, fmt.Errorf("find the control groups in %s/mountinfo: %w", process, err)
	}
	if len(h.all) == 0 {
		return nil, fmt.Errorf("find the control groups: %s/mountinfo names none; is /sys/fs/cgroup mounted?", process)
	}
	return h, nil
}

// parseMounts reads lines of proc(5) mountinfo. Of a hierarchy that is mounted several
// times the first mount of its root counts.
func parseMounts(r io.Reader, prefix string) ([]hierarchy, error) {
	var all []hierarchy
	seen := map[string]bool{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		h := hierarchy{dir: filepath.Join(prefix, unescape(left[4])), root: unescape(left[3])}
		switch right[0] {
		case "cgroup2":
		case "cgroup":
			h.name = v1Name(right[2])
		default:
			continue
		}
		if !seen[h.name] {
			seen[h.name] = true
			all = append(all, h)
		}
	}
	return all, s.Err()
}

// v1Name picks the controllers, or name=…, out of a v1 mount's super options.
func v1Name(options string) string {
	var names []string
	for _, o := range strings.Split(options, ",") {
		switch o {
		case "rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "":
			continue
		}
		if strings.HasPrefix(o, "release_agent=") {
			continue
		}
		names = append(names, o)
	}
	return strings.Join(names, ",")
}

// unescape undoes proc(5)'s octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// freezer is the hierarchy that freezes: v1's where it is mounted, as runc and CRIU do it.
func (h *Hierarchies) freezer() (hierarchy, bool, error) {
	var v2 *hierarchy
	for i, x := range h.all {
		for _, c := range strings.Split(x.name, ",") {
			if c == "freezer" {
				return x, false, nil
			}
		}
		if x.name == "" {
			v2 = &h.all[i]
		}
	}
	if v2 == nil {
		return hierarchy{}, false, errors.New("no control group hierarchy can freeze: neither v2 nor v1's freezer is mounted")
	}
	return *v2, true, nil
}

// Of returns the group of a process. The error wraps fs.ErrNotExist when it is gone.
func (h *Hierarchies) Of(pid int) (Group, error) {
	fz, v2, err := h.freezer()
	if err != nil {
		return Group{}, err
	}
	paths, err := h.paths(pid)
	if err != nil {
		return Group{}, err
	}
	for name, path := range paths {
		if name == fz.name {
			return group(fz, v2, path)
		}
	}
	return Group{}, fmt.Errorf("/proc/%d/cgroup names no group in the hierarchy %q", pid, fz.name)
}

// At returns the group of a container by the linux.cgroupsPath of its bundle: an absolute
// path, or systemd's slice:prefix:name. It need not exist.
func (h *Hierarchies) At(cgroupsPath string) (Group, error) {
	fz, v2, err := h.freezer()
	if err != nil {
		return Group{}, err
	}
	path, err := expand(cgroupsPath)
	if err != nil {
		return Group{}, err
	}
	return group(fz, v2, path)
}

// Container returns the group of the container that the process belongs to, by the
// linux.cgroupsPath of its bundle. The process may have moved on to a group of its own below
// it, as systemd does in a container. The error wraps fs.ErrNotExist when the process is gone.
func (h *Hierarchies) Container(pid int, cgroupsPath string) (Group, error) {
	fz, v2, err := h.freezer()
	if err != nil {
		return Group{}, err
	}
	of, err := h.Of(pid)
	if err != nil {
		return Group{}, err
	}
	path, err := expand(cgroupsPath)
	if err != nil {
		return Group{}, err
	}
	if path == "/" {
		return Group{}, fmt.Errorf("cgroupsPath %q is the root of all groups", cgroupsPath)
	}
	// The path is as runc sees it, whose root may lie below ours. Of several groups that end
	// in it, the container's is the outermost: the others are its own making.
	var found string
	for dir := of.dir; strings.HasPrefix(dir, fz.dir+"/"); dir = filepath.Dir(dir) {
		if strings.HasSuffix(filepath.Join(fz.root, strings.TrimPrefix(dir, fz.dir)), path) {
			found = dir
		}
	}
	if found == "" {
		return Group{}, fmt.Errorf("process %d is in control group %s, which does not lie in its container's, %q", pid, of, cgroupsPath)
	}
	return Group{dir: found, v2: v2}, nil
}

func group(fz hierarchy, v2 bool, path string) (Group, error) {
	rel, ok := strings.CutPrefix(path, strings.TrimSuffix(fz.root, "/"))
	if !ok || !filepath.IsLocal(strings.TrimPrefix(rel, "/")) {
		return Group{}, fmt.Errorf("control group %q lies outside of %s, which is mounted at %s", path, fz.root, fz.dir)
	}
	return Group{dir: filepath.Join(fz.dir, rel), v2: v2}, nil
}

// paths reads /proc/PID/cgroup.
func (h *Hierarchies) paths(pid int) (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(h.proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for _, line := range strings.Split(string(data), "\n") {
		if f := strings.SplitN(line, ":", 3); len(f) == 3 {
			paths[f[1]] = f[2]
		}
	}
	return paths, nil
}

// expand turns slice:prefix:name into the path that systemd gives it: the slice a-b-c.slice
// lies in a.slice/a-b.slice (systemd.slice(5)).
func expand(cgroupsPath string) (string, error) {
	if strings.HasPrefix(cgroupsPath, "/") {
		return filepath.Clean(cgroupsPath), nil
	}
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 || parts[2] == "" || strings.Contains(cgroupsPath, "/") {
		return "", fmt.Errorf("cgroupsPath %q is neither absolute nor slice:prefix:name", cgroupsPath)
	}
	path, built := "/", ""
	name, ok := strings.CutSuffix(parts[0], ".slice")
	if parts[0] != "" && !ok {
		return "", fmt.Errorf("cgroupsPath %q: %q is no slice", cgroupsPath, parts[0])
	}
	if name != "" && name != "-" {
		for _, part := range strings.Split(name, "-") {
			built += part
			path = filepath.Join(path, built+".slice")
			built += "-"
		}
	}
	unit := parts[2]
	if !strings.HasSuffix(unit, ".slice") {
		unit = parts[1] + "-" + parts[2] + ".scope"
	}
	return filepath.Join(path, unit), nil
}

// Join moves a process into the group path of every hierarchy, making the group where it
// is missing. It is for processes of Drover's own that must outlive the agent's container. The group
// weighs ten times as much as one does by default: mostly nothing runs in it, and then for a pod that
// stands still, on a node whose pods may want more CPU than there is.
func (h *Hierarchies) Join(path string, pid int) error {
	for _, x := range h.all {
		g, err := group(x, x.name == "", path)
		if err != nil {
			return err
		}
		if err := g.make(); err != nil {
			return err
		}
		g.weigh()
		if err := write(filepath.Join(g.dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("move process %d into %s: %w", pid, g.dir, err)
		}
	}
	return nil
}

// weigh gives the group its weight in a hierarchy that shares out CPU: ten times the default, by the file of v1
// or of v2. With less what runs in it is slower, and that is all.
func (g Group) weigh() {
	_ = write(filepath.Join(g.dir, "cpu.shares"), "10240")
	_ = write(filepath.Join(g.dir, "cpu.weight"), "1000")
}

// Rouse has nobody wait who moves a process between groups in the next 20 ms or so. The first that does after a
// while waits for a grace period of RCU, 6 to 8 ms on an idle machine (kernel/cgroup/cgroup.c,
// cgroup_threadgroup_rwsem; with the mount option favordynmods nobody does): Rouse waits in its place, and
// moves the process to where it is.
func (h *Hierarchies) Rouse(pid int) error {
	g, err := h.Of(pid)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(g.dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("move process %d to where it is, %s: %w", pid, g.dir, err)
	}
	return nil
}

// make creates the group; a new cpuset accepts nobody before it has processors and memory.
func (g Group) make() error {
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make control group: %w", err)
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(g.dir, file))
		if g.v2 || err != nil || strings.TrimSpace(string(own)) != "" {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(g.dir), file))
		if err == nil {
			err = write(filepath.Join(g.dir, file), string(parent))
		}
		if err != nil {
			return fmt.Errorf("set up control group: %w", err)
		}
	}
	return nil
}

// Beside returns the path of a group called name next to the tree of Kubernetes' pods that
// the process belongs to ("/kubepods/…" gives "/name"), or next to the process's own group
// if it is no pod's.
func (h *Hierarchies) Beside(pid int, name string) (string, error) {
	fz, _, err := h.freezer()
	if err != nil {
		return "", err
	}
	paths, err := h.paths(pid)
	if err != nil {
		return "", err
	}
	path := paths[fz.name]
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if p == "kubepods" || strings.HasPrefix(p, "kubepods.") || strings.HasPrefix(p, "kubepods-") {
			return "/" + filepath.Join(append(parts[:i:i], name)...), nil
		}
	}
	return filepath.Join("/", path, "..", name), nil
}
