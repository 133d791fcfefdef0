package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Pass lets a create return while its copy stays frozen.
func (c *Copies) Pass(ctx context.Context, m migrate.Move, id string) error {
	n, err := c.own(m, id)
	if err != nil {
		return fmt.Errorf("pass container %s: %w", id, err)
	}
	h, w, err := c.awaitBoth(ctx, *n)
	if err != nil {
		return fmt.Errorf("pass container %s: %w", id, err)
	}
	if err := c.still(*n); err != nil {
		return fmt.Errorf("pass container %s: %w", id, err)
	}
	// Written first: a script that calls again after the agent's restart is answered by it.
	n.Passed = true
	if err := c.write(*n); err != nil {
		return fmt.Errorf("pass container %s: %w", id, err)
	}
	<-c.ready
	go c.watch(c.life, *n)
	if err := c.takeOut(*n, h.group); err != nil {
		return fmt.Errorf("pass container %s: %w", id, err)
	}
	h.answer(true)
	for {
		alive := w.create.Wrapper.Alive()
		said, failure, err := c.word(ctx, id)
		switch {
		case err != nil:
			return err
		case failure != "":
			return fmt.Errorf("pass container %s: %s", id, failure)
		case said:
			return c.still(*n)
		case !alive:
			return fmt.Errorf("pass container %s: %w", id, errNoWrapper)
		}
		if err := c.waitForWrapper(ctx, *n, nil); err != nil {
			return err
		}
	}
}

// takeOut moves CRIU out of the copy's group, where runc has put it and where it is frozen with
// the copy: it has to end.
func (c *Copies) takeOut(n note, group cgroup.Group) error {
	pids, err := strangers(n, group)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := c.cfg.Groups.Join(c.cfg.Cgroup, pid); err != nil {
			return fmt.Errorf("move process %d out of the copy's control group: %w", pid, err)
		}
	}
	return nil
}

// orphaned tells that CRIU was killed while it held the copy. On cgroup v1 what is frozen does
// not die before it is thawed, so nobody hears of that. What cannot be looked at may be well.
func (c *Copies) orphaned(n note) bool {
	group, err := c.group(n)
	if err != nil {
		return false
	}
	pids, err := strangers(n, group)
	return err == nil && slices.ContainsFunc(pids, func(pid int) bool {
		p, err := process.Of(pid)
		return err == nil && p.Dying()
	})
}

// strangers are the processes in the copy's group that are not the copy's own, which are in its
// pid namespace: CRIU, and what runs it.
func strangers(n note, group cgroup.Group) ([]int, error) {
	pids, err := group.Procs()
	if err != nil {
		return nil, err
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", n.Init.PID))
	if err != nil {
		return nil, err
	}
	var found []int
	for _, pid := range pids {
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if errors.Is(err, fs.ErrNotExist) || err == nil && its == space {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for the namespace of process %d: %w", pid, err)
		}
		found = append(found, pid)
	}
	return found, nil
}
