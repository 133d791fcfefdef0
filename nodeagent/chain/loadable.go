package chain

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/nodeagent/imagefile"
)

// loadable tells which pages CRIU may load when the process runs already. It marks those that a
// dump holds, and not those that a round does: what was true of these may be so no more.
type loadable struct{ areas []area }

// area is a mapping.
type area struct {
	start, end uint64
	lazy       bool
}

// Kinds of mappings that are the kernel's (CRIU's image.h).
const (
	vsyscall = 1 << 2
	vdso     = 1 << 3
	vvar     = 1 << 12
)

// readLoadable reads the dump for the memory that a pagemap is of. Of shared memory nothing is.
func readLoadable(root *os.Root, dir, name string) (l loadable, err error) {
	if strings.HasPrefix(name, sharedPrefix) {
		return l, nil
	}
	file := dir + "/mm-" + strings.TrimPrefix(name, mapPrefix)
	err = read(root, file, func(r io.Reader) error {
		return imagefile.Mappings(r, func(v *vma.VmaEntry) error {
			const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
			// As CRIU's vma_entry_can_be_lazy.
			can := v.GetFlags()&(flags|unix.MAP_LOCKED|unix.MAP_HUGETLB) == flags && v.GetStatus()&(vsyscall|vdso|vvar) == 0
			a := area{v.GetStart(), v.GetEnd(), can}
			if a.start%page != 0 || a.end%page != 0 || a.start >= a.end {
				return fmt.Errorf("a mapping from %#x to %#x is none", a.start, a.end)
			}
			l.areas = append(l.areas, a)
			return nil
		})
	})
	slices.SortFunc(l.areas, func(a, b area) int { return cmp.Compare(a.start, b.start) })
	return l, err
}

// until tells whether the page at an address is loadable, and up to where, at most end, that is so.
func (l loadable) until(at, end uint64) (to uint64, can bool) {
	i, _ := slices.BinarySearchFunc(l.areas, at, func(a area, at uint64) int {
		if a.end <= at {
			return -1
		}
		return 1
	})
	if i == len(l.areas) {
		return end, false
	}
	a := l.areas[i]
	if at < a.start {
		return min(end, a.start), false
	}
	return min(end, a.end), a.lazy
}
