package inspect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/imagefile"
)

// Flags of pages (CRIU's pagemap.h).
const (
	// lazyPage: CRIU can load it after the restore (PE_LAZY): those of private anonymous memory that is
	// neither locked nor a stack in use.
	lazyPage = 1 << 1
	// presentPage: the images have it (PE_PRESENT).
	presentPage = 1 << 2
)

// Memory is what a copy's images hold of the memory of its processes.
type Memory struct {
	// Lazy is how much of it can be loaded after the restore; counted until it was enough.
	Lazy model.Bytes
	// Lacking: of what was counted the images lack some, which somebody else has. A dump leaves out all that
	// is lazy, or nothing.
	Lacking bool
	// Processes have memory of their own. Huge: some of it is in huge pages (hugetlbfs).
	Processes int
	Huge      bool
}

// Eager says why a copy must have all of it before it runs, when that is done otherwise from so
// much lazy memory on; empty: the rest can be loaded while it runs.
func (m Memory) Eager(from model.Bytes) string {
	switch {
	case m.Processes != 1:
		// CRIU would give each process a copy of its own of what they share until one writes to
		// it: more than the container had, and perhaps than it may have.
		return fmt.Sprintf("%d processes have memory of their own, want 1", m.Processes)
	case m.Huge:
		return "some of its memory is in huge pages"
	case m.Lazy < from && !m.Lacking:
		return fmt.Sprintf("%d bytes of its memory can be loaded later, want at least %d", m.Lazy, from)
	}
	return ""
}

// MemoryOf reads the maps of the memory in a directory of images. A pod waits meanwhile, so it
// does not count on when it has found enough that is lazy.
func MemoryOf(dir string, enough model.Bytes) (Memory, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Memory{}, fmt.Errorf("inspect images: %w", err)
	}
	defer root.Close()
	names, err := list(root)
	if err != nil {
		return Memory{}, fmt.Errorf("inspect images: %w", err)
	}
	d, found := &images{root: root, names: names}, Memory{}
	found.Processes, err = d.each("mm-", func(name string) error {
		return read(root, name, func(r io.Reader) error {
			return imagefile.Mappings(r, func(v *vma.VmaEntry) error {
				found.Huge = found.Huge || v.GetFlags()&unix.MAP_HUGETLB != 0
				return nil
			})
		})
	})
	if err != nil {
		return Memory{}, err
	}
	_, err = d.each("pagemap-", func(name string) error {
		if strings.HasPrefix(name, "pagemap-shmem-") {
			return nil
		}
		page := uint64(os.Getpagesize())
		return eachLazy(root, name, func(e *pagemap.PagemapEntry) bool {
			found.Lazy += model.Bytes(min(pagesIn(e), uint64(enough)/page+1) * page) // more would be no more than enough
			found.Lacking = found.Lacking || e.GetFlags()&presentPage == 0
			return found.Lazy < enough
		})
	})
	return found, err
}

// eachLazy goes through the lazy pages in one process's map of its memory, as long as do says true.
func eachLazy(root *os.Root, name string, do func(*pagemap.PagemapEntry) bool) error {
	return read(root, name, func(from io.Reader) error {
		r, err := imagefile.NewReader(from, imagefile.PagemapMagic)
		if err != nil {
			return err
		}
		if err := r.Next(&pagemap.PagemapHead{}); err != nil {
			return err
		}
		for {
			e := &pagemap.PagemapEntry{}
			if err := r.Next(e); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if e.GetFlags()&lazyPage != 0 && !do(e) {
				return nil
			}
		}
	})
}

func pagesIn(e *pagemap.PagemapEntry) uint64 {
	return max(e.GetNrPages(), uint64(e.GetCompatNrPages()))
}

// Left is the memory that images lack, by the PIDs in them.
type Left map[uint64][]span

// span is memory from start up to end, in bytes.
type span struct{ start, end uint64 }

// mostSpans is how many spans images may lack, 16 MiB of them: the source's word is not kept without bound.
const mostSpans = 1 << 20

// LeftOut tells what the images in a directory lack of memory that can be loaded later. An error also if it
// lies in more than 1,048,576 pieces.
func LeftOut(dir string) (Left, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("inspect images: %w", err)
	}
	defer root.Close()
	names, err := list(root)
	if err != nil {
		return nil, fmt.Errorf("inspect images: %w", err)
	}
	left, count, page := Left{}, 0, uint64(os.Getpagesize())
	d := &images{root: root, names: names}
	_, err = d.each("pagemap-", func(name string) error {
		process, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name, "pagemap-"), ".img"), 10, 64)
		if err != nil {
			return nil // of shared memory
		}
		return eachLazy(root, name, func(e *pagemap.PagemapEntry) bool {
			start, all := e.GetVaddr(), left[process]
			switch end := start + pagesIn(e)*page; {
			case e.GetFlags()&presentPage != 0:
			case len(all) > 0 && all[len(all)-1].end == start:
				all[len(all)-1].end = end
			default:
				left[process], count = append(all, span{start, end}), count+1
			}
			return count <= mostSpans
		})
	})
	if err == nil && count > mostSpans {
		err = fmt.Errorf("the images lack memory in more than %d pieces: move the pod without spec.postCopy", mostSpans)
	}
	if err != nil {
		return nil, err
	}
	return left, nil
}

// InARow is how much is lacking in a row of a process's memory from address on, in bytes. It knows what CRIU
// writes: spans by their addresses, of which what is asked for lies in one.
func (l Left) InARow(process, address uint64) uint64 {
	all := l[process]
	i := sort.Search(len(all), func(i int) bool { return all[i].end > address })
	if i == len(all) || all[i].start > address {
		return 0
	}
	return all[i].end - address
}

// Has tells whether all of that memory is lacking: size bytes, at least one, from address on of a process.
func (l Left) Has(process, address, size uint64) bool {
	return size > 0 && size <= l.InARow(process, address)
}
