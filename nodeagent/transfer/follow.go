package transfer

import (
	"path/filepath"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// pages are the files in which CRIU writes memory, from the first byte to the last and never
// again; each container's are in a directory of their own.
const pages = "*/pages-*.img"

// glance is how often it is looked for more of them.
const glance = 5 * time.Millisecond

// others is how large all files together usually are that hold no pages.
const others = 8 * model.MiB

// follower reads a dump while it is written.
type follower struct {
	session *session
	dir     string
	stop    chan struct{}
	wg      sync.WaitGroup
	// queued is how many chunks of each file were, left how many bytes more were declared.
	queued map[string]uint64
	left   uint64
}

// Follow begins to send the pages of a dump to dir, which need not be there yet, as they are
// written: about size bytes. It returns at once. Send goes on from there; Drop ends it.
// Whatever goes wrong is Send's to make good.
func (s *Sender) Follow(m migrate.Move, dir string, size model.Bytes) {
	x, err := s.session(m)
	if err != nil || x.follower != nil || size < 0 {
		return
	}
	all := uint64(size + others)
	x.lanes = x.open(all, 0)
	f := &follower{session: x, dir: dir, stop: make(chan struct{}), queued: map[string]uint64{}, left: all}
	x.follower = f
	f.wg.Go(f.run)
}

// unfollow ends it and leaves the streams open.
func (x *session) unfollow() {
	f := x.follower
	if f == nil {
		return
	}
	x.follower = nil
	close(f.stop)
	f.wg.Wait()
}

func (f *follower) run() {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-f.session.ctx.Done():
			return
		case <-tick.C:
		}
		paths, _ := filepath.Glob(filepath.Join(f.dir, pages)) // the pattern is a constant
		for _, p := range paths {
			if !f.more(p) {
				return
			}
		}
	}
}

// more queues the chunks of a file that are whole; false: the streams have failed, or
// nothing more was declared.
func (f *follower) more(path string) bool {
	name, err := filepath.Rel(f.dir, path)
	if err != nil || checkName(name) != nil {
		return true
	}
	i, err := f.look(name)
	if err != nil {
		return true
	}
	file := f.session.file(name, i.id, i.size/chunkSize)
	for n := f.queued[name]; n < i.size/chunkSize; n++ {
		if f.session.there(file, n) { // pushed before
			f.queued[name] = n + 1
			continue
		}
		if f.left < chunkSize {
			return false
		}
		j := chunkJob{session: f.session, path: f.dir, image: i, file: file, index: n}
		f.session.change(file, n, func(c *goingChunk) { c.said = true })
		select {
		case <-f.stop:
			f.session.change(file, n, func(c *goingChunk) { c.said = false })
			return false
		case f.session.lanes.jobs <- j.job():
		case <-f.session.lanes.ctx.Done():
			return false
		}
		f.left -= chunkSize
		f.queued[name] = n + 1
	}
	return true
}

func (f *follower) look(name string) (image, error) {
	dir, err := openDir(f.dir)
	if err != nil {
		return image{}, err
	}
	defer dir.Close()
	file, size, err := openRegular(dir, name)
	if err != nil {
		return image{}, err
	}
	defer file.Close()
	id, err := idOf(file)
	return image{name, size, id}, err
}
