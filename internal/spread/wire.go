package spread

import (
	"encoding/binary"
	"errors"
	"iter"
)

// What travels, all integers big endian or varint:
//
//	leaf     kind 1 | from 6 | session 4 | number 2 | records
//	branch   kind 1 | from 6 | session 4 | number 2 | tree 1 | arc 4+4 | records
//	receipt  kind 1 | from 6 | session 4 | newest 2 | before 8
//	refusal  kind 1 | from 6 | session 4 | number 2
//	digest   kind 1 | from 6 | nonce 8 | first 8 | last 8 | entries
//	answer   kind 1 | from 6 | records
//	whole    kind 1 | from 6
//	last     kind 1 | from 6 | records
//
// Records are in runs of one length: length | how many 1 | records. The kinds begin beyond those of bare
// records. 15 records of 86 bytes make a full leaf.
const (
	kindLeaf    byte = 0x80 + iota // records for the receiver alone
	kindBranch                     // records for the receiver and all in an arc
	kindReceipt                    // which frames of a session have come
	kindRefusal                    // a branch that the receiver cannot pass on yet
	kindDigest                     // what the sender has of a range of slots
	kindAnswer                     // what the receiver lacks
	kindWhole                      // a newcomer asks for everything
	kindLast                       // the end of the answer to that
)

// urge is set in the kind of a leaf or branch whose sender misses a receipt.
const urge = 0x40

const (
	prefixSize = 1 + peerSize
	leafSize   = prefixSize + 4 + 2
	branchSize = leafSize + 1 + 4 + 4
	// maxPacket is what fits beside memberlist's own framing and encryption (35 bytes) into
	// 1400 bytes.
	maxPacket = 1365
	// MaxRecord is the largest record that goes by packets; larger ones go by streams.
	MaxRecord = 1200
	// maxStream bounds what is taken from a stream, and what one is filled with.
	maxStream = 1 << 20
)

// Is tells frames of this package from bare records.
func Is(b []byte) bool { return len(b) > 0 && b[0] >= kindLeaf }

var errMalformed = errors.New("malformed frame")

// frame is one that was decoded, of any kind.
type frame struct {
	kind    byte
	urge    bool
	from    Peer
	session uint32
	number  uint16
	before  uint64 // of a receipt
	tree    int
	arc     arc
	nonce   uint64
	first   Slot
	last    Slot
	rest    []byte // records, or a digest's entries
}

func prefix(kind byte, from Peer) []byte {
	b := make([]byte, 1, maxPacket)
	b[0] = kind
	return append(b, binary.BigEndian.AppendUint64(nil, uint64(from))[:peerSize]...)
}

// encode is the wire form of f but for kindDigest's.
func (f *frame) encode() []byte {
	b := prefix(f.kind, f.from)
	if f.urge {
		b[0] |= urge
	}
	switch f.kind {
	case kindLeaf, kindBranch, kindReceipt, kindRefusal:
		b = binary.BigEndian.AppendUint32(b, f.session)
		b = binary.BigEndian.AppendUint16(b, f.number)
	case kindDigest:
		b = binary.BigEndian.AppendUint64(b, f.nonce)
		b = binary.BigEndian.AppendUint64(b, uint64(f.first))
		b = binary.BigEndian.AppendUint64(b, uint64(f.last))
	}
	switch f.kind {
	case kindReceipt:
		b = binary.BigEndian.AppendUint64(b, f.before)
	case kindBranch:
		b = append(b, byte(f.tree))
		b = binary.BigEndian.AppendUint32(b, uint32(f.arc.from))
		b = binary.BigEndian.AppendUint32(b, uint32(f.arc.to))
	}
	return append(b, f.rest...)
}

// decode takes a frame apart. It keeps b.
func decode(b []byte) (frame, error) {
	c := cursor{b: b, ok: len(b) <= maxStream+maxPacket}
	f := frame{kind: c.byte(), from: c.peer()}
	if k := f.kind &^ urge; k == kindLeaf || k == kindBranch {
		f.urge, f.kind = f.kind != k, k
	}
	switch f.kind {
	case kindLeaf, kindRefusal:
		f.session, f.number = c.uint32(), c.uint16()
	case kindReceipt:
		f.session, f.number, f.before = c.uint32(), c.uint16(), c.uint64()
	case kindBranch:
		f.session, f.number = c.uint32(), c.uint16()
		f.tree = int(c.byte())
		f.arc = arc{place(c.uint32()), place(c.uint32())}
		c.ok = c.ok && f.tree < trees
	case kindDigest:
		f.nonce, f.first, f.last = c.uint64(), Slot(c.uint64()), Slot(c.uint64())
		c.ok = c.ok && f.first <= f.last && len(b) <= maxPacket
	case kindAnswer, kindWhole, kindLast:
	default:
		c.ok = false
	}
	if !c.ok {
		return frame{}, errMalformed
	}
	f.rest = c.b
	switch f.kind {
	case kindLeaf, kindBranch, kindAnswer, kindLast:
		for raw := range records(f.rest) {
			if raw == nil {
				return frame{}, errMalformed
			}
		}
	case kindReceipt, kindRefusal, kindWhole:
		if len(f.rest) != 0 {
			return frame{}, errMalformed
		}
	}
	return f, nil
}

// maxRun is how many records of one length follow each other at most.
const maxRun = 255

func appendRecords(b []byte, raws ...[]byte) []byte {
	for len(raws) > 0 {
		n := 1
		for n < min(len(raws), maxRun) && len(raws[n]) == len(raws[0]) {
			n++
		}
		b = append(binary.AppendUvarint(b, uint64(len(raws[0]))), byte(n))
		for _, raw := range raws[:n] {
			b = append(b, raw...)
		}
		raws = raws[n:]
	}
	return b
}

// runSize is what a record takes that begins a run.
func runSize(raw []byte) int {
	n := 2
	for x := len(raw); x >= 0x80; x >>= 7 {
		n++
	}
	return n + len(raw)
}

// fitting is how many of the records go into so many bytes.
func fitting(raws [][]byte, room int) int {
	run := 0
	for i, raw := range raws {
		size := len(raw)
		if run++; i == 0 || len(raws[i-1]) != len(raw) || run > maxRun {
			size, run = runSize(raw), 1
		}
		if room -= size; room < 0 {
			return i
		}
	}
	return len(raws)
}

// records goes through those in b. The last is nil when b does not end with a record.
func records(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n, size := binary.Uvarint(b)
			if size <= 0 || size == len(b) || n == 0 || n > maxStream || b[size] == 0 || int(n)*int(b[size]) > len(b)-size-1 {
				yield(nil)
				return
			}
			run := int(b[size])
			b = b[size+1:]
			for ; run > 0; run-- {
				if !yield(b[:n:n]) {
					return
				}
				b = b[n:]
			}
		}
	}
}

// cursor takes integers off b; ok is false once one was not there.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || len(c.b) < n {
		c.ok = false
		return make([]byte, n)
	}
	head := c.b[:n]
	c.b = c.b[n:]
	return head
}

func (c *cursor) byte() byte     { return c.take(1)[0] }
func (c *cursor) uint16() uint16 { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) uint32() uint32 { return binary.BigEndian.Uint32(c.take(4)) }
func (c *cursor) uint64() uint64 { return binary.BigEndian.Uint64(c.take(8)) }

func (c *cursor) peer() Peer {
	var b [8]byte
	copy(b[:], c.take(peerSize))
	return Peer(binary.BigEndian.Uint64(b[:]))
}

func (c *cursor) uvarint() uint64 {
	x, n := binary.Uvarint(c.b)
	if !c.ok || n <= 0 {
		c.ok = false
		return 0
	}
	c.b = c.b[n:]
	return x
}
