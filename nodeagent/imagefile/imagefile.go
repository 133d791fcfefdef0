// Package imagefile reads CRIU's image files: magic numbers, then entries, each after its size. They
// are another node's word and may be of any length: entries come one after the other, and each is
// bounded, so that what an image can have this node use does not grow with it.
package imagefile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Magic numbers (CRIU's magic.h). Images of now begin with one that is common to all.
const (
	CommonMagic  = 0x54564319
	PagemapMagic = 0x56084025
	MMMagic      = 0x57492820
)

// MaxEntry bounds an entry, in bytes. Those of a process with as many mappings as Linux gives it by
// default have almost as much; all others have some kilobytes.
const MaxEntry = 4 << 20

// Reader gives the entries of an image.
type Reader struct {
	from  *bufio.Reader
	entry []byte
}

// NewReader reads the magic number, which has to be the one that is wanted.
func NewReader(from io.Reader, magic uint32) (*Reader, error) {
	r := &Reader{from: bufio.NewReader(from)}
	got, err := r.word()
	if err == nil && got == CommonMagic {
		got, err = r.word()
	}
	if err != nil || got != magic {
		return nil, fmt.Errorf("magic number %#x (%v), want %#x", got, err, magic)
	}
	return r, nil
}

func (r *Reader) word() (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(r.from, b[:])
	return binary.LittleEndian.Uint32(b[:]), err
}

// Raw reads an entry, whose bytes are there until the next is read; at the end it gives io.EOF.
func (r *Reader) Raw() ([]byte, error) {
	size, err := r.word()
	if err != nil {
		return nil, err
	}
	if size > MaxEntry {
		return nil, fmt.Errorf("an entry of %d bytes, want at most %d", size, MaxEntry)
	}
	if int(size) > cap(r.entry) {
		r.entry = make([]byte, size)
	}
	r.entry = r.entry[:size]
	if n, err := io.ReadFull(r.from, r.entry); err != nil {
		return nil, fmt.Errorf("an entry of %d bytes was announced, and there are %d", size, n)
	}
	return r.entry, nil
}

// Next reads an entry; at the end it gives io.EOF.
func (r *Reader) Next(into proto.Message) error {
	b, err := r.Raw()
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, into)
}

// end fails where there is more.
func (r *Reader) end() error {
	if _, err := r.from.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("more than one entry")
	}
	return nil
}

// One reads an image that holds one entry: CRIU reads the first, and more would only be hidden.
func One(from io.Reader, magic uint32, into proto.Message) error {
	r, err := NewReader(from, magic)
	if err != nil {
		return err
	}
	if err := r.Next(into); err != nil {
		return err
	}
	return r.end()
}

// Each reads an image that holds any number of entries, and ends with the first error of do.
func Each[T any, M interface {
	*T
	proto.Message
}](from io.Reader, magic uint32, do func(M) error) error {
	r, err := NewReader(from, magic)
	if err != nil {
		return err
	}
	for {
		m := M(new(T))
		switch err := r.Next(m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := do(m); err != nil {
			return err
		}
	}
}

// vmas is the number of the mappings in an image of a process's memory (CRIU's mm.proto).
var vmas = (&mm.MmEntry{}).ProtoReflect().Descriptor().Fields().ByName("vmas").Number()

// Mappings reads those of a process, out of the one entry of its mm image. They are decoded one after the
// other: an empty one has two bytes there, and some hundred when it is decoded.
func Mappings(from io.Reader, do func(*vma.VmaEntry) error) error {
	r, err := NewReader(from, MMMagic)
	if err != nil {
		return err
	}
	b, err := r.Raw()
	if err != nil {
		return err
	}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		if number == vmas && kind == protowire.BytesType {
			field, _ := protowire.ConsumeBytes(b)
			v := &vma.VmaEntry{}
			if err := proto.Unmarshal(field, v); err != nil {
				return err
			}
			if err := do(v); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return r.end()
}
