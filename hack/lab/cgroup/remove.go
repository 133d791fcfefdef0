package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Exists tells whether the cgroup is there in any hierarchy.
func (t Tree) Exists(group string) bool {
	for _, h := range t {
		if _, err := os.Stat(h.Path(group)); err == nil {
			return true
		}
	}
	return false
}

// Groups lists, in any hierarchy, the names of top-level cgroups that begin with prefix.
func (t Tree) Groups(prefix string) []string {
	found := map[string]bool{}
	for _, h := range t {
		entries, _ := os.ReadDir(h.Mount)
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
				found[e.Name()] = true
			}
		}
	}
	var out []string
	for name := range found {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// dirs are the group's directories and all below, deepest first.
func (h Hierarchy) dirs(group string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(h.Path(group), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err == nil && d.IsDir() {
			out = append(out, path)
		}
		return err
	})
	slices.Reverse(out)
	return out, err
}

// Processes are the pids in the cgroup and below, in all hierarchies, sorted.
func (t Tree) Processes(group string) ([]int, error) {
	found := map[int]bool{}
	for _, h := range t {
		dirs, err := h.dirs(group)
		if err != nil {
			return nil, fmt.Errorf("list cgroup %s: %w", group, err)
		}
		for _, d := range dirs {
			b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
			if err != nil {
				continue // gone meanwhile, or a threaded v2 group whose domain lists them
			}
			for _, f := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					found[pid] = true
				}
			}
		}
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

// Kill ends every process in the cgroup and below, frozen ones too, and returns when none is left.
func (t Tree) Kill(ctx context.Context, group string) error {
	for {
		pids, err := t.Processes(group)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone meanwhile is fine, what stays is seen again
		}
		t.thaw(group) // a frozen process dies only once it is thawed
		select {
		case <-ctx.Done():
			return fmt.Errorf("end processes %v of cgroup %s: %w", pids, group, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (t Tree) thaw(group string) {
	for _, h := range t {
		file, value := "freezer.state", "THAWED"
		if h.Version == 2 {
			file, value = "cgroup.freeze", "0"
		} else if !h.Has("freezer") {
			continue
		}
		dirs, _ := h.dirs(group)
		for _, d := range dirs {
			_ = os.WriteFile(filepath.Join(d, file), []byte(value), 0o644) // no such file in a root: nothing to thaw
		}
	}
}

// Remove removes the cgroup and all below from every hierarchy. Its processes must have ended; the
// kernel may need a moment to notice, so it tries until ctx ends.
func (t Tree) Remove(ctx context.Context, group string) error {
	for _, h := range t {
		for {
			err := h.remove(group)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove cgroup %s from %s: %w", group, h.Mount, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

func (h Hierarchy) remove(group string) error {
	if clean := filepath.Clean("/" + group); clean == "/" {
		return fmt.Errorf("refusing to remove the root cgroup (got %q)", group)
	}
	dirs, err := h.dirs(group)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rmdir %s: %w", d, err)
		}
	}
	return nil
}
