package main

import "golang.org/x/sys/unix"

// told is memory of which every count reads another page and tells what it found. It is all that
// can be loaded after a restore: the rest is locked, Go's runtime too, which would end without a
// word if it read zeros.
type told struct {
	memory []byte
	page   int
}

const pageSize = 4096

func newTold(mib int) (*told, error) {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return nil, err
	}
	memory, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(memory); i += pageSize {
		memory[i] = 1
	}
	return &told{memory: memory}, unix.Munlock(memory)
}

func (t *told) intact() bool {
	t.page = (t.page + 1) % (len(t.memory) / pageSize)
	return t.memory[t.page*pageSize] == 1
}
