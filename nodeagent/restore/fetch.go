package restore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/inspect"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// eager says why all of a copy's memory must be there before it runs; empty: it need not. It notes by
// which move comes what the images lack, and an error is that they must not.
func (c *Copies) eager(m migrate.Move, n *note) (why string, err error) {
	if c.cfg.Memory == nil {
		return "memory is never loaded later here", nil
	}
	lacking, why, err := c.cfg.Memory(n.Images)
	switch {
	case err != nil && !lacking && !m.PostCopy && !lacks(n.Images):
		return err.Error(), nil // CRIU may read what this cannot
	case err != nil || !lacking:
		return why, err
	case !m.PostCopy:
		return "", errors.New("the images lack memory, and the record of the move does not allow that")
	case c.cfg.Pages == nil:
		return "", errors.New("the images lack memory, and this node has no way to fetch it")
	case why != "":
		return "", fmt.Errorf("the images lack memory, and it cannot be loaded later: %s", why)
	}
	n.From = &m
	return "", nil
}

// lacks tells that images are said to lack memory, or that it is not known whether they are.
func lacks(images string) bool {
	lack, err := layout.Lack(images)
	return lack || err != nil
}

// forfeit ends the ways by which a copy's memory comes: it is lost.
type forfeit struct {
	lost    context.Context
	declare context.CancelFunc
}

// forfeit is that of a container, made by who comes first.
func (c *Copies) forfeit(id string) forfeit {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.forfeits[id]
	if !ok {
		f.lost, f.declare = context.WithCancel(context.Background())
		c.forfeits[id] = f
	}
	return f
}

// errForfeited is what whoever still asks for memory is told.
var errForfeited = fmt.Errorf("%w: the source's processes have ended, or ran", lazypages.ErrLost)

// saying is how often it is said that memory does not come, at most: it is asked for many times a second.
const saying = 10 * time.Second

// feed gives the copy the memory that its images lack, until end is called or ctx ends.
func (c *Copies) feed(ctx context.Context, n note) (end func()) {
	if n.From == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	f := c.forfeit(n.ID)
	asking, stop := context.WithCancel(ctx)
	forget := context.AfterFunc(f.lost, stop)
	var fed sync.WaitGroup
	log := c.cfg.Log.With("pod", n.PodUID, "container", n.ID)
	fed.Go(func() {
		var said time.Time
		var came model.Bytes
		var requests int
		began := time.Now()
		left, err := inspect.LeftOut(n.Images)
		if err != nil {
			log.Warn("memory is fetched page by page where a program touches it in a row", "err", err)
		}
		source := ahead{lacking: left.InARow, fetch: func(r lazypages.Range, b []byte) error {
			err := c.cfg.Pages(asking, *n.From, n.Name, r, b)
			switch {
			case err == nil:
				came, requests = came+model.Bytes(r.Size), requests+1
			case f.lost.Err() != nil:
				return errForfeited
			case asking.Err() == nil && time.Since(said) > saying:
				said = time.Now()
				log.Warn("memory does not come: the pod waits if it touches any", "err", err)
			}
			return err
		}}
		lazypages.Feed(ctx, c.cfg.Layout.Relay(n.ID), func(_ context.Context, r lazypages.Range, b []byte) error { return source.read(r, b) })
		log.Info("memory that came from the source", "bytes", came, "requests", requests, "took", time.Since(began))
	})
	return func() {
		cancel()
		fed.Wait()
		forget()
		stop()
	}
}

// endFetching ends what fetches the memory of a copy whose first process has ended, when all of its processes
// have. CRIU's daemon would notice when the next memory came: with the source away, perhaps never.
func (c *Copies) endFetching(ctx context.Context, n note) error {
	if n.From == nil {
		return nil
	}
	dir := c.cfg.Layout.Loader(n.ID)
	for ctx.Err() == nil {
		// What fails to load the memory says so before it ends the copy.
		_, ended, err := hosted.Noted(dir)
		if err != nil || ended {
			return err
		}
		if running, err := hosted.Running(dir); err != nil || !running {
			return err
		}
		group, err := c.group(n)
		if err != nil {
			return err
		}
		pids, err := group.Procs()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			break
		}
		wait, cancel := context.WithTimeout(ctx, moment)
		<-wait.Done()
		cancel()
	}
	if ctx.Err() != nil {
		return nil
	}
	c.mu.Lock()
	c.over[n.ID] = true
	c.mu.Unlock()
	_, err := hosted.CutOff(dir)
	return err
}

// Drop kills m's copies that lack memory which is lost. It returns when they are dead. Those that lack
// nothing any more run on.
func (c *Copies) Drop(ctx context.Context, m migrate.Move) error {
	notes, err := c.of(m.Target.UID)
	if err != nil {
		return err
	}
	for _, n := range notes {
		if n.From != nil {
			c.forfeit(n.ID).declare() // who asks for no more has all
		}
	}
	for _, n := range notes {
		if n.From == nil {
			continue
		}
		if _, _, err := hosted.Wait(ctx, c.cfg.Layout.Loader(n.ID)); err != nil {
			return fmt.Errorf("wait for the end of container %s, whose memory is lost: %w", n.ID, err)
		}
		c.followed(ctx, n)
	}
	return ctx.Err()
}
