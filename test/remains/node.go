package remains

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/internal/netlock"
	"github.com/drover-project/drover/internal/passthrough"
)

// node is one node as seen from outside of it.
type node struct {
	name  string
	root  string // of its file system
	pods  string // control group
	procs []lab.Process
	objects
}

func onNode(l *lab.Lab, name string, o objects) ([]string, error) {
	n := node{name: name, objects: o}
	var err error
	if n.root, err = l.Root(name); err != nil {
		return nil, err
	}
	if n.pods, err = l.PodsGroup(name); err != nil {
		return nil, err
	}
	if n.procs, err = l.Processes(name); err != nil {
		return nil, err
	}
	left := n.processes()
	for _, look := range []func() ([]string, error){n.groups, n.locks, n.ends, n.mounts, n.files, n.notes, n.leases, n.fences} {
		found, err := look()
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	return left, nil
}

// processes: whatever dumps, restores, or waits to.
func (n node) processes() []string {
	var left []string
	for _, p := range n.procs {
		verb := func(v string) bool { return slices.Contains(p.Args, v) }
		script := slices.ContainsFunc(p.Args, func(a string) bool { return strings.HasSuffix(a, passthrough.Hook) })
		switch name := p.Program(); {
		case name == "criu", name == "drover-runc", script, name == "runc" && (verb("checkpoint") || verb("restore")):
			left = append(left, "process "+strings.Join(p.Args, " "))
		}
	}
	return left
}

// hierarchies are where control groups may be mounted; the machine's are the nodes' too.
var hierarchies = []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"}

// groups: frozen ones, and those of pods that are gone.
func (n node) groups() ([]string, error) {
	var left []string
	for _, h := range hierarchies {
		err := filepath.WalkDir(filepath.Join(h, n.pods), func(path string, d fs.DirEntry, err error) error {
			if gone(err) {
				return nil
			}
			if err != nil || !d.IsDir() {
				return err
			}
			for file, thawed := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
				b, err := os.ReadFile(filepath.Join(path, file))
				if state := strings.TrimSpace(string(b)); err == nil && state != thawed {
					left = append(left, fmt.Sprintf("control group %s: %s is %s", path, file, state))
				}
			}
			if uid, is := strings.CutPrefix(d.Name(), "pod"); is && n.objects.pods[types.UID(uid)] == nil && len(uid) == 36 {
				left = append(left, "control group "+path+" of a pod that is gone")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return left, nil
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// namespaces are the paths of network namespaces, some of them twice: by name, and by a process in each.
func (n node) namespaces() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(n.root, "run/netns/*"))
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, p := range n.procs {
		path := fmt.Sprintf("/proc/%d/ns/net", p.PID)
		if id, err := os.Readlink(path); err == nil && !seen[id] {
			seen[id] = true
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// locks: CRIU's, in the network of any sandbox or process.
func (n node) locks() ([]string, error) {
	paths, err := n.namespaces()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, path := range paths {
		locks, err := netlock.Locks(path)
		if gone(err) || errors.Is(err, unix.EINVAL) { // the sandbox has ended, its file is no namespace any more
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, name := range locks {
			left = append(left, "network lock "+name+" in "+strings.TrimPrefix(path, n.root))
		}
	}
	slices.Sort(left)
	return slices.Compact(left), nil
}

// mounts: what CRIU and runc make for a restore.
func (n node) mounts() ([]string, error) {
	all, err := os.ReadFile(filepath.Join(filepath.Dir(n.root), "mountinfo"))
	if err != nil {
		return nil, err
	}
	var left []string
	for line := range strings.Lines(string(all)) {
		if f := strings.Fields(line); len(f) > 4 && (strings.Contains(f[4], "criu-root") || strings.Contains(f[4], "/.criu")) {
			left = append(left, "mount "+f[4])
		}
	}
	return left, nil
}
