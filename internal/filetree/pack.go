package filetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Data takes the content of a tree: written from the beginning to the end, each write at a page
// boundary. *os.File fits.
type Data interface {
	io.WriterAt
	Truncate(size int64) error
}

// Pack packs the tree at root: its content into data, which is empty, and the rest into the index that is
// returned. An error that wraps ErrUnfit names a file that cannot be packed, or the limit.
func Pack(ctx context.Context, root string, o Options, data Data) (*Index, error) {
	p := packer{data: data, most: o.Limits.Bytes, left: o.Limits.Bytes, live: o.Live, ctx: ctx}
	w := walker{ctx: ctx, Options: o, content: p.file}
	if err := w.walk(root); err != nil {
		return nil, err
	}
	// What comes after the last content is a hole up to the next page.
	if err := data.Truncate(p.at); err != nil {
		return nil, err
	}
	return &Index{Layer: o.Layer, Entries: w.entries}, nil
}

type packer struct {
	ctx    context.Context
	data   Data
	at     int64 // where the next extent goes
	most   int64 // the limit, in bytes
	left   int64 // of it
	live   bool
	buffer []byte
}

// file copies a file's content, and notes where it has holes.
func (p *packer) file(fd int, e *Entry, _ *unix.Stat_t) error {
	if e.Size == 0 {
		return nil
	}
	// It is a regular file, and not to be waited for: somebody may hold a lease on it.
	f, err := os.OpenFile(proc(fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); at < e.Size; {
		x, err := next(f, at, e.Size)
		if errors.Is(err, unix.ENXIO) {
			return nil // the rest is a hole
		}
		if err != nil {
			return err
		}
		if n := align(x.Length); n > p.left {
			return fmt.Errorf("%w: they hold more than there is room for (%d MiB)", ErrUnfit, p.most>>20)
		}
		if err := p.copy(f, x); err != nil {
			return err
		}
		e.Extents = append(e.Extents, x)
		at = x.Offset + x.Length
	}
	return nil
}

// next finds what content a file has from an offset on.
func next(f *os.File, at, size int64) (Extent, error) {
	data, err := f.Seek(at, unix.SEEK_DATA)
	if err != nil {
		return Extent{}, err
	}
	if data >= size {
		return Extent{}, unix.ENXIO
	}
	hole, err := f.Seek(data, unix.SEEK_HOLE)
	if err != nil {
		return Extent{}, err
	}
	return Extent{data, min(hole, size) - data}, nil
}

// copy appends an extent at the next page.
func (p *packer) copy(f *os.File, x Extent) error {
	if p.buffer == nil {
		p.buffer = make([]byte, 1<<20)
	}
	for done := int64(0); done < x.Length; {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		b := p.buffer[:min(int64(len(p.buffer)), x.Length-done)]
		n, err := f.ReadAt(b, x.Offset+done)
		if errors.Is(err, io.EOF) && p.live {
			break
		}
		if n < len(b) {
			return fmt.Errorf("read %d bytes at %d, of which there are %d: %w", len(b), x.Offset+done, n, err)
		}
		if _, err := p.data.WriteAt(b, p.at+done); err != nil {
			return err
		}
		done += int64(n)
	}
	p.at += align(x.Length)
	p.left -= align(x.Length)
	return nil
}
