// Package restore looks after the copies that come to this node: the creates that wait for
// them in drover-runc, CRIU's action script that holds them at pre-resume, and their
// control groups. It is the Runtime of package migrate.
//
// What holds a copy is the freezer of its control group, not a process: if CRIU, its script,
// drover-runc or the agent dies, nothing of the copy runs. A note on tmpfs says which
// container is restored for which pod, so that an agent that comes back finds its copies.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

// Notices is who is told what happens to copies; migrate.Driver fits.
type Notices interface {
	CreateWaits(c migrate.Create)
	CreateEnded(podUID, id string)
	RestoreHeld(podUID, id string)
	RestoreEnded(podUID, id string, err error)
	ContainerEnded(id string)
}

// Groups are the node's control groups; *cgroup.Hierarchies fits.
type Groups interface {
	Container(pid int, cgroupsPath string) (cgroup.Group, error)
	At(cgroupsPath string) (cgroup.Group, error)
	Join(path string, pid int) error
	Rouse(pid int) error
}

// Config is what Copies needs.
type Config struct {
	Layout layout.Layout
	Groups Groups
	// Cgroup is the path of the control group for Drover's own processes.
	Cgroup string
	// Unpack makes the files that came with a container; others are the directories of the
	// images of the pod's other containers. May be nil.
	Unpack func(ctx context.Context, c files.Container, others []string) error
	// Inspect looks into the images before they are restored in the container of an OCI
	// bundle, both directories of the node; an error: they are not. begun is layout.Container's. May be
	// nil.
	Inspect func(images, bundle string, begun []string) error
	// Wrapper is drover-runc's path on the node; HostRoot is how the agent reaches the node's
	// files.
	Wrapper, HostRoot string
	// Memory looks at the memory in a directory of images: whether they lack some, which only the source
	// has; and eager says in words why a copy must have all of it before it runs; empty: what is left can be
	// loaded while it does. May be nil: all must, and is there.
	Memory func(images string) (lacking bool, eager string, err error)
	// Pages fills b with memory that the images of a container lack, by its name; pages.Client.Read fits. An
	// error that wraps lazypages.ErrLost: it is nowhere any more. After any other it is asked again. May be
	// nil: images that lack memory are refused.
	Pages func(ctx context.Context, m migrate.Move, container string, r lazypages.Range, b []byte) error
	// Lost is told that a copy was killed because its memory could not be loaded. May be nil.
	Lost func(pod migrate.Pod, why string)
	Log  *slog.Logger
}

// Copies is the state of this node's copies. Safe for concurrent use.
type Copies struct {
	cfg Config
	// notices and life are Run's; they are set when ready is closed.
	notices Notices
	life    context.Context
	ready   chan struct{}
	mu      sync.Mutex
	waiters map[string]*waiter // by container ID
	holds   map[string]*hold   // by container ID
	// words are what wrappers said of how their restores ended, by container ID; empty: well.
	words map[string]string
	// follows are closed when follow has ended, by container ID.
	follows map[string]chan struct{}
	// forfeits are of copies whose memory may come to be lost, by container ID.
	forfeits map[string]forfeit
	// over are the copies that ended before all of their memory was fetched, by container ID.
	over map[string]bool
	// spare is ready to load a copy's memory; nil: none is.
	spare *hosted.Spare
	// unpacking are the restores that make files, by the pod's UID: each pod has one at a time.
	unpacking map[string]*unpacking
	// changed is closed and made anew when a waiter or hold comes or goes.
	changed chan struct{}
	arrived int
}

// waiter is a connected drover-runc.
type waiter struct {
	create  runtimeapi.Create
	order   int
	answers chan runtimeapi.Answer
	// asked: it was to be restored, which may have come to nothing before it was answered.
	asked bool
}

// hold is a connected action script.
type hold struct {
	group   cgroup.Group
	proceed chan bool
}

// stage of a restore, in the order in which a good one passes them.
type stage string

const (
	begun   stage = "begun"        // the wrapper was told to restore
	held    stage = "held"         // the script has called, the group is frozen
	running stage = layout.CopyLet // the copy was let go
)

// note is what is known of a container's restore when everybody has died.
type note struct {
	PodUID    string `json:"podUID"`
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	ID        string `json:"id"`
	// Name is the container's in the pod's spec.
	Name        string          `json:"name"`
	Images      string          `json:"images"`
	CgroupsPath string          `json:"cgroupsPath"`
	Wrapper     process.Process `json:"wrapper"`
	// Init is the copy's first process, Script CRIU's action script: known from held on.
	Init   process.Process `json:"init"`
	Script process.Process `json:"script"`
	Stage  stage           `json:"stage"`
	// Passed: its create was let return while the copy is held; the next container's follows.
	Passed bool `json:"passed,omitempty"`
	// Lazy: a daemon of CRIU's loads what is left of its memory.
	Lazy bool `json:"lazy,omitempty"`
	// From is the move whose source has the memory that the images lack; nil: they lack none.
	From *migrate.Move `json:"from,omitempty"`
}

// New makes the state of a node without copies. It does no I/O.
func New(cfg Config) *Copies {
	return &Copies{cfg: cfg, waiters: map[string]*waiter{}, words: map[string]string{}, follows: map[string]chan struct{}{}, forfeits: map[string]forfeit{}, over: map[string]bool{}, holds: map[string]*hold{}, unpacking: map[string]*unpacking{},
		changed: make(chan struct{}), ready: make(chan struct{})}
}

// Run tells notices what happens, and watches the copies of an earlier life of the agent.
// Until it is called, once, whoever has something to tell waits. It returns when ctx ends.
func (c *Copies) Run(ctx context.Context, notices Notices) error {
	c.notices, c.life = notices, ctx
	close(c.ready)
	ids, err := c.cfg.Layout.RestoreNotes()
	if err != nil {
		return fmt.Errorf("look for copies of an earlier life: %w", err)
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		n, err := c.read(id)
		if err != nil {
			c.cfg.Log.Warn("a note about a restore cannot be read", "container", id, "err", err)
		}
		if n == nil {
			continue
		}
		if n.Lazy {
			wg.Go(c.follow(ctx, *n))
		}
		if n.Passed || n.Stage == running {
			wg.Go(func() { c.watch(ctx, *n) })
		}
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

// watch tells when a copy that was passed, or runs, has ended. The note of one that never ran
// stays: it says that the pod is not whole.
func (c *Copies) watch(ctx context.Context, n note) {
	if err := n.Init.Wait(ctx); err != nil {
		return
	}
	if err := c.endFetching(ctx, n); err != nil {
		c.cfg.Log.Warn("cannot end what fetches the memory of a copy that has ended", "pod", n.PodUID, "container", n.ID, "err", err)
	}
	// What loads its memory may have ended it, and then its note is still needed.
	c.followed(ctx, n)
	if now, err := c.read(n.ID); err != nil || now != nil && now.Stage == running {
		if err := c.forget(n); err != nil {
			c.cfg.Log.Warn("cannot remove the note about a restore", "pod", n.PodUID, "err", err)
		}
	}
	c.told(func(to Notices) { to.ContainerEnded(n.ID) })
}

// told passes on what happened, unless the agent is stopping: then wrappers and scripts
// seem to go although it is the agent that does.
func (c *Copies) told(f func(Notices)) {
	<-c.ready
	if c.life.Err() == nil {
		f(c.notices)
	}
}

// signal wakes everybody who waits for a change. The lock is held.
func (c *Copies) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// until returns when done, called with the lock held, says true, or with ctx's error.
func (c *Copies) until(ctx context.Context, done func() bool) error {
	for {
		c.mu.Lock()
		if done() {
			c.mu.Unlock()
			return nil
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// read gives the note about a container; nil: there is none.
func (c *Copies) read(id string) (*note, error) {
	if err := layout.ValidContainerID(id); err != nil {
		return nil, err
	}
	var n note
	ok, err := layout.ReadNote(c.cfg.Layout.RestoreNote(id), &n)
	if !ok {
		return nil, err
	}
	return &n, nil
}

// of gives the notes about a pod's containers: those that were passed first.
func (c *Copies) of(podUID string) ([]note, error) {
	if err := fence.ValidUID(podUID); err != nil {
		return nil, err
	}
	ids, err := c.cfg.Layout.RestoreNotes()
	if err != nil {
		return nil, err
	}
	var passed, others []note
	for _, id := range ids {
		n, err := c.read(id)
		switch {
		case err != nil:
			return nil, err
		case n == nil || n.PodUID != podUID:
		case n.Passed:
			passed = append(passed, *n)
		default:
			others = append(others, *n)
		}
	}
	return append(passed, others...), nil
}

func (c *Copies) write(n note) error {
	return layout.WriteNote(c.cfg.Layout.RestoreNote(n.ID), n)
}

// forget removes what is kept about a restore.
func (c *Copies) forget(n note) error {
	c.mu.Lock()
	delete(c.words, n.ID)
	delete(c.forfeits, n.ID)
	delete(c.over, n.ID)
	c.mu.Unlock()
	err := os.Remove(c.cfg.Layout.RestoreNote(n.ID))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(c.cfg.Layout.Staged(n.ID)), os.RemoveAll(c.cfg.Layout.Work(n.ID)))
}
