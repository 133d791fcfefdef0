// Package filetree packs a tree of files into two files, an index and a data file, and
// unpacks it elsewhere: modes, owners, times, extended attributes, hard links, holes, named
// pipes and sockets, and of an overlay's upper layer what it hides of those below.
//
// Every extent of content begins at a page boundary of the data file, so that what was sent
// of an earlier packing by its pages need not be sent again.
//
// An index may come from somebody who is not trusted and is unpacked by root. It is checked
// as a whole before anything is made: an entry names its directory by number and itself by
// one plain name, so that no path can lead out, and where content lies in the data file
// follows from the order alone. What is there is never followed: no link, and no mount.
package filetree

import (
	"errors"
	"fmt"
	"strings"
)

// Page is what extents are aligned to in a data file, in bytes.
const Page = 4096

// Kind of an entry.
type Kind byte

// Kinds of entries. Their values are those of the index.
const (
	Dir Kind = iota + 1
	File
	Symlink
	FIFO
	Socket
	// Link is one more name of an earlier entry.
	Link
	// Whiteout hides what a layer below has under its name.
	Whiteout
)

// Entry is one name in a tree. Which fields count depends on Kind.
type Entry struct {
	// Parent is the number of the directory's entry; the root, which is entry 0 and has no
	// name, is its own.
	Parent int
	Name   string
	Kind   Kind
	// Mode is the permissions with the set-user-ID, set-group-ID and sticky bits (07777).
	Mode     uint32
	UID, GID uint32
	// Sec and Nsec are when it was modified, since 1970.
	Sec, Nsec int64
	Xattrs    []Xattr
	// Target is where a Symlink points, Of the number of the entry that a Link is another name of.
	Target string
	Of     int
	// Opaque: of the Dir a layer below has nothing is seen.
	Opaque bool
	// Size of a File in bytes; what no extent covers is a hole.
	Size    int64
	Extents []Extent
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Extent is a part of a file that has content, in bytes.
type Extent struct{ Offset, Length int64 }

// Index is a tree without its content. A directory comes before what is in it.
type Index struct {
	// Layer: it is the upper layer of an overlay, in which there may be Whiteouts.
	Layer   bool
	Entries []Entry
}

// Limits of a tree.
type Limits struct {
	// Bytes of content at most, holes not counted, and Entries.
	Bytes   int64
	Entries int
}

// xattrs is how many extended attributes a tree may have.
func (l Limits) xattrs() int { return maxXattrs + 2*l.Entries }

// Bounds that no tree may exceed. Paths are as long as Linux resolves them.
const (
	maxDepth  = 128
	maxPath   = 4095
	maxName   = 255
	maxXattr  = 64 << 10
	maxXattrs = 64
	maxID     = 1<<32 - 2 // the last ID means "leave it"
)

// ErrUnfit: a tree that cannot be packed, or an index that cannot be unpacked. The message
// names the file.
var ErrUnfit = errors.New("the files cannot be taken along")

func unfit(path, format string, args ...any) error {
	if path == "" {
		path = "."
	}
	return fmt.Errorf("%w: %.200q %s", ErrUnfit, path, fmt.Sprintf(format, args...))
}

// Path of entry i, below the root; empty: the root.
func (x *Index) Path(i int) string {
	var parts []string
	for ; i > 0; i = x.Entries[i].Parent {
		parts = append(parts, x.Entries[i].Name)
	}
	for a, b := 0, len(parts)-1; a < b; a, b = a+1, b-1 {
		parts[a], parts[b] = parts[b], parts[a]
	}
	return strings.Join(parts, "/")
}

// DataSize is how large the data file is that belongs to the index.
func (x *Index) DataSize() int64 {
	var at int64
	for i := range x.Entries {
		for _, e := range x.Entries[i].Extents {
			at += align(e.Length)
		}
	}
	return at
}

func align(n int64) int64 { return (n + Page - 1) &^ (Page - 1) }

// Check tells what is wrong with an index; nil: it can be unpacked.
func (x *Index) Check(l Limits) error {
	if n := len(x.Entries); n == 0 || n > l.Entries {
		return fmt.Errorf("%w: %d files, want 1 to %d", ErrUnfit, n, l.Entries)
	}
	c := checker{Index: x, left: l.Bytes, depth: make([]int, len(x.Entries)), length: make([]int, len(x.Entries)),
		names: make(map[name]bool, len(x.Entries))}
	for i := range x.Entries {
		if err := c.entry(i); err != nil {
			return err
		}
	}
	return nil
}

type name struct {
	parent int
	name   string
}

type checker struct {
	*Index
	left          int64
	depth, length []int // of paths, by entry
	names         map[name]bool
}

func (c *checker) entry(i int) error {
	e := &c.Entries[i]
	if err := c.place(i, e); err != nil {
		return err
	}
	bad := func(format string, args ...any) error { return unfit(c.Path(i), format, args...) }
	switch {
	case e.Mode&^0o7777 != 0:
		return bad("has the mode %#o", e.Mode)
	case e.UID > maxID || e.GID > maxID:
		return bad("is owned by %d:%d", e.UID, e.GID)
	case e.Nsec < 0 || e.Nsec >= 1e9:
		return bad("was modified at a time of %d nanoseconds", e.Nsec)
	case e.Opaque && (e.Kind != Dir || !c.Layer):
		return bad("is opaque")
	case e.Target != "" && e.Kind != Symlink, e.Of != 0 && e.Kind != Link, (e.Size != 0 || len(e.Extents) > 0) && e.Kind != File:
		return bad("has what only other kinds of files have")
	case len(e.Xattrs) > 0 && e.Kind != Dir && e.Kind != File:
		return bad("has extended attributes")
	}
	switch e.Kind {
	case Dir, FIFO, Socket:
	case File:
		if err := c.extents(e, bad); err != nil {
			return err
		}
	case Symlink:
		if e.Target == "" || len(e.Target) > maxPath || strings.IndexByte(e.Target, 0) >= 0 {
			return bad("is a link to %.200q", e.Target)
		}
	case Link:
		if e.Of < 1 || e.Of >= i {
			return bad("is another name of entry %d", e.Of)
		}
		if k := c.Entries[e.Of].Kind; k == Dir || k == Link || k == Whiteout {
			return bad("is another name of %.200q, which cannot have two", c.Path(e.Of))
		}
	case Whiteout:
		if !c.Layer {
			return bad("is a whiteout, and it is in no layer")
		}
	default:
		return bad("is of the unknown kind %d", e.Kind)
	}
	return xattrs(e, bad)
}

// place checks where an entry is.
func (c *checker) place(i int, e *Entry) error {
	if i == 0 {
		if e.Kind != Dir || e.Name != "" || e.Parent != 0 || e.Opaque {
			return unfit("", "is no root")
		}
		return nil
	}
	if e.Parent < 0 || e.Parent >= i || c.Entries[e.Parent].Kind != Dir {
		return unfit(e.Name, "is in entry %d, which is no directory before it", e.Parent)
	}
	if e.Name == "" || e.Name == "." || e.Name == ".." || len(e.Name) > maxName || strings.ContainsAny(e.Name, "/\x00") {
		return unfit(e.Name, "is no name")
	}
	c.depth[i], c.length[i] = c.depth[e.Parent]+1, c.length[e.Parent]+1+len(e.Name)
	if c.depth[i] > maxDepth || c.length[i] > maxPath {
		return unfit(e.Name, "is %d directories deep, by a path of %d bytes, want %d and %d at most", c.depth[i], c.length[i], maxDepth, maxPath)
	}
	n := name{e.Parent, e.Name}
	if c.names[n] {
		return unfit(c.Path(i), "comes twice")
	}
	c.names[n] = true
	return nil
}

func (c *checker) extents(e *Entry, bad func(string, ...any) error) error {
	var end int64
	for _, x := range e.Extents {
		if x.Offset < end || x.Length <= 0 || x.Length > e.Size || x.Offset > e.Size-x.Length {
			return bad("has content at %d of %d bytes, in a file of %d", x.Offset, x.Length, e.Size)
		}
		end = x.Offset + x.Length
		if n := align(x.Length); n <= 0 || n > c.left {
			return bad("has content beyond the limit")
		}
		c.left -= align(x.Length)
	}
	if e.Size < end {
		return bad("has a size of %d bytes", e.Size)
	}
	return nil
}

func xattrs(e *Entry, bad func(string, ...any) error) error {
	if len(e.Xattrs) > maxXattrs {
		return bad("has %d extended attributes, want %d at most", len(e.Xattrs), maxXattrs)
	}
	last := ""
	for _, x := range e.Xattrs {
		if !travels(x.Name) || len(x.Name) > maxName || strings.IndexByte(x.Name, 0) >= 0 || len(x.Value) > maxXattr || x.Name <= last {
			return bad("has the extended attribute %.200q of %d bytes", x.Name, len(x.Value))
		}
		last = x.Name
	}
	return nil
}

// travels tells which extended attributes are taken along, and taken from others: those that
// belong to the files' owner, and what programs may do. Security modules' labels are those
// of the node, and trusted ones its file systems' own.
func travels(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && len(name) > len("user.")
}
