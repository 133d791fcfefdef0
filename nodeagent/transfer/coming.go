package transfer

import (
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// coming is what has come of the images of one move that are not complete. It outlives the
// calls that brought it: a sender whose connection was cut sends only what is missing.
// Discard, Forget and an offence of its sender end it.
type coming struct {
	store *Store
	// name of the move's directory; who sends it, for what record, as it was admitted.
	name   string
	caller string
	record recordKey
	root   *os.Root
	ahead  ahead

	// gate is read-locked by whoever adds to files, and locked by who wants them as they are.
	gate sync.RWMutex
	// over says why nothing more is taken.
	over atomic.Pointer[error]

	mu    sync.Mutex // for what follows, among those who add
	files map[string]*comingFile
	dirs  map[string]bool
	// limit is how many bytes of images may come; taken how far the files that came reach.
	limit, taken uint64
	// aheadLimit is the same of blocks, aheadCame what came of them.
	aheadLimit, aheadCame uint64
	// kept is how many bytes of images and of blocks that are in none are there: of what was
	// set aside, the rest may still be written.
	kept uint64
}

// recordKey names the record of a move.
type recordKey struct {
	namespace, migration, uid string
	epoch                     uint64
}

func keyOf(b *agentv1.Begin) recordKey {
	return recordKey{b.GetNamespace(), b.GetMigration(), b.GetMigrationUid(), b.GetEpoch()}
}

type comingFile struct {
	chunks map[uint64]*comingChunk
	// end is where the file's furthest chunk ends.
	end uint64
}

// newComing makes the partial directory. The Store's mutex is held.
func newComing(s *Store, name, caller string, b *agentv1.Begin) (*coming, error) {
	c := &coming{store: s, name: name, caller: caller, record: keyOf(b), files: map[string]*comingFile{}, dirs: map[string]bool{}}
	err := s.inRoot(func(r *os.Root) error {
		partial := name + partialSuffix
		if err := r.RemoveAll(partial); err != nil {
			return err
		}
		if err := r.Mkdir(partial, 0o700); err != nil {
			return err
		}
		var err error
		c.root, err = r.OpenRoot(partial)
		return err
	})
	return c, diskError(err)
}

// left is how much may still be written. Take the Store's mutex first.
func (c *coming) left() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := aside(c.limit, c.aheadLimit)
	return all - min(all, c.kept)
}

// aside is how much room is set aside for so many bytes of images, and of blocks ahead of them.
// Blocks that are in the images are there once; of those that have become others, a quarter
// finds room as well.
func aside(total, ahead uint64) uint64 { return max(total, ahead) + ahead/4 }

// limits are how many bytes of images, and of blocks ahead of them, may come.
func (c *coming) limits() (total, ahead uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limit, c.aheadLimit
}

func (c *coming) allow(total, ahead uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.aheadLimit = total, ahead
}

// spoil lets nothing more be added.
func (c *coming) spoil(why error) { c.over.CompareAndSwap(nil, &why) }

func (c *coming) ended() bool { return c.over.Load() != nil }

// letGo closes what is open.
func (c *coming) letGo() {
	c.spoil(errDiscarded)
	c.ahead.drop()
	c.root.Close()
}

// part takes a message after Begin.
func (c *coming) part(req *agentv1.PutRequest) (int, error) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	if why := c.over.Load(); why != nil {
		return 0, *why
	}
	switch p := req.GetPart().(type) {
	case *agentv1.PutRequest_Chunk:
		return int(p.Chunk.GetSize()), c.chunk(p.Chunk)
	case *agentv1.PutRequest_Blocks:
		return 0, c.blocks(p.Blocks)
	case *agentv1.PutRequest_Begin:
		return 0, refuse(misuse, "a second begin")
	}
	return 0, refuse(misuse, "a message without a part that is known")
}

// keep counts so many bytes more, and has the cache give way when that is more than was set aside.
func (c *coming) keep(more uint64) error {
	c.mu.Lock()
	c.kept += more
	over := c.kept > aside(c.limit, c.aheadLimit)
	c.mu.Unlock()
	if over {
		return diskError(c.giveWay())
	}
	return nil
}

// giveWay drops the cache: the images need its room, for too much of it has become another. Its
// sender is told when it names a block next.
func (c *coming) giveWay() error {
	held, err := c.ahead.close(c.root)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept -= uint64(held)
	return err
}

// claim finds the place of a chunk, within what was declared.
func (c *coming) claim(m *agentv1.Chunk) (*comingChunk, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name, end := m.GetFile(), m.GetOffset()+uint64(m.GetSize())
	f := c.files[name]
	var had uint64
	if f != nil {
		had = f.end
	}
	more := max(end, had) - had
	switch {
	case more > c.limit-c.taken:
		return nil, refuse(misuse, "file %q reaches to %d: with it there are %d bytes more than the %d that were declared", name, end, more-(c.limit-c.taken), c.limit)
	case f == nil && len(c.files) == maxFiles:
		return nil, refuse(misuse, "file %q is one more than the %d that a move may have", name, maxFiles)
	}
	if f == nil {
		if err := c.create(name); err != nil {
			return nil, diskError(err)
		}
		f = &comingFile{chunks: map[uint64]*comingChunk{}}
		c.files[name] = f
	}
	c.taken += more
	f.end = max(end, had)
	at := f.chunks[m.GetOffset()/chunkSize]
	if at == nil {
		at = &comingChunk{}
		f.chunks[m.GetOffset()/chunkSize] = at
	}
	return at, nil
}

// create makes a file, and the directory of a container's images.
func (c *coming) create(name string) error {
	if dir, _, below := strings.Cut(name, "/"); below && !c.dirs[dir] {
		if err := c.root.Mkdir(dir, 0o700); err != nil {
			return err
		}
		c.dirs[dir] = true
	}
	// O_EXCL does not follow a link, whatever it points to.
	f, err := c.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// blocks keeps contents that chunks will name.
func (c *coming) blocks(m *agentv1.Blocks) error {
	n := uint64(m.GetCount()) * block
	if n == 0 || n > chunkSize {
		return refuse(misuse, "%d blocks in one message, want 1 to %d", m.GetCount(), chunkSize/block)
	}
	c.mu.Lock()
	if n > c.aheadLimit-c.aheadCame {
		c.mu.Unlock()
		return refuse(misuse, "%d bytes of blocks came ahead and %d more: more than the %d that were declared", c.aheadCame, n, c.aheadLimit)
	}
	c.aheadCame += n
	c.mu.Unlock()
	buffer := takeBuffer()
	defer buffer.free()
	data := buffer.bytes[:n]
	if err := decode(data, m.GetCodec(), m.GetData()); err != nil {
		return refuse(misuse, "%d blocks: %w", m.GetCount(), err)
	}
	kept, err := c.ahead.add(c.root, data)
	return errors.Join(diskError(err), c.keep(uint64(kept)))
}

// have tells which chunks are there.
func (c *coming) have() []*agentv1.FileChunks {
	c.gate.Lock()
	defer c.gate.Unlock()
	var all []*agentv1.FileChunks
	for name, f := range c.files {
		there := newBitmap(int(chunksOf(f.end)))
		for i, at := range f.chunks {
			if at.size > 0 {
				there.set(int(i))
			}
		}
		all = append(all, &agentv1.FileChunks{Name: name, There: there})
	}
	return all
}
