package inspect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/imagefile"
)

// lazyPage is the flag of pages that CRIU can load after the restore (PE_LAZY of CRIU's
// pagemap.h): those of private anonymous memory that is neither locked nor a stack in use.
const lazyPage = 1 << 1

// Memory is what a copy's images hold of the memory of its processes.
type Memory struct {
	// Lazy is how much of it can be loaded after the restore; counted until it was enough.
	Lazy model.Bytes
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
	case m.Lazy < from:
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
		return countLazy(root, name, &found.Lazy, enough)
	})
	return found, err
}

// countLazy adds up the lazy pages in one process's map of its memory.
func countLazy(root *os.Root, name string, sum *model.Bytes, enough model.Bytes) error {
	page := uint64(os.Getpagesize())
	return read(root, name, func(from io.Reader) error {
		r, err := imagefile.NewReader(from, imagefile.PagemapMagic)
		if err != nil {
			return err
		}
		if err := r.Next(&pagemap.PagemapHead{}); err != nil {
			return err
		}
		for *sum < enough {
			e := &pagemap.PagemapEntry{}
			if err := r.Next(e); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if e.GetFlags()&lazyPage != 0 {
				n := max(e.GetNrPages(), uint64(e.GetCompatNrPages()))
				*sum += model.Bytes(min(n, uint64(enough)/page+1) * page) // more would be no more than enough
			}
		}
		return nil
	})
}
