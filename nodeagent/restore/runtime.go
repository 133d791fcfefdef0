package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

var _ migrate.Runtime = (*Copies)(nil)

// errNoWrapper: nobody is there to be answered.
var errNoWrapper = errors.New("drover-runc does not wait any more")

// Inspect tells what there is of the pod's copies.
func (c *Copies) Inspect(_ context.Context, m migrate.Move) (migrate.Copy, error) {
	notes, err := c.of(m.Target.UID)
	if err != nil {
		return migrate.Copy{}, err
	}
	var found migrate.Copy
	for _, n := range notes {
		alive, frozen, err := c.look(n)
		if err != nil {
			return migrate.Copy{}, err
		}
		dying := alive && n.Init.PID > 0 && n.Init.Doomed()
		if n.Passed {
			found.Passed = append(found.Passed, handoff.Copy{ID: n.ID, Name: n.Name, Alive: alive, Frozen: frozen, Dying: dying})
			continue
		}
		h, _ := c.both(n.ID)
		found.ID, found.Alive, found.Frozen, found.Dying, found.Held = n.ID, alive, frozen, dying, h != nil
		if n.Stage == held {
			found.Orphaned = c.orphaned(n)
		}
		found.Restoring = n.Stage == begun && !found.Held && (alive || n.Wrapper.Alive())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found.Creates = c.creates(m.Target.UID)
	return found, nil
}

// look tells whether the copy has processes, and whether its group is frozen.
func (c *Copies) look(n note) (alive, frozen bool, err error) {
	group, err := c.group(n)
	if err != nil || !group.Exists() {
		return false, false, err
	}
	pids, err := group.Procs()
	if err != nil {
		return false, false, err
	}
	if frozen, err = group.Frozen(); err != nil && group.Exists() {
		return false, false, err
	}
	return len(pids) > 0, frozen, nil
}

// creates lists the pod's wrappers, oldest first. The lock is held.
func (c *Copies) creates(podUID string) []migrate.Create {
	var found []*waiter
	for _, w := range c.waiters {
		if w.create.Request.GetPodUid() == podUID {
			found = append(found, w)
		}
	}
	slices.SortFunc(found, func(a, b *waiter) int { return cmp.Compare(a.order, b.order) })
	var all []migrate.Create
	for _, w := range found {
		all = append(all, w.describe())
	}
	return all
}

// group is the control group of the copy's container: that around its first process, or where
// the bundle puts it.
func (c *Copies) group(n note) (cgroup.Group, error) {
	if n.Init.Alive() {
		if g, err := c.cfg.Groups.Container(n.Init.PID, n.CgroupsPath); err == nil {
			return g, nil
		}
	}
	return c.cfg.Groups.At(n.CgroupsPath)
}

// Restore answers the create of container id.
func (c *Copies) Restore(ctx context.Context, m migrate.Move, id, dir string) error {
	c.mu.Lock()
	w := c.waiters[id]
	delete(c.words, id) // of an earlier attempt
	if w != nil {
		w.asked = true
	}
	c.mu.Unlock()
	if w == nil || w.create.Request.GetPodUid() != m.Target.UID {
		return fmt.Errorf("restore container %s: %w", id, errNoWrapper)
	}
	if w.create.Request.GetRestoring() {
		return fmt.Errorf("restore container %s: its restore has been begun already", id)
	}
	name := w.create.Request.GetContainer()
	if err := layout.ValidContainerID(name); err != nil {
		return fmt.Errorf("restore container %s: its name: %w", id, err)
	}
	go c.rouse()
	if err := c.clear(ctx, m, id, name); err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	ctx, done := c.unpacks(ctx, m.Target.UID)
	defer done()
	if err := c.unpack(ctx, m, w, dir); err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	dir = filepath.Join(dir, name)
	n := note{PodUID: m.Target.UID, Namespace: m.Target.Namespace, Pod: m.Target.Name, ID: id, Name: name, Images: dir, CgroupsPath: w.create.Request.GetCgroupsPath(),
		Wrapper: w.create.Wrapper, Stage: begun}
	if _, err := c.cfg.Groups.At(n.CgroupsPath); err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	eager, err := c.judge(m, &n, w.create.Request.GetBundle())
	if err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	if err := c.cfg.Layout.NoteConnections(id, layout.Connections(m.KeepsConnections)); err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	// Written first: once the wrapper knows, so must an agent that comes back.
	if err := c.write(n); err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	if err := c.beginLoading(ctx, n, eager); err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	go c.rouse() // again, if that took long
	return c.answer(m, id, runtimeapi.Answer{Restore: dir})
}

// rouse is for runc, which is about to move CRIU into the copy's group while a pod stands still.
func (c *Copies) rouse() {
	if err := c.cfg.Groups.Rouse(os.Getpid()); err != nil {
		c.cfg.Log.Debug("runc may wait for the kernel when it moves CRIU into the copy's control group", "err", err)
	}
}

// judge looks into the images of a container that is to be restored in a bundle. An error: they are not.
// eager is as eager's.
func (c *Copies) judge(m migrate.Move, n *note, bundle string) (eager string, err error) {
	if err := c.inspect(n.ID, n.Images, bundle); err != nil {
		return "", err
	}
	return c.eager(m, n)
}

// inspect looks into the images in dir.
func (c *Copies) inspect(id, dir, bundle string) error {
	if c.cfg.Inspect == nil {
		return nil
	}
	created, err := c.cfg.Layout.ReadContainer(id)
	if err != nil {
		return err
	}
	var begun []string
	if created != nil {
		begun = created.Begun
	}
	return c.cfg.Inspect(dir, bundle, begun)
}

// clear ends what an earlier create of the same container has left of a copy.
func (c *Copies) clear(ctx context.Context, m migrate.Move, id, name string) error {
	notes, err := c.of(m.Target.UID)
	if err != nil {
		return err
	}
	for _, n := range notes {
		if n.Name == name && n.ID != id {
			if err := c.kill(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// Refuse answers the create of container id.
func (c *Copies) Refuse(_ context.Context, m migrate.Move, id, reason string) error {
	if err := c.answer(m, id, runtimeapi.Answer{Refuse: reason}); err != nil && !errors.Is(err, errNoWrapper) {
		return err
	}
	return nil
}

// Fresh answers the create of container id.
func (c *Copies) Fresh(ctx context.Context, m migrate.Move, id string) error {
	if _, w := c.both(id); w != nil {
		if err := c.clear(ctx, m, id, w.create.Request.GetContainer()); err != nil {
			return fmt.Errorf("make container %s anew: %w", id, err)
		}
	}
	return c.answer(m, id, runtimeapi.Answer{Fresh: true})
}

func (c *Copies) answer(m migrate.Move, id string, a runtimeapi.Answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiters[id]
	if w == nil || w.create.Request.GetPodUid() != m.Target.UID {
		return fmt.Errorf("answer the create of container %s: %w", id, errNoWrapper)
	}
	select {
	case w.answers <- a:
		return nil
	default:
		return fmt.Errorf("the create of container %s has been answered already", id)
	}
}

// own is the note about this move's restore of a container.
func (c *Copies) own(m migrate.Move, id string) (*note, error) {
	n, err := c.read(id)
	if err == nil && (n == nil || n.PodUID != m.Target.UID) {
		err = errors.New("it was not restored here")
	}
	return n, err
}

// still makes sure that a copy is there and frozen. The kernel kills also what is frozen, when
// memory runs out; CRIU keeps the group alive.
func (c *Copies) still(n note) error {
	group, err := c.group(n)
	if err != nil {
		return err
	}
	if frozen, err := group.Frozen(); err != nil || !frozen {
		return fmt.Errorf("the control group of container %s is not frozen (%v)", n.ID, err)
	}
	if n.Init.Doomed() {
		return fmt.Errorf("the first process of container %s, %d, was killed while it was held", n.ID, n.Init.PID)
	}
	if n.Stage == held && c.orphaned(n) {
		return fmt.Errorf("CRIU was killed while it held container %s", n.ID)
	}
	if _, why := c.loading(n); why != "" {
		return fmt.Errorf("the memory of container %s cannot be loaded: %s", n.ID, why)
	}
	return nil
}

// Resume lets the copies run, and returns when runc has said that the last does.
func (c *Copies) Resume(ctx context.Context, m migrate.Move, id string, mark func() error) error {
	n, err := c.own(m, id)
	if err != nil {
		return fmt.Errorf("resume container %s: %w", id, err)
	}
	if n.Stage == running {
		// Of an earlier life of the agent: the mark was left, and whoever called has to know it.
		if err := mark(); err != nil {
			return err
		}
		return c.ResumeRest(ctx, m)
	}
	if _, _, err := c.awaitBoth(ctx, *n); err != nil {
		return fmt.Errorf("resume container %s: %w", id, err)
	}
	notes, err := c.of(m.Target.UID)
	if err != nil {
		return err
	}
	if len(notes) != max(1, len(m.Containers)) {
		return fmt.Errorf("resume pod %s: it has %d copies, want %d", m.Target.UID, len(notes), max(1, len(m.Containers)))
	}
	for _, n := range notes {
		if err := c.still(n); err != nil {
			return fmt.Errorf("resume pod %s: %w", m.Target.UID, err)
		}
	}
	if err := mark(); err != nil {
		return err
	}
	return c.ResumeRest(ctx, m)
}

// ResumeRest lets every copy that there is run. It notes for each that it does before it
// thaws one: from there on there is no way back.
func (c *Copies) ResumeRest(ctx context.Context, m migrate.Move) error {
	notes, err := c.of(m.Target.UID)
	if err != nil {
		return err
	}
	for i, n := range notes {
		if n.Stage == running {
			continue
		}
		notes[i].Stage = running
		if err := c.write(notes[i]); err != nil {
			return err
		}
		if !n.Passed {
			<-c.ready
			go c.watch(c.life, notes[i])
		}
	}
	var errs []error
	for _, n := range notes {
		errs = append(errs, c.let(ctx, n))
	}
	return errors.Join(errs...)
}

// let thaws a copy, and waits until its create has returned.
func (c *Copies) let(ctx context.Context, n note) error {
	_, w := c.both(n.ID)
	group, err := c.group(n)
	if err != nil {
		return err
	}
	if err := group.Thaw(); err != nil {
		return err
	}
	// Looked up after the thaw: a script that calls just now is seen here, or sees the thaw.
	if h, _ := c.both(n.ID); h != nil {
		h.answer(true)
	}
	if n.Passed {
		return nil
	}
	return c.resumed(ctx, n, w)
}

func (c *Copies) both(id string) (*hold, *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holds[id], c.waiters[id]
}

// awaitBoth returns when the script and the wrapper are connected: after the agent's restart
// both call again, one before the other. If one has ended, there is nothing to wait for.
func (c *Copies) awaitBoth(ctx context.Context, n note) (*hold, *waiter, error) {
	for {
		if h, w := c.both(n.ID); h != nil && w != nil {
			return h, w, nil
		}
		if !n.Wrapper.Alive() || !n.Script.Alive() {
			return nil, nil, errors.New("CRIU's script or drover-runc is gone")
		}
		if err := c.waitForWrapper(ctx, n, nil); err != nil {
			return nil, nil, err
		}
	}
}

// answer lets the script go; only the first answer counts.
func (h *hold) answer(proceed bool) {
	select {
	case h.proceed <- proceed:
	default:
	}
}

// resumed waits for the wrapper's word. A wrapper that was never seen (the agent began after
// it) may have said its word to nobody: then the copy's life must do.
func (c *Copies) resumed(ctx context.Context, n note, w *waiter) error {
	if w == nil {
		if !n.Init.Alive() {
			return fmt.Errorf("resume container %s: its first process is gone", n.ID)
		}
		return nil
	}
	for {
		// Asked first: a wrapper that has ended has said what it had to say.
		alive := w.create.Wrapper.Alive()
		said, failure, err := c.word(ctx, n.ID)
		switch {
		case err != nil:
			return err
		case failure != "":
			return fmt.Errorf("resume container %s: %s", n.ID, failure)
		case said:
			return nil
		case !alive:
			return c.disown(ctx, n)
		}
		// Its stream broke, and it will call again.
		if err := c.waitForWrapper(ctx, n, nil); err != nil {
			return err
		}
	}
}

// word returns once the wrapper has said how its restore ended, or is not connected.
func (c *Copies) word(ctx context.Context, id string) (said bool, failure string, err error) {
	err = c.until(ctx, func() bool {
		failure, said = c.words[id]
		return said || c.waiters[id] == nil
	})
	return said, failure, errors.Join(err, ctx.Err())
}

// disown ends a copy that runs and whose create was given up in the same moment: kubelet
// knows nothing of it and will start the container anew, and two must not run.
func (c *Copies) disown(ctx context.Context, n note) error {
	c.cfg.Log.Warn("the create was given up while its copy was let go: the copy is ended, as after any crash", "pod", n.PodUID, "container", n.ID)
	group, err := c.group(n)
	if err != nil {
		return err
	}
	return group.Kill(ctx)
}
