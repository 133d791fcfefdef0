// Package checkpoint dumps the containers that leave this node, and holds, ends or releases
// them. It is the Checkpointer of package migrate. Several containers of a pod are all frozen
// before the first is dumped, so that what one has heard from another, that one has said.
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
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/inspect"
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
	// Files takes the containers' files along; nil: they stay behind.
	Files *files.Node
	// Frozen is called when all containers of a move that keeps its connections are frozen, before the first is
	// dumped. May be nil.
	Frozen func(m migrate.Move) error
	// LeaveFrom gives from how much memory on a move with PostCopy leaves it in the held processes; 0: none
	// does. May be nil, as for 0.
	LeaveFrom func() model.Bytes
	// LongestRound is after what time a round of memory that has not ended is cut off, if its container
	// lives. Default 2 minutes, longer than a create waits.
	LongestRound time.Duration
	Log          *slog.Logger
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
	holds   map[string]*hold // by directory of images
	changed chan struct{}
	// written are the rounds that a dump has, by its directory; untracked the containers of which
	// rounds have failed, by ID.
	written   map[string]int
	untracked map[string]bool
	// left is what images lack of memory, by their directory, once it was asked for.
	left map[string]inspect.Left
}

// hold is a connected action script.
type hold struct {
	proceed chan bool
}

// note is written into a container's part of a dump's directory before anything is done to the container.
type note struct {
	PodUID      string          `json:"podUID"`
	ContainerID string          `json:"containerID"`
	Init        process.Process `json:"init"`
	// CgroupsPath is the bundle's linux.cgroupsPath: what is held is this group, in which
	// the first process may have made others and moved on.
	CgroupsPath string `json:"cgroupsPath"`
	// Leaves: the images lack the memory that can be loaded later. See whole.
	Leaves bool `json:"leaves,omitempty"`
	// Held: it leaves memory, and was frozen for its hold. Ran: somebody let it run since.
	Held bool `json:"held,omitempty"`
	Ran  bool `json:"ran,omitempty"`
}

// New makes the state of a node without dumps. It does no I/O.
func New(cfg Config) *Dumps {
	if cfg.LongestRound == 0 {
		cfg.LongestRound = 2 * time.Minute
	}
	return &Dumps{cfg: cfg, holds: map[string]*hold{}, changed: make(chan struct{}), ready: make(chan struct{}),
		written: map[string]int{}, untracked: map[string]bool{}, left: map[string]inspect.Left{}}
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
		parts, err := partsOf(filepath.Join(d.cfg.Layout.Dumps(), e.Name()))
		if err != nil {
			return fmt.Errorf("look for dumps of an earlier life: %w", err)
		}
		for _, dir := range parts {
			n, err := readNote(dir)
			if err != nil {
				d.cfg.Log.Warn("the note about a dump cannot be read", "dump", dir, "err", err)
			}
			if n != nil {
				wg.Add(1)
				go func() {
					defer wg.Done()
					d.watch(ctx, *n)
				}()
			}
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
	d.mu.Lock()
	delete(d.untracked, n.ContainerID)
	d.mu.Unlock()
	d.notices.ContainerEnded(n.ContainerID)
}

// ErrForeign: the record of a move names a container of another pod.
var ErrForeign = errors.New("the record names another pod's container")

// Directories of a dump, beside layout.FrozenFile: images/NAME holds the images of container
// NAME, parts/NAME all else about it.
const (
	imageDir = "images"
	partDir  = "parts"
	noteFile = "container"
	workDir  = "work"
	runDir   = "run"
)

// part is the dump of one container.
type part struct {
	move migrate.Move
	migrate.Container
	// dump is the directory of the whole dump, dir the part's own.
	dump, dir string
}

func (p part) images() string { return filepath.Join(p.dump, imageDir, p.Name) }

func (d *Dumps) dir(m migrate.Move) (string, error) {
	name, err := layout.MoveDir(m.UID, uint64(m.Epoch))
	if err != nil {
		return "", err
	}
	return filepath.Join(d.cfg.Layout.Dumps(), name), nil
}

// parts are the dumps that a move is made of.
func (d *Dumps) parts(m migrate.Move) (dump string, all []part, err error) {
	if dump, err = d.dir(m); err != nil {
		return "", nil, err
	}
	for _, c := range m.Containers {
		if err := layout.ValidContainerID(c.Name); err != nil {
			return "", nil, fmt.Errorf("move %s/%s: name of a container: %w", m.Namespace, m.Name, err)
		}
		all = append(all, part{move: m, Container: c, dump: dump, dir: filepath.Join(dump, partDir, c.Name)})
	}
	if len(all) == 0 {
		return "", nil, fmt.Errorf("the record of move %s/%s names no container", m.Namespace, m.Name)
	}
	return dump, all, nil
}

// partsOf are the parts that a dump has on the disk.
func partsOf(dump string) ([]string, error) {
	return filepath.Glob(filepath.Join(dump, partDir, "*"))
}

// remove removes a dump that is over.
func (d *Dumps) remove(dump string) error {
	d.mu.Lock()
	delete(d.written, dump)
	for images := range d.left {
		if filepath.Dir(filepath.Dir(images)) == dump {
			delete(d.left, images)
		}
	}
	d.mu.Unlock()
	return os.RemoveAll(dump)
}

func readNote(dir string) (*note, error) {
	var n note
	ok, err := layout.ReadNote(filepath.Join(dir, noteFile), &n)
	if !ok {
		return nil, err
	}
	return &n, nil
}

// Dump dumps m's containers and returns when they are held.
func (d *Dumps) Dump(ctx context.Context, m migrate.Move) (migrate.Dumped, error) {
	dump, parts, err := d.parts(m)
	if err != nil {
		return migrate.Dumped{}, err
	}
	if err := d.Loaded(ctx, m); err != nil {
		return migrate.Dumped{}, err
	}
	if err := ctx.Err(); err != nil {
		return migrate.Dumped{}, err // a round may still be being written
	}
	if err := d.dropStale(dump, parts[0]); err != nil {
		return migrate.Dumped{}, err
	}
	began := time.Now()
	groups, err := d.prepare(dump, parts)
	if err != nil {
		return migrate.Dumped{}, err
	}
	if err := ctx.Err(); err != nil {
		return migrate.Dumped{}, errors.Join(err, d.remove(dump))
	}
	// One container alone CRIU stops, later than this would.
	early := len(groups) > 1 || m.KeepsConnections
	if early {
		for _, g := range groups {
			if err := g.Freeze(ctx); err != nil {
				return migrate.Dumped{}, err
			}
		}
	}
	if m.KeepsConnections && d.cfg.Frozen != nil {
		if err := d.cfg.Frozen(m); err != nil {
			return migrate.Dumped{}, err
		}
	}
	// From here on CRIU works inside the containers' processes: breaking it off would leave
	// them damaged. It comes to the hold, or fails by itself.
	for _, p := range parts {
		if err := d.start(p); err != nil {
			return migrate.Dumped{}, err
		}
	}
	for i, p := range parts {
		if err := d.untilHeld(p); err != nil {
			if d.rounds(dump) > 0 {
				d.distrust(p)
			}
			return migrate.Dumped{}, err
		}
		if frozen, err := groups[i].Frozen(); err != nil || !frozen {
			return migrate.Dumped{}, fmt.Errorf("dump container %s: its control group did not stay frozen (%v)", p.ID, err)
		}
		if err := d.stillMarked(p, groups[i]); err != nil {
			return migrate.Dumped{}, err
		}
		if err := markLacking(p); err != nil {
			return migrate.Dumped{}, err
		}
	}
	if err := d.packFiles(ctx, parts); err != nil {
		return migrate.Dumped{}, err
	}
	dumped := migrate.Dumped{Dir: filepath.Join(dump, imageDir), FrozenAt: began}
	if info, err := os.Stat(filepath.Join(dump, layout.FrozenFile)); err == nil && !early {
		dumped.FrozenAt = info.ModTime()
	}
	return dumped, nil
}

// Loaded returns when no memory of m's containers, which came by a move themselves, is still to be
// loaded: CRIU takes what is missing for empty.
func (d *Dumps) Loaded(ctx context.Context, m migrate.Move) error {
	for _, c := range m.Containers {
		if err := layout.ValidContainerID(c.ID); err != nil {
			return err
		}
		if _, _, err := hosted.Wait(ctx, d.cfg.Layout.Loader(c.ID)); err != nil {
			return fmt.Errorf("dump container %s: wait until its memory is loaded: %w", c.ID, err)
		}
	}
	return nil
}

func (d *Dumps) start(p part) error {
	args := []string{d.cfg.Runc, "--root", d.cfg.Root, "checkpoint", "--leave-running",
		"--manage-cgroups-mode", "ignore",
		"--image-path", p.images(), "--work-path", filepath.Join(p.dir, workDir)}
	args = append(args, parent(p, d.rounds(p.dump))...)
	n, err := readNote(p.dir)
	if err == nil && n != nil && n.Leaves {
		args = append(args, "--lazy-pages") // see noClient
	}
	if err == nil {
		err = hosted.Start(context.Background(), hosted.Command{
			Program: filepath.Join(d.cfg.HostRoot, d.cfg.Wrapper), Dir: filepath.Join(p.dir, runDir), Cgroup: d.cfg.Cgroup,
			Args: append(args, p.ID),
		})
	}
	if err != nil {
		return fmt.Errorf("dump container %s: %w", p.ID, err)
	}
	return nil
}

// container is drover-runc's note about the container; nil: there is none. The record's word
// on which container is the source pod's is not taken: drover-runc has it from the runtime.
func (d *Dumps) container(p part) (*layout.Container, error) {
	c, err := d.cfg.Layout.ReadContainer(p.ID)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", p.ID, err)
	}
	if m := p.move; c != nil && c.PodUID != m.Source.UID {
		return nil, fmt.Errorf("%w: container %s is one of pod %q, not of %q, which move %s/%s is about",
			ErrForeign, p.ID, c.PodUID, m.Source.UID, m.Namespace, m.Name)
	}
	return c, nil
}

// prepare checks that the dumps will come to a hold, and makes their directories. What rounds have
// written into them stays.
func (d *Dumps) prepare(dump string, parts []part) ([]cgroup.Group, error) {
	groups, notes := make([]cgroup.Group, len(parts)), make([]note, len(parts))
	for i, p := range parts {
		n, err := d.examine(p)
		if err != nil {
			return nil, err
		}
		if groups[i], err = d.cfg.Groups.Container(n.Init.PID, n.CgroupsPath); err != nil {
			return nil, fmt.Errorf("dump container %s: %w", p.ID, err)
		}
		if n.Leaves, err = d.leaves(p, groups[i]); err != nil {
			return nil, fmt.Errorf("dump container %s: %w", p.ID, err)
		}
		notes[i] = n
	}
	hook, err := layout.EnsureHook(filepath.Join(d.cfg.HostRoot, d.cfg.Wrapper))
	if err != nil {
		return nil, err
	}
	hook = filepath.Join(filepath.Dir(d.cfg.Wrapper), filepath.Base(hook))
	first := d.rounds(dump) == 0
	if first {
		if err := os.RemoveAll(dump); err != nil {
			return nil, err
		}
	}
	<-d.ready
	for i, p := range parts {
		var more []string
		if notes[i].Leaves {
			more = append(more, noClient)
		}
		if err := d.cfg.Layout.WriteCriuConfig(p.ID, hook, layout.Connections(p.move.KeepsConnections), more...); err != nil {
			return nil, err
		}
		for _, dir := range []string{p.images(), filepath.Join(p.dir, workDir), filepath.Join(p.dir, runDir)} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, err
			}
		}
		if err := layout.WriteNote(filepath.Join(p.dir, noteFile), notes[i]); err != nil {
			return nil, err
		}
		if first {
			go d.watch(d.life, notes[i])
		}
	}
	return groups, durable.SyncDir(filepath.Dir(dump))
}

// examine gives what has to be known of a container before it is dumped.
func (d *Dumps) examine(p part) (note, error) {
	s, err := d.state(p.ID)
	if err != nil {
		return note{}, err
	}
	if s == nil {
		return note{}, fmt.Errorf("dump container %s: runc knows no such container", p.ID)
	}
	if !s.labelled("org.criu.config", d.cfg.Layout.CriuConfig(p.ID)) {
		return note{}, fmt.Errorf("dump container %s: it was not created by drover-runc for a pod that opted in; restart the pod with RuntimeClass drover and annotation drover.dev/migrate: \"true\"", p.ID)
	}
	init, err := process.Of(s.InitPID)
	if err != nil {
		return note{}, fmt.Errorf("dump container %s: %w", p.ID, err)
	}
	c, err := d.container(p)
	if err != nil {
		return note{}, err
	}
	if c == nil {
		return note{}, fmt.Errorf("dump container %s: drover-runc left no note about its control group", p.ID)
	}
	return note{PodUID: c.PodUID, ContainerID: p.ID, Init: init, CgroupsPath: c.CgroupsPath}, nil
}

// untilHeld returns nil when the action script holds, or why the dump ended without that.
// It does not end with a context: only the dump knows when its processes may be left.
func (d *Dumps) untilHeld(p part) error {
	type end struct {
		exit hosted.Exit
		ok   bool
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		exit, ok, err := hosted.Wait(d.life, filepath.Join(p.dir, runDir))
		ended <- end{exit, ok, err}
	}()
	for {
		d.mu.Lock()
		held, changed := d.holds[p.images()] != nil, d.changed
		d.mu.Unlock()
		if held {
			return nil
		}
		select {
		case <-changed:
		case e := <-ended:
			if e.err != nil {
				return fmt.Errorf("dump container %s: %w", p.ID, e.err)
			}
			return fmt.Errorf("dump container %s: %s", p.ID, why(filepath.Join(p.dir, runDir), filepath.Join(p.dir, workDir, "dump.log"), e.exit, e.ok))
		}
	}
}
