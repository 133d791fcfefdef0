package restore

import (
	"context"
	"time"

	"github.com/drover-project/drover/nodeagent/migrate"
)

// impatience is when a wrapper whose restore was broken off is no longer waited for.
const impatience = 10 * time.Second

// moment is the time between two looks at what nothing tells of.
const moment = 20 * time.Millisecond

// Kill ends the copies and everything that could still bring one forth.
func (c *Copies) Kill(ctx context.Context, m migrate.Move) error {
	if err := c.breakOff(ctx, m.Target.UID); err != nil {
		return err
	}
	notes, err := c.of(m.Target.UID)
	if err != nil {
		return err
	}
	for _, n := range notes {
		if err := c.kill(ctx, n); err != nil {
			return err
		}
	}
	c.dismiss(m.Target.UID)
	return nil
}

// Pods are the UIDs of the pods of which a copy is here that was not let run.
func (c *Copies) Pods() ([]string, error) {
	var uids []string
	ids, err := c.cfg.Layout.RestoreNotes()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		n, err := c.read(id)
		if err != nil {
			return nil, err
		}
		if n != nil && n.Stage != running {
			uids = append(uids, n.PodUID)
		}
	}
	return uids, nil
}

// EndPod kills the copies that were not let run of a pod of which neither the object nor the
// record of its move is there any more.
func (c *Copies) EndPod(ctx context.Context, uid string) error {
	notes, err := c.of(uid)
	if err != nil {
		return err
	}
	for _, n := range notes {
		if n.Stage != running {
			if err := c.kill(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Copies) kill(ctx context.Context, n note) error {
	group, err := c.group(n)
	if err != nil {
		return err
	}
	var patience <-chan time.Time
	if n.Wrapper.Alive() {
		t := time.NewTimer(impatience)
		defer t.Stop()
		patience = t.C
	}
	for {
		// Asked before the group is emptied: runc, which puts CRIU there, ends before the
		// wrapper does, so a group emptied afterwards stays empty.
		alive := n.Wrapper.Alive()
		if err := group.Kill(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		if h := c.holds[n.ID]; h != nil {
			h.answer(false)
		}
		c.mu.Unlock()
		if !alive {
			if err := c.endLoading(ctx, n); err != nil {
				return err
			}
			return c.forget(n)
		}
		if err := c.waitForWrapper(ctx, n, patience); err != nil {
			return err
		}
	}
}

// waitForWrapper waits a moment for the wrapper to end, and kills it when patience is over.
func (c *Copies) waitForWrapper(ctx context.Context, n note, patience <-chan time.Time) error {
	select {
	case <-patience:
		return n.Wrapper.Kill()
	default:
	}
	short, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	if err := n.Wrapper.Wait(short); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}
