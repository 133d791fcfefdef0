package main

import (
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shared is memory in which a child of this program's counts.
type shared struct {
	word *atomic.Uint64
	seen uint64
	// stale is how often in a row the child had not counted: it gets its turn, but not always.
	stale int
}

const sharedSize = 1 << 20

// share starts the child, which has the memory as descriptor 3.
func share() (*shared, error) {
	fd, err := unix.MemfdCreate("shared", 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "shared")
	if err := f.Truncate(sharedSize); err != nil {
		return nil, err
	}
	child := exec.Command("/proc/self/exe")
	child.Env, child.ExtraFiles = []string{"SHARED=child"}, []*os.File{f}
	if err := child.Start(); err != nil {
		return nil, err
	}
	word, err := mapped(fd)
	return &shared{word: word}, err
}

func mapped(fd int) (*atomic.Uint64, error) {
	memory, err := unix.Mmap(fd, 0, sharedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*atomic.Uint64)(unsafe.Pointer(&memory[0])), nil
}

// intact tells that the child counts.
func (s *shared) intact() bool {
	was := s.seen
	s.seen = s.word.Load()
	if s.stale++; s.seen > was {
		s.stale = 0
	}
	return s.stale < 40
}

// restless is memory that is forked, given back, moved and unmapped, part after part.
type restless struct {
	parts []part
	next  int
}

// part holds its seed and the word's number in every word.
type part struct {
	memory []byte
	seed   uint64
}

// partSize is that of a part: PART_KIB, or 4 MiB.
var partSize uintptr = 4 << 20

func newRestless() (*restless, error) {
	r := &restless{}
	if kib := number("PART_KIB"); kib > 0 {
		partSize = uintptr(kib) << 10
	}
	for i := range 16 {
		p, err := newPart(uint64(i))
		if err != nil {
			return nil, err
		}
		r.parts = append(r.parts, p)
	}
	return r, nil
}

func newPart(seed uint64) (part, error) {
	memory, err := unix.Mmap(-1, 0, int(partSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	p := part{memory, seed}
	if err == nil {
		p.fill()
	}
	return p, err
}

func (p part) words() []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(&p.memory[0])), len(p.memory)/8)
}

func (p part) fill() {
	for i, words := 0, p.words(); i < len(words); i++ {
		words[i] = p.seed<<32 | uint64(i)
	}
}

// holds tells that the words are as they were filled. It must not leave its stack: a forked
// child without a runtime calls it.
//
//go:nosplit
func holds(first *uint64, n int, seed uint64) bool {
	for i := 0; i < n; i++ {
		if *(*uint64)(unsafe.Add(unsafe.Pointer(first), i*8)) != seed<<32|uint64(i) {
			return false
		}
	}
	return true
}

// intact does each to a part of its own, and tells whether all held what they had to. It begins
// when there is a file /go: before, at the dump, there shall be one process.
func (r *restless) intact() bool {
	if _, err := os.Stat("/go"); err != nil {
		return true
	}
	at := func(i int) *part { return &r.parts[(r.next+4*i)%len(r.parts)] }
	good := at(0).forked() && at(1).givenBack() && at(2).moved() && at(3).unmapped()
	r.next++
	return good
}

// fork has a child look at the memory and tell by its exit code.
//
//go:nosplit
func fork(first *uint64, n int, seed uint64) (pid int) {
	got, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if got != 0 {
		return int(got)
	}
	status := uintptr(1)
	if holds(first, n, seed) {
		status = 0
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, status, 0, 0)
	}
}

// forked tells that a child saw what is there, and what is there afterwards.
func (p *part) forked() bool {
	words := p.words()
	pid := fork(&words[0], len(words), p.seed)
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			return err == nil && status.Exited() && status.ExitStatus() == 0 && holds(&words[0], len(words), p.seed)
		}
	}
}

func (p *part) givenBack() bool {
	if err := unix.Madvise(p.memory, unix.MADV_DONTNEED); err != nil {
		return false
	}
	for _, w := range p.words() {
		if w != 0 {
			return false
		}
	}
	p.fill()
	return true
}

func (p *part) moved() bool {
	to, err := unix.Mmap(-1, 0, int(partSize), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	_, _, errno := syscall.Syscall6(unix.SYS_MREMAP, uintptr(unsafe.Pointer(&p.memory[0])), partSize, partSize,
		unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, uintptr(unsafe.Pointer(&to[0])), 0)
	if errno != 0 {
		return false
	}
	p.memory = to
	words := p.words()
	return holds(&words[0], len(words), p.seed)
}

func (p *part) unmapped() bool {
	_, _, errno := syscall.Syscall(unix.SYS_MUNMAP, uintptr(unsafe.Pointer(&p.memory[0])), partSize, 0)
	if errno != 0 {
		return false
	}
	fresh, err := newPart(p.seed)
	*p = fresh
	return err == nil
}
