package transfer

import (
	"bytes"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// comingChunk is a place for a chunk. Only one writes it at a time.
type comingChunk struct {
	mu sync.Mutex
	// size is 0 as long as nothing verified is there.
	size uint32
	sum  digest
	// touched: something may have been written, so that a hole is not known to be zeros.
	touched bool
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
	if !c.ahead.fill(c.root, m, data, sums) {
		return nil, nil, refuse(missing, "a block of file %q did not come ahead", m.GetFile())
	}
	for i := range sums {
		b := blockAt(data, i)
		switch {
		case known.has(i):
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
