package checkpoint

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

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// ErrUntracked: the memory of a container is not written in rounds. Nothing was done to it.
var ErrUntracked = errors.New("its memory is not written in rounds")

// PreDump has CRIU write the memory of m's container while that runs: all of it the first time, and
// then what it has written to since. It gives how many bytes that was. Dump then writes only
// what has changed since the last round, and says of the rest that it is in the parent
// (package chain). CRIU stops the container for some 0.1 to 0.3 s in each round.
//
// A round that was begun comes to its end, whatever becomes of ctx: CRIU works inside of the
// container's processes. If it fails, the container runs on, and there are no rounds any more:
// CRIU has told the kernel to forget what had changed.
func (d *Dumps) PreDump(ctx context.Context, m migrate.Move) (model.Bytes, error) {
	dump, parts, err := d.parts(m)
	if err != nil {
		return 0, err
	}
	if len(parts) != 1 {
		return 0, fmt.Errorf("%w: pod %s has %d containers, which would be stopped one after the other, want 1", ErrUntracked, m.Source.Name, len(parts))
	}
	p, n := parts[0], d.rounds(dump)+1
	if n > layout.MostRounds {
		return 0, fmt.Errorf("container %s: round %d is one more than there may be", p.ID, n)
	}
	if err := d.trackable(p); err != nil {
		return 0, err
	}
	groups, err := d.prepare(dump, parts)
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err // Release follows
	}
	if err := d.preDump(p, groups[0], n); err != nil {
		err = fmt.Errorf("round %d of the memory of container %s: %w", n, p.ID, err)
		if d.life.Err() != nil {
			return 0, err // CRIU works on; Release waits for it in the agent's next life
		}
		d.distrust(p)
		return 0, errors.Join(err, d.remove(dump))
	}
	d.mu.Lock()
	d.written[dump] = n
	d.mu.Unlock()
	return pagesIn(layout.RoundDir(p.images(), n))
}

// rounds is how many rounds a dump has to build on: those that this agent has seen succeed.
func (d *Dumps) rounds(dump string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written[dump]
}

// preDump writes one round.
func (d *Dumps) preDump(p part, group cgroup.Group, n int) error {
	images, run, work := layout.RoundDir(p.images(), n), p.roundRun(n), filepath.Join(p.dir, workDir+"."+strconv.Itoa(n))
	for _, dir := range []string{images, run, work} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	args := []string{d.cfg.Runc, "--root", d.cfg.Root, "checkpoint", "--pre-dump", "--manage-cgroups-mode", "ignore",
		"--image-path", images, "--work-path", work}
	args = append(append(args, parent(p, n-1)...), p.ID)
	err := hosted.Start(context.Background(), hosted.Command{Program: filepath.Join(d.cfg.HostRoot, d.cfg.Wrapper), Dir: run, Cgroup: d.cfg.Cgroup, Args: args})
	if err != nil {
		return err
	}
	exit, ok, err := hosted.Wait(d.life, run)
	if err != nil {
		return err
	}
	if ok && exit == (hosted.Exit{}) {
		return nil
	}
	err = errors.New(why(run, filepath.Join(work, "dump.log"), exit, ok))
	// CRIU freezes the group to stop the processes. One that was killed has not let it go.
	return errors.Join(err, group.Thaw())
}

// parent are the arguments by which CRIU leaves out what has not changed since a round; none for
// round 0. runc wants the path as seen from that of the images.
func parent(p part, round int) []string {
	if round == 0 {
		return nil
	}
	return []string{"--parent-path", filepath.Join("..", filepath.Base(layout.RoundDir(p.images(), round)))}
}

func (p part) roundRun(n int) string { return filepath.Join(p.dir, runDir+"."+strconv.Itoa(n)) }

// runs are the directories of what was started for a part: for the dump, and for its rounds.
func runs(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, runDir+".*")) // the pattern is a constant, and dir has names of ours
	return append(found, filepath.Join(dir, runDir))
}

// roundsEnd returns when no round is being written: also one that an earlier life of the agent
// began.
func (d *Dumps) roundsEnd(ctx context.Context, dir string) error {
	for _, run := range runs(dir) {
		if run == filepath.Join(dir, runDir) {
			continue
		}
		if _, _, err := hosted.Wait(ctx, run); err != nil {
			return fmt.Errorf("wait for a round of memory that is being written: %w", err)
		}
	}
	return nil
}

// distrust has no more rounds written of a container: they failed once.
func (d *Dumps) distrust(p part) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.untracked[p.ID] = true
}

// trackable tells why the memory of a container is not to be written in rounds. The kernel's marks
// of what was written to are one for each process, whoever asks for them: where somebody else clears
// them between two rounds, what was written before that would be missed, and the copy have an old page.
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
	pids, err := group.Procs()
	if err != nil {
		return err
	}
	below, err := n.Init.Below()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid != n.Init.PID && !slices.ContainsFunc(below, func(q process.Process) bool { return q.PID == pid }) {
			// CRIU stops it with the others, and may hang at that: see cutOff.
			return fmt.Errorf("%w: process %d was brought into container %s, as by kubectl exec", ErrUntracked, pid, p.ID)
		}
		if why := unmarked("/proc/" + strconv.Itoa(pid)); why != "" {
			return fmt.Errorf("%w: process %d of container %s %s", ErrUntracked, pid, p.ID, why)
		}
	}
	return nil
}

// unmarked says by what memory of a process, whose directory in proc that is, may change without a mark
// of it being left; empty: nothing is known.
func unmarked(proc string) string {
	fds := filepath.Join(proc, "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		return "" // it has ended
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(fds, e.Name()))
		if err == nil && filepath.Base(to) == "clear_refs" {
			return "has " + to + " open, and may track itself what it writes to"
		}
	}
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err == nil && strings.Contains(string(maps), "/[aio]") {
		return "has asynchronous I/O (io_submit), which may write into its memory when the marks have just been cleared"
	}
	return ""
}

// pagesIn is how many bytes of memory a round has written.
func pagesIn(dir string) (sum model.Bytes, err error) {
	found, err := filepath.Glob(filepath.Join(dir, "pages-*.img"))
	if err != nil {
		return 0, err
	}
	for _, file := range found {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		sum += model.Bytes(info.Size())
	}
	return sum, nil
}
