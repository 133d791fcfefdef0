// Command scribe is what the tests of files that move are about: in every directory that it is
// given it has files open in all the ways that programs have, and with every line that it
// writes it looks whether each is as it left it.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	var desks []*desk
	for _, dir := range os.Args[1:] {
		d, err := open(dir)
		if err != nil {
			fmt.Println("cannot begin in", dir, err)
			os.Exit(1)
		}
		desks = append(desks, d)
	}
	for i := 0; ; i++ {
		well := true
		for _, d := range desks {
			if err := d.write(i); err != nil {
				fmt.Println("in", d.dir, err)
				well = false
			}
		}
		fmt.Println(i, well, time.Now().UnixMicro())
		time.Sleep(10 * time.Millisecond)
	}
}

// desk is a directory with open files.
type desk struct {
	dir string
	// journal is appended to; reader is at a place in the middle of it.
	journal, reader *os.File
	// deleted and sparse are at places of their own, deleted without a name.
	deleted, sparse *os.File
	content         []byte
	// renamed is open by a name that it has lost, and has another.
	renamed    *os.File
	pipe, lock *os.File
	socket     net.Listener
	shared     []byte
	inode      unix.Stat_t
}

const (
	deletedSize = 3 << 20
	deletedAt   = 1234567
	sparseAt    = 64 << 20
	unread      = "bytes that nobody has read yet"
)

func open(dir string) (*desk, error) {
	d := &desk{dir: dir, content: make([]byte, deletedSize)}
	random := rand.NewChaCha8([32]byte{1})
	random.Read(d.content)
	var errs []error
	create := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
		errs = append(errs, err)
		return f
	}
	d.journal, d.deleted, d.sparse, d.lock, d.renamed = create("journal"), create("deleted"), create("sparse"), create("lock"), create("before")
	shared := create("shared")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	var err error
	if d.reader, err = os.Open(path("journal")); err != nil {
		return nil, err
	}
	_, err1 := d.deleted.Write(d.content)
	_, err2 := d.deleted.Seek(deletedAt, io.SeekStart)
	_, err3 := d.sparse.WriteAt(d.content[:5000], 0)
	_, err4 := d.sparse.WriteAt(d.content[:10], sparseAt)
	errs = append(errs, err1, err2, err3, err4, os.Remove(path("deleted")),
		unix.Mkfifo(path("pipe"), 0o620), os.WriteFile(path("big"), d.content, 0o600), os.WriteFile(path("tool"), []byte("#!/bin/sh"), 0o600),
		os.Chown(path("tool"), 12, 34), os.Chmod(path("tool"), 0o755|os.ModeSetuid|os.ModeSetgid),
		os.Mkdir(path("private"), 0o700), os.Chown(path("private"), 12, 34), os.Chmod(path("private"), 0o700|os.ModeSetgid),
		os.WriteFile(path("private/one"), []byte("two names"), 0o444), os.Link(path("private/one"), path("two")),
		os.Link(path("before"), path("after")), os.Remove(path("before")),
		os.Symlink("../nowhere", path("dangling")), unix.Flock(int(d.lock.Fd()), unix.LOCK_EX), shared.Truncate(8192))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if d.pipe, err = os.OpenFile(path("pipe"), os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		return nil, err
	}
	if _, err := d.pipe.WriteString(unread); err != nil {
		return nil, err
	}
	if d.socket, err = net.Listen("unix", path("socket")); err != nil {
		return nil, err
	}
	go answer(d.socket)
	d.shared, err = unix.Mmap(int(shared.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return d, errors.Join(err, unix.Stat(path("two"), &d.inode))
}

func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, "here")
		c.Close()
	}
}

// write writes line i everywhere, and looks at what was written before.
func (d *desk) write(i int) error {
	return errors.Join(d.journaled(i), d.nameless(), d.holes(), d.piped(), d.asked(), d.mapped(i), d.named(), d.other(i))
}

func line(i int) string { return fmt.Sprintf("line %9d\n", i) }

func (d *desk) journaled(i int) error {
	if _, err := d.journal.WriteString(line(i)); err != nil {
		return err
	}
	if i%3 != 0 {
		return nil // the reader falls behind
	}
	b := make([]byte, len(line(0)))
	if _, err := io.ReadFull(d.reader, b); err != nil || string(b) != line(i/3) {
		return fmt.Errorf("the journal goes on with %q, %v, want %q", b, err, line(i/3))
	}
	at, err := d.journal.Seek(0, io.SeekCurrent)
	info, err2 := os.Stat(filepath.Join(d.dir, "journal"))
	if err := errors.Join(err, err2); err != nil || at != int64((i+1)*len(b)) || info.Size() != at {
		return fmt.Errorf("the journal has %d bytes and is written at %d, %v, want %d", info.Size(), at, err, (i+1)*len(b))
	}
	return nil
}

func (d *desk) nameless() error {
	at, err := d.deleted.Seek(0, io.SeekCurrent)
	b := make([]byte, deletedSize)
	_, err2 := d.deleted.ReadAt(b, 0)
	if err := errors.Join(err, err2); err != nil || at != deletedAt || !bytes.Equal(b, d.content) {
		return fmt.Errorf("the deleted file is at %d, %v", at, err)
	}
	if _, err := os.Lstat(filepath.Join(d.dir, "deleted")); err == nil {
		return errors.New("the deleted file has a name")
	}
	return nil
}

func (d *desk) holes() error {
	b := make([]byte, 10)
	_, err := d.sparse.ReadAt(b, sparseAt)
	var st unix.Stat_t
	err2 := unix.Fstat(int(d.sparse.Fd()), &st)
	if err := errors.Join(err, err2); err != nil || !bytes.Equal(b, d.content[:10]) || st.Size != sparseAt+10 || st.Blocks*512 > 1<<20 {
		return fmt.Errorf("the sparse file has %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	return nil
}

// piped reads what is in the pipe, and writes it again.
func (d *desk) piped() error {
	b := make([]byte, 100)
	n, err := d.pipe.Read(b)
	if err != nil || string(b[:n]) != unread {
		return fmt.Errorf("the pipe holds %q, %v", b[:n], err)
	}
	_, err = d.pipe.Write(b[:n])
	return err
}

func (d *desk) asked() error {
	c, err := net.Dial("unix", filepath.Join(d.dir, "socket"))
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if string(b) != "here" {
		return fmt.Errorf("the socket answers %q, %v", b, err)
	}
	return nil
}

// mapped wants a mapping to be of the file that has its name.
func (d *desk) mapped(i int) error {
	copy(d.shared[4000:], line(i))
	b, err := os.ReadFile(filepath.Join(d.dir, "shared"))
	if err != nil || !bytes.Equal(b, d.shared) {
		return fmt.Errorf("the mapped file is another, %v", err)
	}
	return nil
}

// other wants the file that has lost a name to be the one that has the other.
func (d *desk) other(i int) error {
	if _, err := d.renamed.WriteAt([]byte(line(i)), 0); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(d.dir, "after"))
	if err != nil || string(b) != line(i) {
		return fmt.Errorf("the renamed file holds %q, %v", b, err)
	}
	names, err := os.ReadDir(d.dir)
	if err != nil || i > 10 && len(names) != 12 {
		return fmt.Errorf("%d names in the directory, want 12: %v, %v", len(names), names, err)
	}
	return nil
}

// named looks at what is not open.
func (d *desk) named() error {
	var one, two, tool, private unix.Stat_t
	path := func(name string) string { return filepath.Join(d.dir, name) }
	err := errors.Join(unix.Stat(path("private/one"), &one), unix.Stat(path("two"), &two), unix.Stat(path("tool"), &tool), unix.Stat(path("private"), &private))
	to, err2 := os.Readlink(path("dangling"))
	switch {
	case errors.Join(err, err2) != nil || to != "../nowhere":
		return fmt.Errorf("%w, %w, link to %q", err, err2, to)
	case one.Ino != two.Ino || one.Nlink != 2 || one.Mtim != d.inode.Mtim:
		return fmt.Errorf("two names: %+v and %+v", one, two)
	case tool.Mode != unix.S_IFREG|0o6755 || tool.Uid != 12 || tool.Gid != 34 || private.Mode != unix.S_IFDIR|0o2700:
		return fmt.Errorf("modes %#o and %#o, owner %d:%d", tool.Mode, private.Mode, tool.Uid, tool.Gid)
	case !locked(path("lock")):
		return errors.New("the lock is lost")
	}
	b, err := os.ReadFile(path("big"))
	if err != nil || !bytes.Equal(b, d.content) {
		return fmt.Errorf("the large file is another, %w", err)
	}
	return nil
}

// locked tells that somebody else has the lock of a file.
func locked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}
