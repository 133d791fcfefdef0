package filetree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// magic begins an index; its last byte is the version of what follows.
const magic = "DROVERFT\x01"

// maxIndex bounds an index that is read, in bytes.
const maxIndex = 64 << 20

// Encode gives the index as bytes: numbers as varints (encoding/binary), strings after their
// lengths.
func (x *Index) Encode() ([]byte, error) {
	e := encoder{[]byte(magic)}
	e.bool(x.Layer)
	e.uint(uint64(len(x.Entries)))
	for i := range x.Entries {
		e.entry(&x.Entries[i])
	}
	if len(e.b) > maxIndex {
		return nil, fmt.Errorf("%w: an index of %d bytes, want %d at most", ErrUnfit, len(e.b), maxIndex)
	}
	return e.b, nil
}

type encoder struct{ b []byte }

func (e *encoder) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)   { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}
func (e *encoder) bool(v bool) {
	b := byte(0)
	if v {
		b = 1
	}
	e.b = append(e.b, b)
}

func (e *encoder) entry(n *Entry) {
	e.uint(uint64(n.Parent))
	e.string(n.Name)
	e.b = append(e.b, byte(n.Kind))
	switch n.Kind {
	case Link:
		e.uint(uint64(n.Of))
		return
	case Whiteout:
		return
	case Symlink:
		e.string(n.Target)
	case Dir:
		e.bool(n.Opaque)
	case File:
		e.uint(uint64(n.Size))
		e.uint(uint64(len(n.Extents)))
		for _, x := range n.Extents {
			e.uint(uint64(x.Offset))
			e.uint(uint64(x.Length))
		}
	}
	e.uint(uint64(n.Mode))
	e.uint(uint64(n.UID))
	e.uint(uint64(n.GID))
	e.int(n.Sec)
	e.int(n.Nsec)
	e.uint(uint64(len(n.Xattrs)))
	for _, a := range n.Xattrs {
		e.string(a.Name)
		e.string(string(a.Value))
	}
}

// Decode reads an index and checks it.
func Decode(r io.Reader, l Limits) (*Index, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxIndex+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxIndex {
		return nil, fmt.Errorf("%w: an index of more than %d bytes", ErrUnfit, maxIndex)
	}
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: an index of another version, which begins with %q", ErrUnfit, b[:min(len(b), len(magic))])
	}
	d := decoder{b: b[len(magic):], extents: int(l.Bytes / Page), xattrs: l.xattrs()}
	x := &Index{Layer: d.bool()}
	for range d.count(l.Entries) {
		x.Entries = append(x.Entries, d.entry())
		if d.err != nil {
			break
		}
	}
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes after its end", len(d.b))
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: entry %d of the index: %w", ErrUnfit, len(x.Entries), d.err)
	}
	if err := x.Check(l); err != nil {
		return nil, err
	}
	return x, nil
}

// decoder reads; after the first error all is zero.
type decoder struct {
	b   []byte
	err error
	// extents is how many there may be: each has a page of the data file at least.
	extents int
	// xattrs is how many there may be: one that is empty takes two bytes here, and many times that in
	// memory.
	xattrs int
}

var errShort = errors.New("it ends too early")

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail(fmt.Errorf("%d is neither true nor false", v))
	}
	return v == 1
}

func (d *decoder) uint(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	if v > most {
		d.fail(fmt.Errorf("a number of %d, want %d at most", v, most))
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many things follow, each of one byte at least.
func (d *decoder) count(most int) int {
	n := int(d.uint(uint64(most)))
	if n > len(d.b) {
		d.fail(errShort)
		return 0
	}
	return n
}

func (d *decoder) string(most int) string {
	n := d.count(most)
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

const maxInt = 1<<63 - 1

func (d *decoder) entry() (e Entry) {
	e.Parent = int(d.uint(maxIndex))
	e.Name = d.string(maxName)
	e.Kind = Kind(d.byte())
	switch e.Kind {
	case Link:
		e.Of = int(d.uint(maxIndex))
		return e
	case Whiteout:
		return e
	case Symlink:
		e.Target = d.string(maxPath)
	case Dir:
		e.Opaque = d.bool()
	case File:
		e.Size = int64(d.uint(maxInt))
		n := d.count(d.extents)
		d.extents -= n
		for range n {
			e.Extents = append(e.Extents, Extent{int64(d.uint(maxInt)), int64(d.uint(maxInt))})
			if d.err != nil {
				break
			}
		}
	}
	e.Mode = uint32(d.uint(0o7777))
	e.UID, e.GID = uint32(d.uint(maxID)), uint32(d.uint(maxID))
	e.Sec, e.Nsec = d.int(), d.int()
	n := d.count(min(maxXattrs, d.xattrs))
	d.xattrs -= n
	for range n {
		e.Xattrs = append(e.Xattrs, Xattr{d.string(maxName), []byte(d.string(maxXattr))})
	}
	return e
}
