package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/criu"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/repair"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

var _ runtimeapi.Holds = (*Dumps)(nil)

// Hold serves CRIU's action script at post-dump: it freezes the container's group and keeps
// the script until Release or End. A dump that is not Drover's goes on at once.
func (d *Dumps) Hold(ctx context.Context, h runtimeapi.Hold) (bool, error) {
	images := filepath.Dir(h.ImageDir)
	dump := filepath.Dir(images)
	own, err := d.cfg.Layout.OwnImages(h.ImageDir)
	if err != nil {
		return false, err
	}
	if !own {
		// Somebody else's checkpoint of the container. Were it taken for that by mistake,
		// Dump would fail and the container run on.
		return true, nil
	}
	if filepath.Dir(dump) != filepath.Clean(d.cfg.Layout.Dumps()) || filepath.Base(images) != imageDir {
		return false, fmt.Errorf("%s is no directory of a dump", h.ImageDir)
	}
	n, err := readNote(filepath.Join(dump, partDir, filepath.Base(h.ImageDir)))
	if err != nil {
		return false, err
	}
	if n == nil {
		// Its directory was removed: it was undone before it came here.
		return false, nil
	}
	if h.InitPID != n.Init.PID {
		return false, fmt.Errorf("CRIU dumps process %d, but container %s begins with %d", h.InitPID, n.ContainerID, n.Init.PID)
	}
	// An agent that comes back to a move that is over ends the container at once, before the
	// script has called again: then nothing is left to freeze, and CRIU waits to be let go.
	if n.Init.Alive() {
		group, err := d.groupOf(*n)
		if err != nil {
			return false, fmt.Errorf("find the container's control group: %w", err)
		}
		if err := d.freeze(ctx, *n, group, filepath.Join(dump, partDir, filepath.Base(h.ImageDir))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	mine := &hold{proceed: make(chan bool, 1)}
	d.mu.Lock()
	d.holds[h.ImageDir] = mine
	d.signal()
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.holds[h.ImageDir] == mine {
			delete(d.holds, h.ImageDir)
		}
		d.signal()
	}()
	select {
	case proceed := <-mine.proceed:
		return proceed, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// freeze freezes the group of a container whose note is in dir. One that leaves memory there, and was let run by
// somebody since it was held, is of no use to its copy any more: that is noted before it stands still again.
func (d *Dumps) freeze(ctx context.Context, n note, group cgroup.Group, dir string) error {
	if n.Held && !n.Ran {
		_, ran, err := standing(n, group)
		if err != nil {
			return err
		}
		if ran {
			d.cfg.Log.Error("a container that is held was let run by somebody: its memory is lost to its copy", "pod", n.PodUID, "container", n.ContainerID)
			n.Ran = true
			if err := layout.WriteNote(filepath.Join(dir, noteFile), n); err != nil {
				return err
			}
		}
	}
	if err := group.Freeze(ctx); err != nil || n.Held || !n.Leaves {
		return err
	}
	n.Held = true
	return layout.WriteNote(filepath.Join(dir, noteFile), n)
}

// signal wakes everybody who waits for a change. The lock is held.
func (d *Dumps) signal() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Inspect tells what there is of m's containers and of their dumps.
func (d *Dumps) Inspect(_ context.Context, m migrate.Move) (handoff.SourceFacts, error) {
	_, parts, err := d.parts(m)
	if err != nil {
		return handoff.SourceFacts{}, err
	}
	facts := handoff.SourceFacts{Frozen: true}
	for _, p := range parts {
		alive, frozen, dumping, err := d.look(p)
		if err != nil {
			return handoff.SourceFacts{}, err
		}
		facts.Alive, facts.Short = facts.Alive || alive, facts.Short || !alive
		facts.Frozen = facts.Frozen && (frozen || !alive)
		facts.Dumping = facts.Dumping || dumping
	}
	facts.Frozen = facts.Frozen && facts.Alive
	return facts, nil
}

// look tells what there is of one container: processes, in a group that is frozen; a dump
// that has not come to its hold.
func (d *Dumps) look(p part) (alive, frozen, dumping bool, err error) {
	group, err := d.group(p)
	if err != nil {
		return false, false, false, err
	}
	if group.Exists() {
		pids, err := group.Procs()
		if err != nil {
			return false, false, false, err
		}
		alive = len(pids) > 0
		if frozen, err = d.frozen(p, group); err != nil && group.Exists() {
			return false, false, false, err
		}
	}
	d.mu.Lock()
	held := d.holds[p.images()] != nil
	d.mu.Unlock()
	running, err := working(p.dir)
	// A script that has not called again yet left its group frozen.
	dumping = running && !held && !frozen
	return alive, frozen, dumping, err
}

// frozen tells whether a container's group stands, and has never run since it was held.
func (d *Dumps) frozen(p part, group cgroup.Group) (bool, error) {
	n, err := readNote(p.dir)
	if err != nil {
		return false, err
	}
	if n == nil || !n.Held {
		return group.Frozen()
	}
	_, ran, err := standing(*n, group)
	return err == nil && !ran, err
}

// Release undoes the dumps: the containers run on.
func (d *Dumps) Release(ctx context.Context, m migrate.Move) error {
	dump, parts, err := d.parts(m)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := d.release(ctx, p); err != nil {
			return fmt.Errorf("release container %s: %w", p.ID, err)
		}
	}
	return d.remove(dump)
}

func (d *Dumps) release(ctx context.Context, p part) error {
	n, err := readNote(p.dir)
	if n == nil {
		return err
	}
	group, err := d.group(p)
	if err != nil {
		return err
	}
	if err := d.roundsEnd(ctx, p); err != nil {
		return err
	}
	if err := d.letGo(ctx, p, group.Thaw, false); err != nil {
		return err
	}
	// Also when CRIU died and nobody was there to be let go; and CRIU leaves a group frozen
	// that it found so.
	if err := d.mend(p, group); err != nil {
		return err
	}
	return errors.Join(d.unlockNetwork(n.Init), group.Thaw())
}

// mend ends what a CRIU that was killed leaves of connections that it was to keep.
func (d *Dumps) mend(p part, group cgroup.Group) error {
	if !p.move.KeepsConnections || !group.Exists() {
		return nil
	}
	pids, err := group.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		ended, err := repair.End(pid)
		if errors.Is(err, repair.ErrSockets) {
			// A connection less, and not a pod that stays frozen for it.
			d.cfg.Log.Error("a connection that CRIU left may neither send nor close", "container", p.ID, "process", pid, "err", err)
		} else if err != nil {
			return err
		}
		if ended > 0 {
			d.cfg.Log.Warn("CRIU left connections in repair mode", "container", p.ID, "process", pid, "connections", ended)
		}
	}
	return nil
}

// End kills the containers where they stand.
func (d *Dumps) End(ctx context.Context, m migrate.Move) error {
	dump, parts, err := d.parts(m)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := d.end(ctx, p); err != nil {
			return fmt.Errorf("end container %s: %w", p.ID, err)
		}
	}
	return d.remove(dump)
}

func (d *Dumps) end(ctx context.Context, p part) error {
	group, err := d.group(p)
	if err != nil {
		return err
	}
	n, err := readNote(p.dir)
	if err != nil {
		return err
	}
	if n != nil {
		// While the first process is there its network can still be found.
		if err := d.unlockNetwork(n.Init); err != nil {
			d.cfg.Log.Warn("a network lock of CRIU is left behind", "container", n.ContainerID, "err", err)
		}
	}
	if err := group.Kill(ctx); err != nil {
		return err
	}
	if err := d.roundsEnd(ctx, p); err != nil {
		return err
	}
	if err := d.letGo(ctx, p, func() error { return group.Kill(ctx) }, true); err != nil {
		return err
	}
	if s, err := criu.ReadDumpStats(filepath.Join(p.dir, workDir)); err == nil {
		d.cfg.Log.Info("the dump of a moved container", "container", p.ID, "freezing", s.Freezing, "memory", s.Memory, "pages", s.Pages)
	}
	return group.Thaw() // empty, and left frozen by CRIU if it was when CRIU came
}

// patience is how long CRIU and runc may take to end when nothing of the container is left;
// they need milliseconds.
const patience = 5 * time.Second

// letGo returns when runc and CRIU have ended. Whenever the action script calls, before is
// done and then it is answered. If the container is dead, and only then, they are not waited
// for without end.
func (d *Dumps) letGo(ctx context.Context, p part, before func() error, proceed bool) error {
	ended := make(chan error, 1)
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _, err := hosted.Wait(wctx, filepath.Join(p.dir, runDir))
		ended <- err
	}()
	late := time.NewTicker(patience)
	defer late.Stop()
	for {
		d.mu.Lock()
		h, changed := d.holds[p.images()], d.changed
		d.mu.Unlock()
		if h != nil {
			if err := before(); err != nil {
				return err
			}
			select {
			case h.proceed <- proceed:
			default: // answered already
			}
		}
		select {
		case <-changed:
		case err := <-ended:
			return err
		case <-late.C:
			if err := d.cutOff(p, filepath.Join(p.dir, runDir)); err != nil {
				return err
			}
		}
	}
}

// cutOff ends the runc and CRIU that were started in a directory if their container is dead. Nobody acts on a timeout where there is
// something to decide: here a container's fate is sealed, and theirs is that of programs that
// hang. CRIU 4.2 does when it has stopped what an exec brought in, and saw the first thread
// stop before another one: it waits for that thread's end, which comes after the others', and
// those cannot end before it lets them go.
func (d *Dumps) cutOff(p part, run string) error {
	n, err := readNote(p.dir)
	if err != nil || n == nil || !n.Init.Doomed() {
		return err
	}
	group, err := d.groupOf(*n)
	if err != nil {
		return err
	}
	if pids, err := group.Procs(); err != nil || len(pids) > 0 {
		return err
	}
	return d.kill(p, run, "the container is dead, but runc and CRIU did not end and were killed")
}

// kill kills what was started in a directory, and says why.
func (d *Dumps) kill(p part, run, why string) error {
	where, err := hosted.CutOff(run)
	if len(where) > 0 {
		d.cfg.Log.Warn(why, "container", p.ID, "they were", where)
	}
	return err
}

// group is the container's control group; the zero Group when there is no container.
func (d *Dumps) group(p part) (cgroup.Group, error) {
	n, err := readNote(p.dir)
	if err != nil {
		return cgroup.Group{}, err
	}
	if n != nil {
		return d.groupOf(*n)
	}
	c, err := d.container(p)
	if c == nil {
		return cgroup.Group{}, err
	}
	return d.cfg.Groups.At(c.CgroupsPath)
}

// groupOf is the control group around the container's first process, or, when that has ended,
// where the bundle puts it. So too when it was killed and cannot end before CRIU, which traces
// its threads, lets them go: on cgroup v1 it is said to be in the root meanwhile.
func (d *Dumps) groupOf(n note) (cgroup.Group, error) {
	g, err := d.cfg.Groups.Container(n.Init.PID, n.CgroupsPath)
	switch {
	case err == nil && n.Init.Alive():
		return g, nil
	case err != nil && !n.Init.Doomed():
		return cgroup.Group{}, err
	}
	return d.cfg.Groups.At(n.CgroupsPath)
}
