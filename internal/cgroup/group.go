package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Group is one control group, in the hierarchy that can freeze it. The zero Group is none.
type Group struct {
	dir string
	v2  bool
}

// pause is the time between two looks at a state that the kernel changes by itself. v1's
// freezer.state cannot be watched: reading it is what moves it on from FREEZING.
const pause = time.Millisecond

// String gives the group's directory.
func (g Group) String() string { return g.dir }

// Exists tells whether the group is there.
func (g Group) Exists() bool {
	if g.dir == "" {
		return false
	}
	_, err := os.Stat(g.dir)
	return err == nil
}

// Freeze stops every process in the group and below, and returns when all are stopped; it
// does no harm to a frozen group. When ctx ends first, the group stays as far as it has
// come, which may be frozen a moment later. The error wraps fs.ErrNotExist if the group is gone.
func (g Group) Freeze(ctx context.Context) error {
	for {
		// v1 is told again each time: a task that was forked in the middle is caught so.
		if err := g.set(true); err != nil {
			return fmt.Errorf("freeze %s: %w", g.dir, err)
		}
		frozen, err := g.Frozen()
		if err != nil || frozen {
			return err
		}
		if err := wait(ctx); err != nil {
			return fmt.Errorf("freeze %s: not all of its tasks have stopped: %w", g.dir, err)
		}
	}
}

// Thaw lets the group run. A group that is gone is no error: nothing is left to run.
func (g Group) Thaw() error {
	if err := g.set(false); err != nil && !gone(err) {
		return fmt.Errorf("thaw %s: %w", g.dir, err)
	}
	return nil
}

func (g Group) set(frozen bool) error {
	file, value := "cgroup.freeze", "0"
	switch {
	case g.v2 && frozen:
		value = "1"
	case !g.v2 && frozen:
		file, value = "freezer.state", "FROZEN"
	case !g.v2:
		file, value = "freezer.state", "THAWED"
	}
	if g.dir == "" {
		return fs.ErrNotExist
	}
	return write(filepath.Join(g.dir, file), value)
}

// write writes a file of the kernel's; it never makes one.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Frozen tells whether every process in the group is stopped by the group's own freezer.
func (g Group) Frozen() (bool, error) {
	if !g.v2 {
		state, err := os.ReadFile(filepath.Join(g.dir, "freezer.state"))
		return strings.TrimSpace(string(state)) == "FROZEN", err
	}
	events, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	if err != nil {
		return false, err
	}
	return strings.Contains("\n"+string(events), "\nfrozen 1"), nil
}

// Told tells whether the group's own freezer was told to stop it, even if some task has not stopped yet.
func (g Group) Told() (bool, error) {
	file := "freezer.self_freezing"
	if g.v2 {
		file = "cgroup.freeze"
	}
	told, err := os.ReadFile(filepath.Join(g.dir, file))
	return strings.TrimSpace(string(told)) == "1", err
}

// Procs lists the processes in the group and below. A group that is gone has none.
func (g Group) Procs() ([]int, error) {
	var pids []int
	if g.dir == "" {
		return nil, nil
	}
	err := filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if gone(err) {
				return nil
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && !gone(err) {
			return err
		}
		for _, f := range strings.Fields(string(data)) {
			// 0 is a process of a pid namespace that is not ours.
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// Kill ends every process in the group and below without a moment in which one of them
// runs: all are stopped, then signalled, then the group is thawed so that they can die. It
// returns when the group is empty; a group that is gone is empty.
func (g Group) Kill(ctx context.Context) error {
	if !g.Exists() {
		return nil
	}
	if err := g.Freeze(ctx); err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	return g.kill(ctx)
}

// KillStuck is Kill for a group of which some processes may be waiting for what never comes, so
// that they cannot be stopped: it signals them without waiting for that. One that could have
// been stopped may see others end before it ends itself.
func (g Group) KillStuck(ctx context.Context) error {
	if !g.Exists() {
		return nil
	}
	if err := g.set(true); err != nil {
		if gone(err) {
			return nil
		}
		return fmt.Errorf("freeze %s: %w", g.dir, err)
	}
	return g.kill(ctx)
}

// kill signals all that is in a group, and thaws it so that it dies.
func (g Group) kill(ctx context.Context) error {
	for {
		pids, err := g.Procs()
		if err != nil {
			return fmt.Errorf("kill %s: %w", g.dir, err)
		}
		if len(pids) == 0 {
			return g.Thaw()
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %s: process %d: %w", g.dir, pid, err)
			}
		}
		if err := g.Thaw(); err != nil {
			return err
		}
		if err := wait(ctx); err != nil {
			return fmt.Errorf("kill %s: %d processes are left: %w", g.dir, len(pids), err)
		}
	}
}

func wait(ctx context.Context) error {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// gone: the group was removed, before or while it was used.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}
