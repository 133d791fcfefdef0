package transfer

import (
	"bytes"
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

// comingChunk is a place for a chunk. Only one writes it at a time.
type comingChunk struct {
	mu sync.Mutex
	// size is 0 as long as nothing verified is there.
	size uint32
	sum  digest
	// touched: something may have been written, so that a hole is not known to be zeros.
	touched bool
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

// chunk verifies a chunk and writes it where it belongs.
func (c *coming) chunk(m *agentv1.Chunk) error {
	if err := checkChunk(m); err != nil {
		return refuse(misuse, "%w", err)
	}
	whole, part := takeBuffer(), takeBuffer()
	defer whole.free()
	defer part.free()
	data, sums, err := c.assemble(m, whole.bytes, part.bytes)
	if err != nil {
		return err
	}
	sum := root(sums)
	if sum != digest(m.GetSha256()) {
		return refuse(damaged, "%d bytes at %d of file %q have digest %x, their sender says %x", m.GetSize(), m.GetOffset(), m.GetFile(), sum, m.GetSha256())
	}
	at, err := c.claim(m)
	if err != nil {
		return err
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.size == m.GetSize() && at.sum == sum {
		return nil // it came before
	}
	was, fresh := at.size, !at.touched
	at.size, at.touched = 0, true
	if err := c.write(m, data, fresh); err != nil {
		return diskError(err)
	}
	at.size, at.sum = m.GetSize(), sum
	freed := c.ahead.moved(m)
	return c.keep(uint64(m.GetSize()) - uint64(was) - uint64(freed))
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

// assemble gives what a chunk says, from its own bytes and from what came ahead, with the digests
// of its blocks. It is in the message itself or in whole, whichever saves a copy.
func (c *coming) assemble(m *agentv1.Chunk, whole, part []byte) ([]byte, []digest, error) {
	size := int(m.GetSize())
	zero, known := bitmap(m.GetZero()), bitmap(m.GetKnown())
	if len(zero) == 0 && len(known) == 0 {
		data, err := unpack(m, size, whole)
		return data, leaves(data), err
	}
	data, sums := whole[:size], make([]digest, blocksOf(size))
	own := 0
	for i := range sums {
		if !zero.has(i) && !known.has(i) {
			own += len(blockAt(data, i))
		}
	}
	from, err := unpack(m, own, part)
	if err != nil {
		return nil, nil, err
	}
	digests := m.GetDigests()
	for i := range sums {
		b := blockAt(data, i)
		switch {
		case known.has(i):
			sums[i] = digest(digests)
			digests = digests[len(sums[i]):]
			if !c.ahead.read(c.root, sums[i], b) {
				return nil, nil, refuse(missing, "a block of file %q did not come ahead", m.GetFile())
			}
			continue
		case zero.has(i):
			clear(b)
		default:
			from = from[copy(b, from):]
		}
		sums[i], _ = leaf(b)
	}
	return data, sums, nil
}

// unpack gives the size bytes that a chunk brings, in a buffer or as they came.
func unpack(m *agentv1.Chunk, size int, buffer []byte) ([]byte, error) {
	if m.GetCodec() == agentv1.Codec_RAW && len(m.GetData()) == size {
		return m.GetData(), nil
	}
	if err := decode(buffer[:size], m.GetCodec(), m.GetData()); err != nil {
		return nil, refuse(misuse, "%d bytes at %d of file %q: %w", m.GetSize(), m.GetOffset(), m.GetFile(), err)
	}
	return buffer[:size], nil
}

// checkChunk looks at what a chunk says of itself.
func checkChunk(m *agentv1.Chunk) error {
	if err := checkName(m.GetFile()); err != nil {
		return err
	}
	size, zero, known := m.GetSize(), bitmap(m.GetZero()), bitmap(m.GetKnown())
	n := blocksOf(int(size))
	bad := func(what string) error {
		return errors.New(what + " of a chunk of file " + m.GetFile())
	}
	switch {
	case size == 0 || uint64(size) > chunkSize:
		return bad("the size")
	case m.GetOffset()%chunkSize != 0 || m.GetOffset() > 1<<62:
		return bad("the offset")
	case len(m.GetSha256()) != len(digest{}):
		return bad("the digest")
	case !zero.fits(n) || !known.fits(n):
		return bad("a bitmap")
	}
	named := 0
	for i := range n {
		if !known.has(i) {
			continue
		}
		if zero.has(i) || (i+1)*block > int(size) {
			return bad("a known block")
		}
		named++
	}
	if len(m.GetDigests()) != named*len(digest{}) {
		return bad("the digests of known blocks")
	}
	return nil
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

// write writes a chunk. Where nothing was written before zeros are a hole, and cost nothing.
func (c *coming) write(m *agentv1.Chunk, data []byte, fresh bool) (err error) {
	f, err := c.root.OpenFile(m.GetFile(), os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	offset := int64(m.GetOffset())
	from := 0
	for i := range blocksOf(len(data)) + 1 {
		last := i == blocksOf(len(data))
		if !last {
			if b := blockAt(data, i); !fresh || !bytes.Equal(b, zeroBlock[:len(b)]) {
				continue
			}
		}
		if to := min(i*block, len(data)); from < to {
			if _, err := f.WriteAt(data[from:to], offset+int64(from)); err != nil {
				return err
			}
		}
		from = (i + 1) * block
	}
	// Only a hint: what counts is the sync before the images are complete. A pod is frozen
	// meanwhile, so it should find little to do.
	_ = unix.SyncFileRange(int(f.Fd()), offset, int64(len(data)), unix.SYNC_FILE_RANGE_WRITE)
	return nil
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
