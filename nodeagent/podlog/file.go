package podlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// open opens a log below dir. No part of its path may be a symbolic link, and it has to be a file
// with one name: who may write into a log directory by a hostPath cannot have another file read.
func open(dir *os.File, path string) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("open %s: it, or a directory above it, is a symbolic link, and such is not followed", path)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	switch err := unix.Fstat(fd, &st); {
	case err != nil:
		f.Close()
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1:
		f.Close()
		return nil, fmt.Errorf("open %s: not a regular file with one name", path)
	}
	return f, nil
}

// file is a log that is being read.
type file struct {
	f     *os.File
	at    int64 // all before it was read or passed over
	lines lines
}

func (f *file) close() {
	if f.f != nil {
		f.f.Close()
	}
	*f = file{}
}

// size of the file; one that is shorter than what was read of it was truncated, and counts from
// its beginning.
func (f *file) size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() < f.at {
		f.at = 0
		f.lines.jump(false)
	}
	return info.Size(), nil
}

// pass goes to the end, and tells how many bytes it passed over.
func (f *file) pass() (int64, error) {
	size, err := f.size()
	if err != nil || size == f.at {
		return 0, err
	}
	var last [1]byte
	if _, err := f.f.ReadAt(last[:], size-1); err != nil {
		return 0, err
	}
	passed := size - f.at
	f.at = size
	f.lines.jump(last[0] != '\n')
	return passed, nil
}

// read calls do with every line up to the end that the file has now, as long as more says so. What is
// left then is passed over: its bytes are told.
func (f *file) read(buffer []byte, more func() bool, do func(line []byte)) (passed int64, err error) {
	size, err := f.size()
	if err != nil {
		return 0, err
	}
	for f.at < size {
		if !more() {
			return f.pass()
		}
		n, err := f.f.ReadAt(buffer[:min(int64(len(buffer)), size-f.at)], f.at)
		f.at += int64(n)
		f.lines.feed(buffer[:n], do)
		if errors.Is(err, io.EOF) { // truncated just now
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}
