// Package checkpoint dumps the container that leaves this node, and holds, ends or releases
// it. It is the Checkpointer of package migrate.
//
// "runc checkpoint" runs on the node and outside of the agent's container, so that it
// outlives the agent (package hosted). At post-dump CRIU's action script calls: the
// container's control group is frozen before the dump counts as complete, and from then on
// the freezer is the hold, whoever dies. runc is told to leave the container running: so
// it is never CRIU that ends the source, but End alone.
//
// A directory under Layout.Dumps, named after the move, says that something was done to the
// container; it is removed when that has been undone or is of no more use.
package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
)

var _ migrate.Checkpointer = (*Dumps)(nil)

// Notices is who is told that a container has ended; migrate.Driver fits.
type Notices interface {
	ContainerEnded(id string)
}

// Groups are the node's control groups; *cgroup.Hierarchies fits.
type Groups interface {
	Container(pid int, cgroupsPath string) (cgroup.Group, error)
	At(cgroupsPath string) (cgroup.Group, error)
}

// Config is what Dumps needs.
type Config struct {
	Layout layout.Layout
	Groups Groups
	// Cgroup is the path of the control group for Drover's own processes.
	Cgroup string
	// Wrapper is drover-runc's path on the node; HostRoot is how the agent reaches the
	// node's files ("/proc/1/root").
	Wrapper, HostRoot string
	// Runc is the real runtime on the node; Root its --root for pods' containers.
	Runc, Root string
	Log        *slog.Logger
}

// DefaultRoot is where containerd has runc keep the state of Kubernetes' containers.
const DefaultRoot = "/run/containerd/runc/k8s.io"

// Dumps is the state of this node's dumps. Safe for concurrent use.
type Dumps struct {
	cfg Config
	// notices and life are Run's; they are set when ready is closed.
	notices Notices
	life    context.Context
	ready   chan struct{}
	mu      sync.Mutex
	holds   map[string]*hold // by directory
	changed chan struct{}
}

// hold is a connected action script.
type hold struct {
	proceed chan bool
}

// note is written into a dump's directory before anything is done to the container.
type note struct {
	ContainerID string          `json:"containerID"`
	Init        process.Process `json:"init"`
	// CgroupsPath is the bundle's linux.cgroupsPath: what is held is this group, in which
	// the first process may have made others and moved on.
	CgroupsPath string `json:"cgroupsPath"`
}

// New makes the state of a node without dumps. It does no I/O.
func New(cfg Config) *Dumps {
	return &Dumps{cfg: cfg, holds: map[string]*hold{}, changed: make(chan struct{}), ready: make(chan struct{})}
}

// Run tells notices when a container that is being moved has ended, and returns when ctx
// ends. Until it is called, once, Dump waits.
func (d *Dumps) Run(ctx context.Context, notices Notices) error {
	d.notices, d.life = notices, ctx
	close(d.ready)
	entries, err := os.ReadDir(d.cfg.Layout.Dumps())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for dumps of an earlier life: %w", err)
	}
	var wg sync.WaitGroup
	for _, e := range entries {
		n, err := readNote(filepath.Join(d.cfg.Layout.Dumps(), e.Name()))
		if err != nil {
			d.cfg.Log.Warn("the note about a dump cannot be read", "dump", e.Name(), "err", err)
		}
		if n != nil {
			wg.Add(1)
			go func() {
				defer wg.Done()
				d.watch(ctx, *n)
			}()
		}
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

func (d *Dumps) watch(ctx context.Context, n note) {
	if err := n.Init.Wait(ctx); err != nil {
		return
	}
	d.notices.ContainerEnded(n.ContainerID)
}

// Files in a dump's directory, beside layout.FrozenFile.
const (
	noteFile = "container"
	imageDir = "images"
	workDir  = "work"
	runDir   = "run"
)

func (d *Dumps) dir(m migrate.Move) (string, error) {
	name, err := layout.MoveDir(m.UID, uint64(m.Epoch))
	if err != nil {
		return "", err
	}
	return filepath.Join(d.cfg.Layout.Dumps(), name), nil
}

func readNote(dir string) (*note, error) {
	var n note
	ok, err := layout.ReadNote(filepath.Join(dir, noteFile), &n)
	if !ok {
		return nil, err
	}
	return &n, nil
}

// Dump dumps m's container and returns when it is held.
func (d *Dumps) Dump(ctx context.Context, m migrate.Move) (migrate.Dumped, error) {
	dir, err := d.dir(m)
	if err != nil {
		return migrate.Dumped{}, err
	}
	began := time.Now()
	group, err := d.prepare(m, dir)
	if err != nil {
		return migrate.Dumped{}, err
	}
	if err := ctx.Err(); err != nil {
		return migrate.Dumped{}, errors.Join(err, os.RemoveAll(dir))
	}
	// From here on CRIU works inside the container's processes: breaking it off would leave
	// them damaged. It comes to the hold, or fails by itself.
	err = hosted.Start(hosted.Command{
		Program: filepath.Join(d.cfg.HostRoot, d.cfg.Wrapper), Dir: filepath.Join(dir, runDir), Cgroup: d.cfg.Cgroup,
		Args: []string{d.cfg.Runc, "--root", d.cfg.Root, "checkpoint", "--leave-running",
			"--manage-cgroups-mode", "ignore",
			"--image-path", filepath.Join(dir, imageDir), "--work-path", filepath.Join(dir, workDir), m.ContainerID},
	})
	if err != nil {
		return migrate.Dumped{}, fmt.Errorf("dump container %s: %w", m.ContainerID, err)
	}
	if err := d.untilHeld(dir, m.ContainerID); err != nil {
		return migrate.Dumped{}, err
	}
	if frozen, err := group.Frozen(); err != nil || !frozen {
		return migrate.Dumped{}, fmt.Errorf("dump container %s: its control group did not stay frozen (%v)", m.ContainerID, err)
	}
	dumped := migrate.Dumped{Dir: filepath.Join(dir, imageDir), FrozenAt: began}
	if info, err := os.Stat(filepath.Join(dir, layout.FrozenFile)); err == nil {
		dumped.FrozenAt = info.ModTime()
	}
	return dumped, nil
}

// ErrForeign: the record of a move names a container of another pod.
var ErrForeign = errors.New("the record names another pod's container")

// container is drover-runc's note about m's container; nil: there is none. The record's word
// on which container is the source pod's is not taken: drover-runc has it from the runtime.
func (d *Dumps) container(m migrate.Move) (*layout.Container, error) {
	c, err := d.cfg.Layout.ReadContainer(m.ContainerID)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", m.ContainerID, err)
	}
	if c != nil && c.PodUID != m.Source.UID {
		return nil, fmt.Errorf("%w: container %s is one of pod %q, not of %q, which move %s/%s is about",
			ErrForeign, m.ContainerID, c.PodUID, m.Source.UID, m.Namespace, m.Name)
	}
	return c, nil
}

// prepare checks that the dump will come to a hold, and makes its directory.
func (d *Dumps) prepare(m migrate.Move, dir string) (cgroup.Group, error) {
	s, err := d.state(m.ContainerID)
	if err != nil {
		return cgroup.Group{}, err
	}
	if s == nil {
		return cgroup.Group{}, fmt.Errorf("dump container %s: runc knows no such container", m.ContainerID)
	}
	config := d.cfg.Layout.CriuConfig(m.ContainerID)
	if !s.labelled("org.criu.config", config) {
		return cgroup.Group{}, fmt.Errorf("dump container %s: it was not created by drover-runc for a pod that opted in; restart the pod with RuntimeClass drover and annotation drover.dev/migrate: \"true\"", m.ContainerID)
	}
	init, err := process.Of(s.InitPID)
	if err != nil {
		return cgroup.Group{}, fmt.Errorf("dump container %s: %w", m.ContainerID, err)
	}
	c, err := d.container(m)
	if err != nil {
		return cgroup.Group{}, err
	}
	if c == nil {
		return cgroup.Group{}, fmt.Errorf("dump container %s: drover-runc left no note about its control group", m.ContainerID)
	}
	group, err := d.cfg.Groups.Container(s.InitPID, c.CgroupsPath)
	if err != nil {
		return cgroup.Group{}, fmt.Errorf("dump container %s: %w", m.ContainerID, err)
	}
	hook, err := layout.EnsureHook(filepath.Join(d.cfg.HostRoot, d.cfg.Wrapper))
	if err != nil {
		return cgroup.Group{}, err
	}
	hook = filepath.Join(filepath.Dir(d.cfg.Wrapper), filepath.Base(hook))
	if err := d.cfg.Layout.WriteCriuConfig(m.ContainerID, hook); err != nil {
		return cgroup.Group{}, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return cgroup.Group{}, err
	}
	for _, sub := range []string{imageDir, workDir, runDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return cgroup.Group{}, err
		}
	}
	n := note{ContainerID: m.ContainerID, Init: init, CgroupsPath: c.CgroupsPath}
	if err := layout.WriteNote(filepath.Join(dir, noteFile), n); err != nil {
		return cgroup.Group{}, err
	}
	<-d.ready
	go d.watch(d.life, n)
	return group, durable.SyncDir(filepath.Dir(dir))
}

// untilHeld returns nil when the action script holds, or why the dump ended without that.
// It does not end with a context: only the dump knows when its processes may be left.
func (d *Dumps) untilHeld(dir, id string) error {
	type end struct {
		exit hosted.Exit
		ok   bool
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		exit, ok, err := hosted.Wait(d.life, filepath.Join(dir, runDir))
		ended <- end{exit, ok, err}
	}()
	for {
		d.mu.Lock()
		held, changed := d.holds[dir] != nil, d.changed
		d.mu.Unlock()
		if held {
			return nil
		}
		select {
		case <-changed:
		case e := <-ended:
			if e.err != nil {
				return fmt.Errorf("dump container %s: %w", id, e.err)
			}
			return fmt.Errorf("dump container %s: %s", id, why(dir, e.exit, e.ok))
		}
	}
}
