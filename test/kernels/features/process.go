package features

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/criu"
	"github.com/drover-project/drover/internal/netlock"
)

// softDirty clears the marks of this process's pages, writes to one, and looks for its mark
// (Documentation/admin-guide/mm/soft-dirty.rst).
func softDirty() (string, error) {
	page, err := unix.Mmap(-1, 0, 2*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(page)
	page[0], page[os.Getpagesize()] = 1, 1
	if err := os.WriteFile("/proc/self/clear_refs", []byte("4"), 0); err != nil {
		return "", err
	}
	page[0] = 2
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return "", err
	}
	defer pagemap.Close()
	entries := make([]byte, 16)
	if _, err := pagemap.ReadAt(entries, int64(uintptr(unsafe.Pointer(&page[0]))/uintptr(os.Getpagesize())*8)); err != nil {
		return "", err
	}
	written, not := binary.NativeEndian.Uint64(entries)>>55&1, binary.NativeEndian.Uint64(entries[8:])>>55&1
	if written != 1 || not != 0 {
		return "", fmt.Errorf("a page that was written has the mark %d, one that was not %d", written, not)
	}
	return "", nil
}

func userfaultfd() (string, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return "", errno
	}
	return "", unix.Close(int(fd))
}

// nfTables lists the tables of a namespace, as the removal of CRIU's network lock does.
func nfTables() (string, error) {
	return apart(func() (string, error) {
		_, err := netlock.Locks(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		return "", err
	})
}

// canRestore asks as the agent does.
func canRestore() (string, error) {
	if _, err := exec.LookPath("criu"); err != nil {
		return "", err
	}
	release, err := Release()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run := func(ctx context.Context, args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}
	if why := criu.CannotRestore(ctx, run, "runc", release); why != "" {
		return "", errors.New(why)
	}
	return "", nil
}
