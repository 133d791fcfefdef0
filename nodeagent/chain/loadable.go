package chain

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// loadable tells which pages CRIU may load when the process runs already. It marks those that a
// dump holds, and not those that a round does: what was true of these may be so no more.
type loadable struct {
	areas []area
	// stacks are the pages that threads' stack pointers are in, in order.
	stacks []uint64
}

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
	err = readImage(root, file, mmMagic, func(entry []byte) error {
		var e mm.MmEntry
		if err := proto.Unmarshal(entry, &e); err != nil {
			return err
		}
		const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
		for _, v := range e.GetVmas() {
			// As CRIU's vma_entry_can_be_lazy.
			can := v.GetFlags()&(flags|unix.MAP_LOCKED|unix.MAP_HUGETLB) == flags && v.GetStatus()&(vsyscall|vdso|vvar) == 0
			a := area{v.GetStart(), v.GetEnd(), can}
			if a.start%page != 0 || a.end%page != 0 || a.start >= a.end {
				return fmt.Errorf("a mapping from %#x to %#x is none", a.start, a.end)
			}
			l.areas = append(l.areas, a)
		}
		return nil
	})
	if err != nil {
		return l, err
	}
	slices.SortFunc(l.areas, func(a, b area) int { return cmp.Compare(a.start, b.start) })
	l.stacks, err = readStacks(root, dir)
	return l, err
}

var errRegisters = errors.New("the registers are of a processor that is not known here")

// readStacks gives the pages of all threads' stack pointers, whichever process they are of.
func readStacks(root *os.Root, dir string) (stacks []uint64, err error) {
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "core-") {
			continue
		}
		err := readImage(root, dir+"/"+e.Name(), coreMagic, func(entry []byte) error {
			var c criu_core.CoreEntry
			if err := proto.Unmarshal(entry, &c); err != nil {
				return err
			}
			var sp uint64
			switch {
			case c.GetThreadInfo() != nil:
				sp = c.GetThreadInfo().GetGpregs().GetSp()
			case c.GetTiAarch64() != nil:
				sp = c.GetTiAarch64().GetGpregs().GetSp()
			case c.GetTc().GetTaskState() == dead:
				return nil
			default:
				return errRegisters
			}
			stacks = append(stacks, sp/page*page)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(stacks)
	return slices.Compact(stacks), nil
}

// dead is the state of a process that has ended and was not waited for: it has no registers.
const dead = 2

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
	switch {
	case at < a.start:
		return min(end, a.start), false
	case !a.lazy:
		return min(end, a.end), false
	}
	k, stack := slices.BinarySearch(l.stacks, at)
	if stack {
		return min(end, at+page), false
	}
	end = min(end, a.end)
	if k < len(l.stacks) {
		end = min(end, l.stacks[k])
	}
	return end, true
}
