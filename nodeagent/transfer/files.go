package transfer

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// image is a file that will be sent.
type image struct {
	name string
	size uint64
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// openRegular opens a regular file of the directory and no other: no link, and no pipe that
// would block.
func openRegular(dir *os.File, name string) (*os.File, uint64, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, &os.PathError{Op: "open", Path: dir.Name() + "/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir.Name()+"/"+name)
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file, but a %v", f.Name(), fi.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, uint64(fi.Size()), nil
}

// listImages gives the files of a directory by name, and the sum of their sizes. Anything
// but plain files is an error: left out silently, it would be missed at the restore.
func listImages(dir *os.File) ([]image, uint64, error) {
	names, err := dir.Readdirnames(maxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	if len(names) == 0 {
		return nil, 0, fmt.Errorf("%s holds no images", dir.Name())
	}
	if len(names) > maxFiles {
		return nil, 0, fmt.Errorf("%s holds more than %d files", dir.Name(), maxFiles)
	}
	images := make([]image, 0, len(names))
	var total uint64
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", dir.Name(), err)
		}
		f, size, err := openRegular(dir, name)
		if err != nil {
			return nil, 0, err
		}
		f.Close()
		images = append(images, image{name, size})
		total += size
	}
	slices.SortFunc(images, func(a, b image) int { return cmp.Compare(a.name, b.name) })
	return images, total, nil
}
