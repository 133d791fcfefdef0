package filetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Options of a packing.
type Options struct {
	// Layer: the tree is the upper layer of an overlay.
	Layer bool
	// Live: the tree changes meanwhile, and what comes of it is only a hint. What is gone is
	// left out, and what a file has lost in the middle is a hole.
	Live   bool
	Limits Limits
}

// Usage is how large a tree is.
type Usage struct {
	// Bytes that its data file would have, about, and never less.
	Bytes   int64
	Entries int
}

// Survey walks a tree without reading what its files hold. An error that wraps ErrUnfit names a file that
// cannot be packed, or the limit.
func Survey(ctx context.Context, root string, o Options) (Usage, error) {
	var used Usage
	w := walker{ctx: ctx, Options: o}
	w.content = func(_ int, e *Entry, st *unix.Stat_t) error {
		used.Bytes += align(min(st.Blocks*512, align(e.Size)))
		if used.Bytes > o.Limits.Bytes {
			return fmt.Errorf("%w: they hold more than %d MiB", ErrUnfit, o.Limits.Bytes>>20)
		}
		return nil
	}
	err := w.walk(root)
	used.Entries = len(w.entries)
	return used, err
}

// walker makes the entries of a tree. Whoever owns the tree may change it meanwhile: nothing is followed, and
// nothing but regular files and directories is ever opened.
type walker struct {
	ctx context.Context
	Options
	// content looks at a regular file by a descriptor that is only its place (O_PATH).
	content func(fd int, e *Entry, st *unix.Stat_t) error
	entries []Entry
	links   map[inode]int
	// size is that of the index so far, in bytes, xattrs how many extended attributes are in it, scratch an
	// entry of it.
	size, xattrs int
	scratch      encoder
}

type inode struct{ dev, ino uint64 }

const (
	placeFlags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	beneath    = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
)

// place gives a descriptor of what path names below dir, without opening it.
func place(dir int, path string) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat2(dir, path, &unix.OpenHow{Flags: placeFlags, Resolve: beneath})
	})
}

// retry calls again what a signal has interrupted.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// proc is a path of what a descriptor is of, which opens it anew.
func proc(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func (w *walker) walk(root string) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	w.links = map[inode]int{}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: root, Err: err}
	}
	e, err := w.describe(fd, "", &st)
	if err != nil {
		return err
	}
	if err := errors.Join(w.add(e), w.dir(fd, 0, nil)); err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	return nil
}

// add takes an entry, if the index does not become too large: whoever owns the tree says how much there
// is to be kept of it.
func (w *walker) add(e Entry) error {
	w.scratch.b = w.scratch.b[:0]
	w.scratch.entry(&e)
	if w.size += len(w.scratch.b); w.size > maxIndex {
		return fmt.Errorf("%w: what they are without their content takes more than %d MiB", ErrUnfit, maxIndex>>20)
	}
	if w.xattrs += len(e.Xattrs); w.xattrs > w.Limits.xattrs() {
		return fmt.Errorf("%w: they have more than %d extended attributes", ErrUnfit, w.Limits.xattrs())
	}
	w.entries = append(w.entries, e)
	return nil
}

// dir takes what is in the directory of entry at, by the names that lead to it.
func (w *walker) dir(fd, at int, path []string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	// One more than there may be is found to be too many.
	names, err := list(fd, max(0, w.Limits.Entries-len(w.entries))+1)
	if err != nil {
		return &os.PathError{Op: "list", Path: strings.Join(path, "/"), Err: err}
	}
	for _, n := range names {
		err := w.entry(fd, at, append(path, n))
		if w.Live && errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// list gives the names in a directory in order, most of them at most; below zero: all.
func list(fd, most int) ([]string, error) {
	dir, err := retry(func() (int, error) {
		return unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dir), "")
	defer f.Close()
	names, err := f.Readdirnames(most)
	if errors.Is(err, io.EOF) {
		err = nil // it is empty
	}
	slices.Sort(names)
	return names, err
}

func (w *walker) entry(dir, at int, path []string) error {
	last, joined := path[len(path)-1], strings.Join(path, "/")
	if len(w.entries) >= w.Limits.Entries {
		return fmt.Errorf("%w: there are more than %d of them", ErrUnfit, w.Limits.Entries)
	}
	if len(path) > maxDepth || len(joined) > maxPath {
		return unfit(joined, "lies too deep: %d directories and a path of %d bytes are taken at most", maxDepth, maxPath)
	}
	fd, err := place(dir, last)
	if errors.Is(err, unix.EXDEV) {
		return unfit(joined, "is a file system that is mounted there")
	}
	if err != nil {
		return &os.PathError{Op: "look at", Path: joined, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: joined, Err: err}
	}
	i := inode{uint64(st.Dev), st.Ino}
	if first, ok := w.links[i]; ok {
		return w.add(Entry{Parent: at, Name: last, Kind: Link, Of: first})
	}
	e, err := w.describe(fd, joined, &st)
	if err != nil {
		return err
	}
	e.Parent, e.Name = at, last
	if e.Kind == File {
		if err := w.content(fd, &e, &st); err != nil {
			return err
		}
	}
	if err := w.add(e); err != nil {
		return err
	}
	switch {
	case e.Kind == Dir:
		return w.dir(fd, len(w.entries)-1, path)
	case e.Kind != Whiteout && st.Nlink > 1:
		w.links[i] = len(w.entries) - 1
	}
	return nil
}

// describe makes an entry of what a descriptor is the place of.
func (w *walker) describe(fd int, path string, st *unix.Stat_t) (Entry, error) {
	e := Entry{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Kind = Dir
	case unix.S_IFREG:
		e.Kind, e.Size = File, st.Size
	case unix.S_IFIFO:
		e.Kind = FIFO
		return e, nil
	case unix.S_IFSOCK:
		e.Kind = Socket
		return e, nil
	case unix.S_IFLNK:
		e.Kind = Symlink
		var err error
		e.Target, err = readlink(fd)
		return e, err
	case unix.S_IFCHR:
		if w.Layer && st.Rdev == 0 {
			return Entry{Kind: Whiteout}, nil
		}
		fallthrough
	default:
		return e, unfit(path, "is a device node (%d:%d)", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	}
	if e.UID > maxID || e.GID > maxID {
		return e, unfit(path, "is owned by %d:%d", e.UID, e.GID)
	}
	return e, w.attributes(fd, path, &e)
}

func readlink(fd int) (string, error) {
	b := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: proc(fd), Err: err}
	}
	return string(b[:n]), nil
}

// overlay is how an overlay marks files of its upper layer (Documentation/filesystems/overlayfs.rst).
const overlay = "trusted.overlay."

// attributes reads the extended attributes that travel, and an overlay's marks.
func (w *walker) attributes(fd int, path string, e *Entry) error {
	names, err := attributes(fd)
	if err != nil {
		return &os.PathError{Op: "list the extended attributes of", Path: path, Err: err}
	}
	for _, n := range names {
		mark, marked := strings.CutPrefix(n, overlay)
		if !travels(n) && !(w.Layer && marked) {
			continue
		}
		if len(e.Xattrs) >= maxXattrs && !marked {
			return unfit(path, "has more than %d extended attributes", maxXattrs)
		}
		value, err := attribute(fd, n)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "read the extended attribute " + n + " of", Path: path, Err: err}
		}
		switch {
		case !marked:
			e.Xattrs = append(e.Xattrs, Xattr{n, value})
		case mark == "opaque" && string(value) == "y":
			e.Opaque = e.Kind == Dir && path != ""
		case mark == "opaque", mark == "redirect", mark == "metacopy", mark == "whiteout":
			return unfit(path, "is kept by its overlay in a way that cannot be taken along (%s): mount without redirect_dir and metacopy", n)
		}
	}
	return nil
}

// attributes gives the names of a file's extended attributes in order.
func attributes(fd int) ([]string, error) {
	b := make([]byte, maxXattr)
	n, err := unix.Listxattr(proc(fd), b)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := strings.FieldsFunc(string(b[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	return names, nil
}

func attribute(fd int, name string) ([]byte, error) {
	b := make([]byte, 256)
	n, err := unix.Getxattr(proc(fd), name, b)
	if errors.Is(err, unix.ERANGE) {
		b = make([]byte, maxXattr)
		n, err = unix.Getxattr(proc(fd), name, b)
	}
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
