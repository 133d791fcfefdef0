package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"
)

// Magic numbers of images (CRIU's magic.h). All begin with one that is common to them.
const (
	commonMagic  = 0x54564319
	pagemapMagic = 0x56084025
	mmMagic      = 0x57492820
)

// Flags of an entry of a pagemap (CRIU's pagemap.h).
const (
	inParent = 1 << 0
	lazy     = 1 << 1 // can be loaded when the process runs
	present  = 1 << 2
)

// mapPrefix begins the names of pagemaps: of a process "pagemap-PID.img", of shared memory
// "pagemap-shmem-ID.img".
const (
	mapPrefix    = "pagemap-"
	sharedPrefix = mapPrefix + "shmem-"
)

// page is the size of one, in bytes.
var page = uint64(os.Getpagesize())

// end of the addresses that a process may have.
const highest = 1 << 63

// span is pages that lie side by side in a process's memory.
type span struct {
	start, pages uint64
	// parent: they are in the round before. Else they are the pages from at on of the layer's file.
	parent, lazy bool
	at           uint64
}

func (s span) end() uint64 { return s.start + s.pages*page }

// layer is what one round, or the dump, says of some memory.
type layer struct {
	// id is the number of the file that has its pages.
	id uint32
	// spans are in the order of their addresses, and so of their places in the file.
	spans []span
}

func (l *layer) needsParent() bool {
	for _, s := range l.spans {
		if s.parent {
			return true
		}
	}
	return false
}

func pagesFile(dir string, id uint32) string { return fmt.Sprintf("%s/pages-%d.img", dir, id) }

// readLayer reads a pagemap, and holds it against the size of the file that has its pages.
func readLayer(root *os.Root, dir, name string) (*layer, error) {
	l := &layer{}
	var head pagemap.PagemapHead
	var have uint64
	first := true
	err := readImage(root, dir+"/"+name, pagemapMagic, func(entry []byte) error {
		if first {
			first = false
			err := proto.Unmarshal(entry, &head)
			l.id = head.GetPagesId()
			return err
		}
		s, err := parseSpan(entry)
		if err != nil {
			return err
		}
		if n := len(l.spans); n > 0 && s.start < l.spans[n-1].end() {
			return fmt.Errorf("pages at %#x come after those up to %#x", s.start, l.spans[n-1].end())
		}
		if !s.parent {
			s.at = have
			have += s.pages // each at most highest/page, and the spans do not overlap: no overflow
		}
		l.spans = append(l.spans, s)
		return nil
	})
	if err != nil || have == 0 {
		return l, err
	}
	file := pagesFile(dir, l.id)
	info, err := root.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || uint64(info.Size())/page < have {
		return nil, fmt.Errorf("%d pages are named of %s, which has %d bytes (%v)", have, file, info.Size(), info.Mode().Type())
	}
	return l, nil
}

func parseSpan(entry []byte) (span, error) {
	var e pagemap.PagemapEntry
	if err := proto.Unmarshal(entry, &e); err != nil {
		return span{}, err
	}
	s := span{start: e.GetVaddr(), pages: e.GetNrPages(), lazy: e.GetFlags()&lazy != 0}
	if e.NrPages == nil {
		s.pages = uint64(e.GetCompatNrPages())
	}
	switch {
	case s.start%page != 0 || s.start >= highest || s.pages == 0 || s.pages > (highest-s.start)/page:
		return span{}, fmt.Errorf("%d pages at %#x are none of a process", s.pages, s.start)
	case e.GetFlags()&present != 0:
	case e.GetFlags()&inParent != 0:
		s.parent = true
	default:
		return span{}, fmt.Errorf("the pages at %#x have the flags %#x: they are neither here nor in a round before", s.start, e.GetFlags())
	}
	return s, nil
}

// writeMap writes a pagemap anew, of which every page is in the file with that number, in order.
func writeMap(root *os.Root, path string, id uint32, pieces []piece) (err error) {
	b := binary.LittleEndian.AppendUint32(nil, commonMagic)
	b = binary.LittleEndian.AppendUint32(b, pagemapMagic)
	if b, err = appendEntry(b, &pagemap.PagemapHead{PagesId: &id}); err != nil {
		return err
	}
	for i := 0; i < len(pieces); {
		whole := pieces[i].span
		for i++; i < len(pieces) && pieces[i].start == whole.end() && pieces[i].lazy == whole.lazy; i++ {
			whole.pages += pieces[i].pages
		}
		flags := uint32(present)
		if whole.lazy {
			flags |= lazy
		}
		short := uint32(whole.pages)
		if b, err = appendEntry(b, &pagemap.PagemapEntry{Vaddr: &whole.start, CompatNrPages: &short, NrPages: &whole.pages, Flags: &flags}); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func appendEntry(b []byte, m proto.Message) ([]byte, error) {
	at := len(b)
	b, err := proto.MarshalOptions{}.MarshalAppend(append(b, 0, 0, 0, 0), m)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b, nil
}

// readImage calls for each entry of an image.
func readImage(root *os.Root, path string, magic uint32, each func(entry []byte) error) error {
	b, err := root.ReadFile(path)
	if err != nil {
		return err
	}
	if err := parseImage(b, magic, each); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func parseImage(b []byte, magic uint32, each func(entry []byte) error) error {
	word := func() (uint32, error) {
		if len(b) < 4 {
			return 0, fmt.Errorf("a number ends after %d bytes", len(b))
		}
		n := binary.LittleEndian.Uint32(b)
		b = b[4:]
		return n, nil
	}
	got, err := word()
	if err == nil && got == commonMagic {
		got, err = word()
	}
	if err != nil || got != magic {
		return fmt.Errorf("magic number %#x (%v), want %#x", got, err, magic)
	}
	for len(b) > 0 {
		n, err := word()
		if err != nil || uint64(n) > uint64(len(b)) {
			return fmt.Errorf("an entry of %d bytes was announced, and there are %d (%v)", n, len(b), err)
		}
		if err := each(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
