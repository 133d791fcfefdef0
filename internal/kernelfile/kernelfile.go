// Package kernelfile reads the small files of procfs, sysfs and cgroupfs, of which an agent reads
// many every second. Package os would hand each to the runtime's poller, as they can be waited
// on: two more system calls, or five, and a wake-up of who waits there.
package kernelfile

import (
	"errors"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"
)

// firstSize is enough for nearly all of these files at once, in bytes.
const firstSize = 8 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, firstSize); return &b }}

// Read gives all that is in a file. The error is a *fs.PathError, as os.ReadFile's is.
func Read(file string) (string, error) {
	fd, err := retry(func() (int, error) { return unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	kept := buffers.Get().(*[]byte)
	defer buffers.Put(kept)
	buffer := *kept
	for size := 0; ; {
		if size == len(buffer) {
			buffer = append(buffer, make([]byte, size)...)
		}
		n, err := retry(func() (int, error) { return unix.Read(fd, buffer[size:]) })
		if err != nil {
			return "", &fs.PathError{Op: "read", Path: file, Err: err}
		}
		if n == 0 {
			return string(buffer[:size]), nil
		}
		size += n
	}
}

// retry goes on after a signal.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
