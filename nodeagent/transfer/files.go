package transfer

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// image is a file that will be sent.
type image struct {
	name string
	size uint64
	id   fileID
}

// fileID tells one file from another that has its name later, and its inode's number, which
// file systems give out again.
type fileID struct {
	major, minor uint32
	ino          uint64
	born         unix.StatxTimestamp
}

func idOf(f *os.File) (fileID, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return fileID{}, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	return fileID{st.Dev_major, st.Dev_minor, st.Ino, st.Btime}, nil
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// openRegular opens a regular file of the directory, or of one right below it, and no other:
// no link, and no pipe that would block.
func openRegular(dir *os.File, name string) (*os.File, uint64, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
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

const parentLink = "parent"

// listImages gives the files of a directory and of those right below it by name, and the sum
// of their sizes. Anything but plain files is an error: left out silently, it would be missed
// at the restore. So is a directory without files, unless they are still to come.
func listImages(dir *os.File, more bool) ([]image, uint64, error) {
	names, err := listNames(dir, more)
	if err != nil {
		return nil, 0, err
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
		id, err := idOf(f)
		f.Close()
		if err != nil {
			return nil, 0, err
		}
		images = append(images, image{name, size, id})
		total += size
	}
	slices.SortFunc(images, func(a, b image) int { return cmp.Compare(a.name, b.name) })
	return images, total, nil
}

func listNames(dir *os.File, more bool) ([]string, error) {
	entries, err := dir.ReadDir(maxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
			continue
		}
		below, err := os.ReadDir(filepath.Join(dir.Name(), e.Name()))
		if err != nil {
			return nil, err
		}
		if len(below) == 0 && !more {
			return nil, fmt.Errorf("%s holds no images", filepath.Join(dir.Name(), e.Name()))
		}
		for _, f := range below {
			// CRIU's link from a dump to the round that it builds on. It does not travel: the target
			// joins them.
			if f.Name() == parentLink && f.Type() == fs.ModeSymlink {
				continue
			}
			names = append(names, e.Name()+"/"+f.Name())
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s holds no images", dir.Name())
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("%s holds more than %d files", dir.Name(), maxFiles)
	}
	return names, nil
}
