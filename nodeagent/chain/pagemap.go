package chain

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/drover-project/drover/nodeagent/imagefile"
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
	// spans are in the order of their addresses, and so of their places in the file, of which they
	// name the first have pages.
	spans []span
	have  uint64
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

// readLayer reads a pagemap, of left entries at most, and holds it against the size of the file that has its
// pages.
func readLayer(root *os.Root, dir, name string, left *int) (*layer, error) {
	l := &layer{}
	err := read(root, dir+"/"+name, func(from io.Reader) error {
		r, err := imagefile.NewReader(from, imagefile.PagemapMagic)
		if err != nil {
			return err
		}
		var head pagemap.PagemapHead
		if err := r.Next(&head); err != nil {
			return err
		}
		l.id = head.GetPagesId()
		return l.read(r, left)
	})
	if err != nil || l.have == 0 {
		return l, err
	}
	file := pagesFile(dir, l.id)
	info, err := root.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || uint64(info.Size())/page < l.have {
		return nil, fmt.Errorf("%d pages are named of %s, which has %d bytes (%v)", l.have, file, info.Size(), info.Mode().Type())
	}
	return l, nil
}

func (l *layer) read(r *imagefile.Reader, left *int) error {
	for {
		var e pagemap.PagemapEntry
		switch err := r.Next(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case *left == 0:
			return fmt.Errorf("the page maps of all rounds and of the dump have more than %d entries", mostSpans)
		}
		*left--
		s, err := parseSpan(&e)
		if err != nil {
			return err
		}
		if n := len(l.spans); n > 0 && s.start < l.spans[n-1].end() {
			return fmt.Errorf("pages at %#x come after those up to %#x", s.start, l.spans[n-1].end())
		}
		if !s.parent {
			s.at = l.have
			l.have += s.pages // each at most highest/page, and the spans do not overlap: no overflow
		}
		l.spans = append(l.spans, s)
	}
}

// read gives what an image holds.
func read(root *os.Root, path string, do func(io.Reader) error) error {
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := do(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func parseSpan(e *pagemap.PagemapEntry) (span, error) {
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

// mapEntry is how many bytes an entry of a pagemap takes at most: its size, and four numbers with a byte before each.
const mapEntry = 4 + 4 + 10 + 5 + 10 + 1

// writeMap writes a pagemap anew, of which every page is in the file with that number, in order.
func writeMap(root *os.Root, path string, id uint32, pieces []piece) (err error) {
	f, err := root.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	to := bufio.NewWriter(f)
	b := binary.LittleEndian.AppendUint32(nil, imagefile.CommonMagic)
	b = binary.LittleEndian.AppendUint32(b, imagefile.PagemapMagic)
	if b, err = appendEntry(b, &pagemap.PagemapHead{PagesId: &id}); err != nil {
		return err
	}
	for i := 0; i < len(pieces); {
		if _, err := to.Write(b); err != nil {
			return err
		}
		whole := pieces[i].span
		for i++; i < len(pieces) && pieces[i].start == whole.end() && pieces[i].lazy == whole.lazy; i++ {
			whole.pages += pieces[i].pages
		}
		flags := uint32(present)
		if whole.lazy {
			flags |= lazy
		}
		short := uint32(whole.pages)
		if b, err = appendEntry(b[:0], &pagemap.PagemapEntry{Vaddr: &whole.start, CompatNrPages: &short, NrPages: &whole.pages, Flags: &flags}); err != nil {
			return err
		}
	}
	if _, err := to.Write(b); err != nil {
		return err
	}
	return errors.Join(to.Flush(), f.Sync())
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
