package main

import (
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ledger is memory of which every count writes some pages anew and looks at some, each in turn: a page
// that is lost, or is as it was before, is found. Only those of its first half are written to, so that there
// are some that have not changed, however slow the processor is.
type ledger struct {
	memory   []byte
	versions []uint64
	writes   int
	at, seen int
}

// looks is at how many pages each count looks.
const looks = 64

func newLedger(mib, writes int) (*ledger, error) {
	// A page at each end keeps it from growing together with what is mapped beside it: of memory that has
	// grown the kernel takes every page for one that was written to.
	whole, err := unix.Mmap(-1, 0, mib<<20+2*pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	memory := whole[pageSize : len(whole)-pageSize]
	if err := unix.Mprotect(memory, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, err
	}
	l := &ledger{memory: memory, versions: make([]uint64, len(memory)/pageSize), writes: writes}
	for i := range l.versions {
		l.write(i)
	}
	return l, nil
}

func (l *ledger) page(i int) *[pageSize / 8]uint64 {
	return (*[pageSize / 8]uint64)(unsafe.Pointer(&l.memory[i*pageSize]))
}

func (l *ledger) write(i int) {
	l.versions[i]++
	for k, p := 0, l.page(i); k < len(p); k += 8 {
		p[k] = uint64(i)<<40 | uint64(k)<<24 | l.versions[i]
	}
}

func (l *ledger) holds(i int) bool {
	for k, p := 0, l.page(i); k < len(p); k += 8 {
		if p[k] != uint64(i)<<40|uint64(k)<<24|l.versions[i] {
			return false
		}
	}
	return true
}

func (l *ledger) intact() bool {
	for range l.writes {
		l.at = (l.at + 1) % (len(l.versions) / 2)
		l.write(l.at)
	}
	good := true
	for range looks {
		l.seen = (l.seen + 1) % len(l.versions)
		good = good && l.holds(l.seen)
	}
	return good
}

// late is what begins only when a file is there.
type late struct {
	file  string
	begin func() (interface{ intact() bool }, error)
	begun interface{ intact() bool }
}

func (l *late) intact() bool {
	if l.begun != nil {
		return l.begun.intact()
	}
	if _, err := os.Stat(l.file); err != nil {
		return true
	}
	var err error
	l.begun, err = l.begin()
	check(err)
	return true
}

// track opens what a program clears the kernel's marks of its written pages by.
func track() {
	var err error
	tracker, err = os.OpenFile("/proc/self/clear_refs", os.O_WRONLY, 0)
	check(err)
}

// tracker stays open as long as somebody has it.
var tracker *os.File

// tracking is a program that can ask what it has written to, and may do so for every count.
type tracking struct{ clears bool }

func (t tracking) intact() bool {
	if !t.clears {
		return true
	}
	_, err := tracker.WriteString("4") // proc_pid_clear_refs(5)
	return err == nil
}

func number(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}
