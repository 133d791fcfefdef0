package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/process"
)

// ErrUntracked: the memory of a container is not written in rounds, or what was written so is not to be relied
// on. Nothing is done to it.
var ErrUntracked = errors.New("its memory is not written in rounds")

// distrust has no more rounds written of a container: they failed once.
func (d *Dumps) distrust(p part) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.untracked[p.ID] = true
}

// trackable tells why the memory of a container is not to be written in rounds, and why a dump is not
// to build on those that were.
func (d *Dumps) trackable(p part) error {
	d.mu.Lock()
	failed := d.untracked[p.ID]
	d.mu.Unlock()
	if failed {
		return fmt.Errorf("%w: that has failed for container %s before", ErrUntracked, p.ID)
	}
	n, err := d.examine(p)
	if err != nil {
		return err
	}
	group, err := d.cfg.Groups.Container(n.Init.PID, n.CgroupsPath)
	if err != nil {
		return err
	}
	if frozen, err := group.Frozen(); err != nil || frozen {
		return errors.Join(err, fmt.Errorf("%w: container %s is paused", ErrUntracked, p.ID))
	}
	return marked(p, n.Init, group)
}

// dropStale removes the rounds of a dump that must not build on them: it holds all then.
func (d *Dumps) dropStale(dump string, p part) error {
	if d.rounds(dump) == 0 {
		return nil
	}
	why := d.trackable(p)
	if why == nil {
		return nil
	}
	d.cfg.Log.Warn("what was written of a container's memory before the freeze is dropped", "container", p.ID, "because", why)
	return d.remove(dump)
}

// stillMarked fails when the dump of a container, which is held, must not build on the rounds that it builds
// on: a process may have begun to track itself just before it was stopped.
func (d *Dumps) stillMarked(p part, group cgroup.Group) error {
	if d.rounds(p.dump) == 0 {
		return nil
	}
	n, err := readNote(p.dir)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err == nil {
		err = marked(p, n.Init, group)
	}
	if err != nil {
		d.distrust(p)
		return fmt.Errorf("dump container %s: it builds on memory that was written before the freeze: %w", p.ID, err)
	}
	return nil
}

// marked tells why the kernel's marks of what a container has written to are not to be relied on. They are
// one set for each process, whoever asks for them: where somebody else clears them between two rounds,
// what was written before that would be missed, and the copy have an old page.
func marked(p part, init process.Process, group cgroup.Group) error {
	pids, err := group.Procs()
	if err != nil {
		return err
	}
	return allMarked(p.ID, init, pids)
}

// allMarked is marked for the processes of a container.
func allMarked(container string, init process.Process, pids []int) error {
	below, err := init.Below()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		ours := pid == init.PID || slices.ContainsFunc(below, func(q process.Process) bool { return q.PID == pid })
		if !ours {
			if ours, err = endedOrBelow(pid, init); err != nil {
				return err
			}
		}
		if !ours {
			// CRIU stops it with the others, and may hang at that: see cutOff. And what it writes into memory
			// that it shares with them leaves no mark at them.
			return fmt.Errorf("%w: process %d was brought into container %s, as by kubectl exec", ErrUntracked, pid, container)
		}
		if why := unmarked("/proc/" + strconv.Itoa(pid)); why != "" {
			return fmt.Errorf("%w: process %d of container %s %s", ErrUntracked, pid, container, why)
		}
	}
	return nil
}

// endedOrBelow tells whether a process that was not found below another has ended meanwhile, or its parent
// has, so that it was missed.
func endedOrBelow(pid int, init process.Process) (bool, error) {
	p, err := process.Of(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	below, err := init.Below()
	return slices.Contains(below, p) || !p.Alive(), err
}

// unmarked says by what memory of a process, whose directory in proc that is, may change without a mark
// of it being left, or that this cannot be told; empty: nothing is known, or the process has ended.
func unmarked(proc string) string {
	fds := filepath.Join(proc, "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		return untold(err)
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(fds, e.Name()))
		if err != nil {
			if why := untold(err); why != "" {
				return why
			}
			continue // it was closed
		}
		if filepath.Base(to) == "clear_refs" {
			return "has " + to + " open, and may track itself what it writes to"
		}
	}
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return untold(err)
	}
	if strings.Contains(string(maps), "/[aio]") {
		return "has asynchronous I/O (io_submit), which may write into its memory when the marks have just been cleared"
	}
	return ""
}

// untold says that a process cannot be looked at; empty: because it, or what was looked at, is there no more.
func untold(err error) string {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return ""
	}
	return fmt.Sprintf("cannot be looked at (%v), and may track itself what it writes to", err)
}
