package restore

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/drover-project/drover/internal/hosted"
)

// makeReady keeps a process ready to load a copy's memory as long as a create waits: when its images
// are complete a pod stands frozen.
func (c *Copies) makeReady() {
	if c.cfg.Memory == nil || !c.wantsSpare() {
		return
	}
	s, err := hosted.Prepare(c.program(), c.cfg.Cgroup)
	if err != nil {
		c.cfg.Log.Debug("nothing is kept ready to load a copy's memory", "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spare != nil || len(c.waiters) == 0 {
		s.Close()
		return
	}
	c.spare = s
}

func (c *Copies) wantsSpare() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spare == nil && len(c.waiters) > 0
}

// dropSpare ends the process that is ready when no create waits any more. The lock is held.
func (c *Copies) dropSpare() {
	if c.spare != nil && len(c.waiters) == 0 {
		c.spare.Close()
		c.spare = nil
	}
}

// host runs a command in the process that is ready, or in one that it makes.
func (c *Copies) host(ctx context.Context, cmd hosted.Command) error {
	cmd.Program, cmd.Cgroup = c.program(), c.cfg.Cgroup
	c.mu.Lock()
	s := c.spare
	c.spare = nil
	c.mu.Unlock()
	if s != nil {
		err := s.Start(ctx, cmd)
		if !errors.Is(err, hosted.ErrGone) || ctx.Err() != nil {
			return err
		}
		c.cfg.Log.Warn("making another process to load a copy's memory", "err", err)
	}
	return hosted.Start(ctx, cmd)
}

func (c *Copies) program() string { return filepath.Join(c.cfg.HostRoot, c.cfg.Wrapper) }
