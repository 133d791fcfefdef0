package restore

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

// unpacking is a restore that makes files, before it answers its wrapper.
type unpacking struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// unpacks gives the context for what a restore does before its note is written: Kill ends it.
func (c *Copies) unpacks(ctx context.Context, podUID string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	u := &unpacking{cancel: cancel, done: make(chan struct{})}
	c.mu.Lock()
	c.unpacking[podUID] = u
	c.mu.Unlock()
	return ctx, func() {
		c.mu.Lock()
		if c.unpacking[podUID] == u {
			delete(c.unpacking, podUID)
		}
		c.mu.Unlock()
		cancel()
		close(u.done)
	}
}

// breakOff ends what makes files for a pod, and returns when it has ended.
func (c *Copies) breakOff(ctx context.Context, podUID string) error {
	c.mu.Lock()
	u := c.unpacking[podUID]
	c.mu.Unlock()
	if u == nil {
		return nil
	}
	u.cancel()
	select {
	case <-u.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dismiss refuses the creates of a pod that were to be restored and were not answered.
func (c *Copies) dismiss(podUID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.waiters {
		if w.create.Request.GetPodUid() != podUID || !w.asked {
			continue
		}
		select {
		case w.answers <- runtimeapi.Answer{Refuse: "the move was given up before anything was restored"}:
		default: // answered already
		}
	}
}

// unpack makes the files that came with the container of a create, from below dir.
func (c *Copies) unpack(ctx context.Context, m migrate.Move, w *waiter, dir string) error {
	if c.cfg.Unpack == nil {
		return nil
	}
	r := w.create.Request
	var others []string
	for _, o := range m.Containers {
		if err := layout.ValidContainerID(o.Name); err != nil {
			return fmt.Errorf("name of a container: %w", err)
		}
		if o.Name != r.GetContainer() {
			others = append(others, filepath.Join(dir, o.Name))
		}
	}
	own := files.Container{PodUID: m.Target.UID, Bundle: r.GetBundle(), Images: filepath.Join(dir, r.GetContainer())}
	return c.cfg.Unpack(ctx, own, others)
}
