package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

var (
	_ runtimeapi.Creates = (*Copies)(nil)
	_ runtimeapi.Holds   = (*Copies)(nil)
)

// Await serves one stream of a wrapper.
func (c *Copies) Await(ctx context.Context, create runtimeapi.Create, send func(runtimeapi.Answer) error) error {
	req := create.Request
	w := &waiter{create: create, answers: make(chan runtimeapi.Answer, 1)}
	c.mu.Lock()
	c.arrived++
	w.order = c.arrived
	c.waiters[req.GetContainerId()] = w
	c.signal()
	c.mu.Unlock()
	if !req.GetRestoring() {
		go c.makeReady()
	}
	c.told(func(to Notices) { to.CreateWaits(w.describe()) })
	defer c.leave(w)
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-w.answers:
			if err := send(a); err != nil {
				return err
			}
		}
	}
}

// describe gives the create as the driver knows it.
func (w *waiter) describe() migrate.Create {
	r := w.create.Request
	return migrate.Create{Namespace: r.GetNamespace(), Pod: r.GetPod(), PodUID: r.GetPodUid(),
		Migration: r.GetMigration(), ID: r.GetContainerId(), Name: r.GetContainer(), Deadline: w.create.Deadline}
}

// leave is the end of a stream: the wrapper has gone, in one way or another.
func (c *Copies) leave(w *waiter) {
	uid, id := w.create.Request.GetPodUid(), w.create.Request.GetContainerId()
	c.mu.Lock()
	if c.waiters[id] != w { // it has come again on another stream
		c.mu.Unlock()
		return
	}
	delete(c.waiters, id)
	c.dropSpare()
	_, told := c.words[id]
	c.signal()
	c.mu.Unlock()
	n, err := c.read(id)
	if err == nil && n != nil && n.PodUID == uid && n.Stage != running && !n.Passed && !told {
		c.told(func(to Notices) { to.RestoreEnded(uid, id, errors.New("drover-runc was killed")) })
	}
	c.told(func(to Notices) { to.CreateEnded(uid, id) })
}

// Restored is told by the wrapper, once, when runc has ended.
func (c *Copies) Restored(podUID, id string, _ int, message string) {
	c.mu.Lock()
	w := c.waiters[id]
	if w == nil || w.create.Request.GetPodUid() == podUID {
		c.words[id] = message
	}
	c.signal()
	c.mu.Unlock()
	if message != "" {
		c.told(func(to Notices) { to.RestoreEnded(podUID, id, errors.New(message)) })
	}
}

// Hold serves CRIU's action script at pre-resume: it freezes the copy's group and keeps the
// script until Resume or Kill.
func (c *Copies) Hold(ctx context.Context, h runtimeapi.Hold) (bool, error) {
	init, err := process.Of(h.InitPID)
	if errors.Is(err, fs.ErrNotExist) {
		// The copy has ended while nobody was there to be asked: nothing is left to hold, and
		// its note may be gone, too.
		return false, nil
	}
	if err != nil {
		return false, err
	}
	n, err := c.byImages(h.ImageDir)
	if err != nil {
		return false, err
	}
	n.Init = init
	group, err := c.cfg.Groups.Container(h.InitPID, n.CgroupsPath)
	if err != nil {
		return false, fmt.Errorf("find the copy's control group: %w", err)
	}
	mine := &hold{group: group, proceed: make(chan bool, 1)}
	if n.Stage != running {
		if err := group.Freeze(ctx); err != nil {
			return false, err
		}
		n.Stage, n.Script = held, h.Script
		if err := c.write(*n); err != nil {
			return false, err
		}
	}
	c.mu.Lock()
	c.holds[n.ID] = mine
	c.signal()
	c.mu.Unlock()
	if n.Passed && n.Stage != running {
		// The agent died before it could answer: the copy stays frozen.
		if err := c.takeOut(*n, group); err != nil {
			c.cfg.Log.Warn("CRIU stays in the copy's control group", "pod", n.PodUID, "err", err)
		}
		c.drop(n.ID, mine)
		return true, nil
	}
	if n.Stage == running {
		// The agent died between the thaw and its answer to the script: nobody else will give
		// it. A group that is still frozen is Resume's, which may yet find that it must not
		// run; it answers whom it finds after the thaw, so this looks after it can be found.
		if frozen, err := group.Frozen(); err != nil || !frozen {
			c.drop(n.ID, mine)
			return err == nil, err
		}
	}
	c.told(func(to Notices) { to.RestoreHeld(n.PodUID, n.ID) })
	// The script is CRIU's child and so in the copy's group. Outside of it it can call again
	// when the agent comes back; inside it is only frozen, which is as safe. Nobody waits for
	// this: it takes about 10 ms.
	if err := c.cfg.Groups.Join(c.cfg.Cgroup, h.Script.PID); err != nil {
		c.cfg.Log.Warn("CRIU's script stays in the copy's control group", "pod", n.PodUID, "err", err)
	}
	select {
	case proceed := <-mine.proceed:
		c.drop(n.ID, mine)
		return proceed, nil
	case <-ctx.Done():
		c.drop(n.ID, mine)
		if now, err := c.read(n.ID); err == nil && now != nil && now.Stage == held && !now.Passed {
			end := errors.New("CRIU or its action script was killed while the copy was held")
			if _, why := c.loading(*now); why != "" {
				end = errLost(why)
			}
			c.told(func(to Notices) { to.RestoreEnded(n.PodUID, n.ID, end) })
		}
		return false, ctx.Err()
	}
}

func (c *Copies) drop(id string, h *hold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds[id] == h {
		delete(c.holds, id)
	}
	c.signal()
}

// byImages finds the restore that works from a directory, or from one with the same images.
func (c *Copies) byImages(dir string) (*note, error) {
	ids, err := c.cfg.Layout.RestoreNotes()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if n, err := c.read(id); err == nil && n != nil && (n.Images == dir || c.cfg.Layout.Staged(id) == dir) {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no restore from %s was begun here", dir)
}
