package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/inspect"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// noClient is an option of CRIU's for a dump that leaves memory out. CRIU would serve that memory, once the
// action script has ended, on every address of the node, in clear, to whoever connects first. It is told
// that its client is there already, on descriptor 0, which is no socket: so it serves nobody. Other
// dumps and restores heed it not.
const noClient = "ps-socket 0"

// leaves tells whether a dump leaves memory out.
func (d *Dumps) leaves(p part, group cgroup.Group) (bool, error) {
	pids, err := group.Procs()
	if err != nil {
		return false, err
	}
	why, err := d.whole(p, pids)
	if p.move.PostCopy && why != "" {
		d.cfg.Log.Info("images have all of the memory, although they need not", "pod", p.move.Source.UID, "container", p.ID, "because", why)
	}
	return why == "" && err == nil, err
}

// whole says why the images of a container with these processes are to have all of its memory; empty: they
// leave out what can be loaded later. That is where the move allows it, where as much is there that it
// gains something, and of one process: of several the target could not load it later (docs/decisions/0032).
func (d *Dumps) whole(p part, pids []int) (why string, err error) {
	if !p.move.PostCopy {
		return "the move does not allow anything else", nil
	}
	from := model.Bytes(0)
	if d.cfg.LeaveFrom != nil {
		from = d.cfg.LeaveFrom()
	}
	switch {
	case from == 0:
		return "this node does not leave memory out", nil
	case d.rounds(p.dump) > 0:
		return "some of its memory is in rounds", nil
	case len(pids) != 1:
		return fmt.Sprintf("it has %d processes, want 1", len(pids)), nil
	}
	proc := filepath.Join("/proc", strconv.Itoa(pids[0]))
	size, err := ownMemory(filepath.Join(proc, "status"))
	if err != nil {
		return "", err
	}
	if size < from {
		return fmt.Sprintf("it has %d bytes of memory, want at least %d", size, from), nil
	}
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err == nil && bytes.Contains(maps, []byte("/anon_hugepage")) {
		why = "some of its memory is in huge pages"
	}
	return why, err
}

// markLacking says beside the images of a move with PostCopy whether they lack memory.
func markLacking(p part) error {
	n, err := readNote(p.dir)
	if err != nil || n == nil || !p.move.PostCopy {
		return err
	}
	var says []byte
	if !n.Leaves {
		says = []byte("nothing\n")
	}
	return os.WriteFile(filepath.Join(p.images(), layout.LackingImage), says, 0o600)
}

// Pages fills b with memory of one of m's containers, by its name, that the images lack. An error that wraps
// lazypages.ErrLost: it is nowhere any more. After any other it may be asked for again.
func (d *Dumps) Pages(m migrate.Move, container string, r lazypages.Range, b []byte) error {
	_, parts, err := d.parts(m)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.Name != container {
			continue
		}
		if err := d.pages(p, r, b); err != nil {
			return fmt.Errorf("memory of container %s, %d bytes at %#x of its process %d: %w", p.ID, r.Size, r.Address, r.Process, err)
		}
		return nil
	}
	return fmt.Errorf("%w: container %q is none of move %s/%s", lazypages.ErrLost, container, m.Namespace, m.Name)
}

func (d *Dumps) pages(p part, r lazypages.Range, b []byte) error {
	n, err := readNote(p.dir)
	switch {
	case err != nil:
		return err
	case n == nil:
		return fmt.Errorf("%w: it is not held here any more", lazypages.ErrLost)
	case !n.Leaves:
		return fmt.Errorf("%w: the images lack nothing", lazypages.ErrLost)
	}
	left, err := d.leftOut(p)
	if err != nil {
		return err
	}
	if !left.Has(r.Process, r.Address, r.Size) {
		return fmt.Errorf("%w: the images do not lack it", lazypages.ErrLost)
	}
	return finish(readMemory(n.Init.PID, r, b), d.stands(p)) // all along: nobody freezes unnoted what has run
}

// finish says how reading memory ended, of a process that stands or not: what the kernel cannot read of one that
// stands (EIO, EFAULT: the page is poisoned, or swap failed) it never will.
func finish(err, stands error) error {
	if stands == nil && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EFAULT)) {
		return fmt.Errorf("%w: %w", lazypages.ErrLost, err)
	}
	return errors.Join(err, stands)
}

// Holds tells whether anything is there of a dump for a move, of which UID and Epoch count.
func (d *Dumps) Holds(m migrate.Move) (bool, error) {
	dump, err := d.dir(m)
	if err != nil {
		return false, err
	}
	if _, err = os.Stat(dump); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// leftOut is what a container's images lack. They do not change.
func (d *Dumps) leftOut(p part) (inspect.Left, error) {
	d.mu.Lock()
	left, ok := d.left[p.images()]
	d.mu.Unlock()
	if ok {
		return left, nil
	}
	left, err := inspect.LeftOut(p.images())
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left[p.images()] = left
	return left, nil
}

// stands is nil if the container's first process is there and has stood still since it was held. An error that
// wraps lazypages.ErrLost: it has not, for certain.
func (d *Dumps) stands(p part) error {
	n, err := readNote(p.dir) // as it is now: the script may have called again
	switch {
	case err != nil:
		return err
	case n == nil || n.Init.Doomed():
		return fmt.Errorf("%w: the container's first process has ended, or was killed", lazypages.ErrLost)
	}
	group, err := d.groupOf(*n)
	if err != nil {
		return err
	}
	still, ran, err := standing(*n, group)
	switch {
	case err == nil && ran:
		err = fmt.Errorf("%w: process %d was let run", lazypages.ErrLost, n.Init.PID)
	case err == nil && !still:
		err = fmt.Errorf("process %d has not stopped again yet", n.Init.PID)
	}
	return err
}

// freezer is what stops a container; cgroup.Group fits.
type freezer interface {
	Frozen() (bool, error)
	Told() (bool, error)
}

// standing tells of a container that was held whether it stands still, or ran since. Neither: CRIU was
// killed, and a task that it had stopped is on its way into the freezer, before it runs any code of its own.
func standing(n note, f freezer) (still, ran bool, err error) {
	if n.Ran {
		return false, true, nil
	}
	if still, err = f.Frozen(); still || err != nil {
		return still, false, err
	}
	told, err := f.Told()
	return false, err == nil && !told, err
}

// readMemory reads memory of the process that has the PID pid here, and r.Process in the images.
func readMemory(pid int, r lazypages.Range, b []byte) error {
	// What is opened below this directory is of the process that has the PID now.
	proc, err := os.OpenRoot(filepath.Join("/proc", strconv.Itoa(pid)))
	if err != nil {
		return err
	}
	defer proc.Close()
	if err := isNumbered(proc, r.Process); err != nil {
		return err
	}
	mem, err := proc.Open("mem")
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.ReadAt(b, int64(r.Address))
	return err
}

// isNumbered is nil if a process, whose directory in proc that is, has that PID in its own namespace
// (proc_pid_status(5), NSpid), by which the images name it.
func isNumbered(proc *os.Root, pid uint64) error {
	status, err := proc.ReadFile("status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(rest)
			if len(f) > 0 && f[len(f)-1] == strconv.FormatUint(pid, 10) {
				return nil
			}
			return fmt.Errorf("%w: the container's process is %q in its namespaces, not %d", lazypages.ErrLost, f, pid)
		}
	}
	return errors.New("proc names no NSpid")
}
