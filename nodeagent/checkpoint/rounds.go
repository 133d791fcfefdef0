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

	"golang.org/x/sys/unix"

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
// container's processes. After any error there are no rounds any more, and the container runs on: what
// it has written to since a round is then known no more, or must not be relied on.
func (d *Dumps) PreDump(ctx context.Context, m migrate.Move) (model.Bytes, error) {
	dump, parts, err := d.parts(m)
	if err != nil {
		return 0, err
	}
	<-d.ready
	n, begun, err := d.round(ctx, dump, parts)
	if err == nil || d.life.Err() != nil { // CRIU may work on; Release waits for it in the agent's next life
		return n, err
	}
	if begun || d.rounds(dump) > 0 {
		err = errors.Join(err, d.remove(dump))
	}
	return 0, err
}

// round writes the next round; begun tells that something of it may be there.
func (d *Dumps) round(ctx context.Context, dump string, parts []part) (bytes model.Bytes, begun bool, err error) {
	p, n := parts[0], d.rounds(dump)+1
	if len(parts) != 1 {
		return 0, false, fmt.Errorf("%w: pod %s has %d containers, which would be stopped one after the other, want 1", ErrUntracked, p.move.Source.Name, len(parts))
	}
	if n > layout.MostRounds {
		return 0, false, fmt.Errorf("container %s: round %d is one more than there may be", p.ID, n)
	}
	if err := d.trackable(p); err != nil {
		return 0, false, err
	}
	groups, err := d.prepare(dump, parts)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, true, err
	}
	if err := d.preDump(p, groups[0], n); err != nil {
		if d.life.Err() == nil {
			d.distrust(p)
		}
		return 0, true, fmt.Errorf("round %d of the memory of container %s: %w", n, p.ID, err)
	}
	d.mu.Lock()
	d.written[dump] = n
	d.mu.Unlock()
	bytes, err = pagesIn(layout.RoundDir(p.images(), n))
	return bytes, true, err
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
	below, err := init.Below()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid != init.PID && !slices.ContainsFunc(below, func(q process.Process) bool { return q.PID == pid }) {
			// CRIU stops it with the others, and may hang at that: see cutOff. And what it writes into memory
			// that it shares with them leaves no mark at them.
			return fmt.Errorf("%w: process %d was brought into container %s, as by kubectl exec", ErrUntracked, pid, p.ID)
		}
		if why := unmarked("/proc/" + strconv.Itoa(pid)); why != "" {
			return fmt.Errorf("%w: process %d of container %s %s", ErrUntracked, pid, p.ID, why)
		}
	}
	return nil
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
