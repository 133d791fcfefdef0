package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/criu"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

var _ runtimeapi.Holds = (*Dumps)(nil)

// Hold serves CRIU's action script at post-dump: it freezes the container's group and keeps
// the script until Release or End. A dump that is not Drover's goes on at once.
func (d *Dumps) Hold(ctx context.Context, h runtimeapi.Hold) (bool, error) {
	dir := filepath.Dir(h.ImageDir)
	own, err := d.cfg.Layout.OwnImages(h.ImageDir)
	if err != nil {
		return false, err
	}
	if !own {
		// Somebody else's checkpoint of the container. Were it taken for that by mistake,
		// Dump would fail and the container run on.
		return true, nil
	}
	if filepath.Dir(dir) != filepath.Clean(d.cfg.Layout.Dumps()) || filepath.Base(h.ImageDir) != imageDir {
		return false, fmt.Errorf("%s is no directory of a dump", h.ImageDir)
	}
	n, err := readNote(dir)
	if err != nil {
		return false, err
	}
	if n == nil {
		// Its directory was removed: it was undone before it came here.
		return false, nil
	}
	group, err := d.cfg.Groups.Container(h.InitPID, n.CgroupsPath)
	if err != nil {
		return false, fmt.Errorf("find the container's control group: %w", err)
	}
	if h.InitPID != n.Init.PID {
		return false, fmt.Errorf("CRIU dumps process %d, but container %s begins with %d", h.InitPID, n.ContainerID, n.Init.PID)
	}
	if err := group.Freeze(ctx); err != nil {
		return false, err
	}
	mine := &hold{proceed: make(chan bool, 1)}
	d.mu.Lock()
	d.holds[dir] = mine
	d.signal()
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.holds[dir] == mine {
			delete(d.holds, dir)
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

// signal wakes everybody who waits for a change. The lock is held.
func (d *Dumps) signal() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Inspect tells what there is of m's container and of its dump.
func (d *Dumps) Inspect(_ context.Context, m migrate.Move) (handoff.SourceFacts, error) {
	dir, err := d.dir(m)
	if err != nil {
		return handoff.SourceFacts{}, err
	}
	group, err := d.group(m, dir)
	if err != nil {
		return handoff.SourceFacts{}, err
	}
	var facts handoff.SourceFacts
	if group.Exists() {
		pids, err := group.Procs()
		if err != nil {
			return handoff.SourceFacts{}, err
		}
		facts.Alive = len(pids) > 0
		if facts.Frozen, err = group.Frozen(); err != nil && group.Exists() {
			return handoff.SourceFacts{}, err
		}
	}
	d.mu.Lock()
	held := d.holds[dir] != nil
	d.mu.Unlock()
	running, err := hosted.Running(filepath.Join(dir, runDir))
	if err != nil {
		return handoff.SourceFacts{}, err
	}
	// A script that has not called again yet left its group frozen.
	facts.Dumping = running && !held && !facts.Frozen
	return facts, nil
}

// Release undoes the dump: the container runs on.
func (d *Dumps) Release(ctx context.Context, m migrate.Move) error {
	dir, err := d.dir(m)
	if err != nil {
		return err
	}
	n, err := readNote(dir)
	if err != nil {
		return err
	}
	if n == nil {
		return os.RemoveAll(dir)
	}
	group, err := d.group(m, dir)
	if err != nil {
		return err
	}
	if err := d.letGo(ctx, dir, group.Thaw, false); err != nil {
		return fmt.Errorf("release container %s: %w", n.ContainerID, err)
	}
	// Also when CRIU died and nobody was there to be let go.
	err = errors.Join(d.unlockNetwork(n.Init), group.Thaw())
	if err != nil {
		return fmt.Errorf("release container %s: %w", n.ContainerID, err)
	}
	return os.RemoveAll(dir)
}

// End kills the container where it stands.
func (d *Dumps) End(ctx context.Context, m migrate.Move) error {
	dir, err := d.dir(m)
	if err != nil {
		return err
	}
	group, err := d.group(m, dir)
	if err != nil {
		return err
	}
	n, err := readNote(dir)
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
		return fmt.Errorf("end container %s: %w", m.ContainerID, err)
	}
	if err := d.letGo(ctx, dir, func() error { return group.Kill(ctx) }, true); err != nil {
		return fmt.Errorf("end container %s: %w", m.ContainerID, err)
	}
	if s, err := criu.ReadDumpStats(filepath.Join(dir, workDir)); err == nil {
		d.cfg.Log.Info("the dump of a moved container", "container", m.ContainerID, "freezing", s.Freezing, "memory", s.Memory, "pages", s.Pages)
	}
	return os.RemoveAll(dir)
}

// letGo returns when runc and CRIU have ended. Whenever the action script calls, before is
// done and then it is answered.
func (d *Dumps) letGo(ctx context.Context, dir string, before func() error, proceed bool) error {
	ended := make(chan error, 1)
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _, err := hosted.Wait(wctx, filepath.Join(dir, runDir))
		ended <- err
	}()
	for {
		d.mu.Lock()
		h, changed := d.holds[dir], d.changed
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
		}
	}
}

// group is the container's control group; the zero Group when there is no container.
func (d *Dumps) group(m migrate.Move, dir string) (cgroup.Group, error) {
	n, err := readNote(dir)
	if err != nil {
		return cgroup.Group{}, err
	}
	if n != nil {
		g, err := d.cfg.Groups.Container(n.Init.PID, n.CgroupsPath)
		if err == nil && n.Init.Alive() {
			return g, nil
		}
		if n.Init.Alive() {
			return cgroup.Group{}, err
		}
		return d.cfg.Groups.At(n.CgroupsPath)
	}
	c, err := d.container(m)
	if c == nil {
		return cgroup.Group{}, err
	}
	return d.cfg.Groups.At(c.CgroupsPath)
}
