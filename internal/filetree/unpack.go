package filetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Unpack makes the tree of an index, which was checked, below the directory root, with the content that data
// has. What is there under the same names is replaced, but for directories, which are kept. A layer's index
// is unpacked in a mounted overlay, through which the kernel makes the layer: the removal of what lies below
// makes a whiteout, and a directory in its place is opaque.
//
// Nobody else should be at work in the tree.
func Unpack(ctx context.Context, root string, x *Index, data io.ReaderAt) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	u := unpacker{ctx: ctx, Index: x, root: fd, data: data, dir: -1}
	defer u.leave()
	if err := u.room(); err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	for i := range x.Entries {
		if err := u.entry(i); err != nil {
			return fmt.Errorf("%s: make %.200q: %w", root, x.Path(i), err)
		}
	}
	// What is made in a directory changes its time, and what its mode is may be in the way.
	for i := range slices.Backward(x.Entries) {
		if x.Entries[i].Kind != Dir {
			continue
		}
		if err := u.finish(i); err != nil {
			return fmt.Errorf("%s: finish %.200q: %w", root, x.Path(i), err)
		}
	}
	return nil
}

type unpacker struct {
	ctx  context.Context
	root int
	data io.ReaderAt
	*Index
	at     int64 // of the next extent in data
	buffer []byte
	// dir is the descriptor of the directory that is entry of; -1: of none.
	dir, of int
}

// room wants the file system to have space for all of it, and a little more.
func (u *unpacker) room() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(u.root, &st); err != nil {
		return err
	}
	free, need := int64(st.Bavail)*st.Bsize, u.DataSize()
	if need > free-free/20 {
		return fmt.Errorf("files of %d MiB do not fit: %d MiB are free", need>>20, free>>20)
	}
	if st.Files > 0 && uint64(len(u.Entries)) > st.Ffree {
		return fmt.Errorf("%d files do not fit: the file system has room for %d more", len(u.Entries), st.Ffree)
	}
	return nil
}

// enter gives the directory of entry i.
func (u *unpacker) enter(i int) (int, error) {
	if u.dir >= 0 && u.of == i {
		return u.dir, nil
	}
	u.leave()
	path := "."
	if i > 0 {
		path = u.Path(i)
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat2(u.root, path, &unix.OpenHow{Flags: placeFlags | unix.O_DIRECTORY, Resolve: beneath})
	})
	if err != nil {
		return -1, err
	}
	u.dir, u.of = fd, i
	return fd, nil
}

func (u *unpacker) leave() {
	if u.dir >= 0 {
		unix.Close(u.dir)
		u.dir = -1
	}
}

func (u *unpacker) entry(i int) error {
	if err := u.ctx.Err(); err != nil || i == 0 {
		return err
	}
	e := &u.Entries[i]
	var from int
	if e.Kind == Link {
		// Found first: there is one place for a directory.
		var err error
		if from, err = u.other(e.Of); err != nil {
			return err
		}
		defer unix.Close(from)
	}
	dir, err := u.enter(e.Parent)
	if err != nil {
		return err
	}
	kept, err := u.clear(dir, e)
	if err != nil || kept {
		return err
	}
	switch e.Kind {
	case Whiteout:
		return nil
	case Dir:
		return unix.Mkdirat(dir, e.Name, 0o700)
	case File:
		return u.file(dir, e)
	case Link:
		return unix.Linkat(from, u.Entries[e.Of].Name, dir, e.Name, 0)
	case Symlink:
		err = unix.Symlinkat(e.Target, dir, e.Name)
	case FIFO:
		err = unix.Mknodat(dir, e.Name, unix.S_IFIFO|0o600, 0)
	case Socket:
		err = unix.Mknodat(dir, e.Name, unix.S_IFSOCK|0o600, 0)
	}
	if err != nil {
		return err
	}
	fd, err := place(dir, e.Name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return dress(fd, e)
}

// other gives a descriptor of the directory that holds entry i, for the caller to close.
func (u *unpacker) other(i int) (int, error) {
	dir, err := u.enter(u.Entries[i].Parent)
	if err != nil {
		return -1, err
	}
	return unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
}

// clear removes what has an entry's name. kept: it is a directory that can stay.
func (u *unpacker) clear(dir int, e *Entry) (kept bool, err error) {
	fd, err := place(dir, e.Name)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && e.Kind == Dir && !e.Opaque {
		return true, nil
	}
	if !isDir {
		return false, unix.Unlinkat(dir, e.Name, 0)
	}
	return false, u.remove(dir, fd, e.Name)
}

// remove removes a directory with all that is in it, on its own file system.
func (u *unpacker) remove(parent, fd int, name string) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	names, err := list(fd, -1)
	if err != nil {
		return err
	}
	for _, n := range names {
		below, err := place(fd, n)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err = unix.Fstat(below, &st); err == nil {
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				err = u.remove(fd, below, n)
			} else {
				err = unix.Unlinkat(fd, n, 0)
			}
		}
		unix.Close(below)
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

func (u *unpacker) file(dir int, e *Entry) error {
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, e.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.Name)
	defer f.Close()
	if err := f.Truncate(e.Size); err != nil {
		return err
	}
	for _, x := range e.Extents {
		if err := u.copy(f, x); err != nil {
			return err
		}
	}
	return dress(fd, e)
}

// copy writes the next extent of the data file.
func (u *unpacker) copy(f *os.File, x Extent) error {
	if u.buffer == nil {
		u.buffer = make([]byte, 1<<20)
	}
	for done := int64(0); done < x.Length; {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		b := u.buffer[:min(int64(len(u.buffer)), x.Length-done)]
		if n, err := u.data.ReadAt(b, u.at+done); n < len(b) {
			return fmt.Errorf("the data file ends at %d: %w", u.at+done+int64(n), err)
		}
		if _, err := f.WriteAt(b, x.Offset+done); err != nil {
			return err
		}
		done += int64(len(b))
	}
	u.at += align(x.Length)
	return nil
}

// finish gives a directory what it has beside its content.
func (u *unpacker) finish(i int) error {
	fd, err := u.enter(i)
	if err != nil {
		return err
	}
	e := &u.Entries[i]
	names, err := attributes(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		has := slices.ContainsFunc(e.Xattrs, func(x Xattr) bool { return x.Name == n })
		if travels(n) && !has {
			if err := unix.Removexattr(proc(fd), n); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("take the extended attribute %s away: %w", n, err)
			}
		}
	}
	return dress(fd, e)
}

// dress gives what a descriptor is of its owner, mode, extended attributes and time, in this order: a new
// owner takes what a program may do away, and access lists have the mode's last word.
func dress(fd int, e *Entry) error {
	if err := unix.Fchownat(fd, "", int(e.UID), int(e.GID), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("give it to %d:%d: %w", e.UID, e.GID, err)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: e.Sec, Nsec: e.Nsec}}
	if e.Kind == Symlink {
		return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	}
	if err := unix.Chmod(proc(fd), e.Mode); err != nil {
		return fmt.Errorf("give it the mode %#o: %w", e.Mode, err)
	}
	for _, x := range e.Xattrs {
		if err := unix.Setxattr(proc(fd), x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("give it the extended attribute %s: %w", x.Name, err)
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, proc(fd), times, 0)
}
