package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// PreDump has CRIU write the memory of m's container while that runs: all of it the first time, and
// then what it has written to since. It gives how many bytes that was. Dump then writes only
// what has changed since the last round, and says of the rest that it is in the parent
// (package chain). CRIU stops the container for some 0.1 to 0.3 s in each round.
//
// A round that was begun comes to its end, whatever becomes of ctx: CRIU works inside of the
// container's processes. Only one that hangs is cut off. After any error there are no rounds any more, and the container runs on: what
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
	exit, ok, err := d.roundEnds(d.life, p, run)
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
func (d *Dumps) roundsEnd(ctx context.Context, p part) error {
	for _, run := range runs(p.dir) {
		if run == filepath.Join(p.dir, runDir) {
			continue
		}
		if _, _, err := d.roundEnds(ctx, p, run); err != nil {
			return fmt.Errorf("wait for a round of memory that is being written: %w", err)
		}
	}
	return nil
}

// roundEnds returns how what was started in a directory to write a round has ended. If it hangs it is killed:
// when the container is dead, or after Config.LongestRound, for the container may stand still meanwhile. The
// round has failed then, and nothing else is decided by that. What CRIU has put into a process takes itself out,
// but for a moment in which the process dies: docs/decisions/0035.
func (d *Dumps) roundEnds(ctx context.Context, p part, run string) (exit hosted.Exit, ok bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		exit, ok, err = hosted.Wait(ctx, run)
	}()
	look, longest := time.NewTicker(patience), time.NewTimer(d.cfg.LongestRound)
	defer look.Stop()
	defer longest.Stop()
	for {
		var failed error
		select {
		case <-ended:
			return exit, ok, err
		case <-look.C:
			failed = d.cutOff(p, run)
		case <-longest.C:
			longest.Reset(patience)
			failed = d.kill(p, run, "a round of memory did not end, and runc and CRIU were killed")
		}
		if failed != nil {
			cancel()
			<-ended
			return hosted.Exit{}, false, failed
		}
	}
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
