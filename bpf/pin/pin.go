// Package pin keeps eBPF programs at work, and what they have counted, while the process that
// loaded them is away: their maps and links are pinned in a BPF file system.
//
// Maps are kept apart by their layout and links by the version of their programs. A process
// that comes back finds both and goes on; one with other programs takes the maps over, if
// their layout is its own, and replaces the links; one with another layout begins anew. Either
// way nothing of the older version stays.
package pin

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Set is one set of programs with their maps. A nil Set pins nothing.
type Set struct{ dir, maps, links string }

const (
	mapsPrefix  = "maps-"
	linksPrefix = "links-"
)

// Open prepares the directory dir of a BPF file system for the maps of spec; version tells
// programs apart that do not do the same, such as a digest of their object file. It changes
// spec so that its maps are pinned: load it with Options, and then call Replace. The error
// says so when dir is not in a BPF file system, or may be somebody else's to write to.
func Open(dir string, spec *ebpf.CollectionSpec, version string) (*Set, error) {
	layout, err := layoutOf(spec)
	if err != nil {
		return nil, fmt.Errorf("pin in %s: %w", dir, err)
	}
	s := &Set{dir: dir, maps: filepath.Join(dir, mapsPrefix+layout), links: filepath.Join(dir, linksPrefix+digest(layout, version))}
	if err := onBPF(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.maps, 0o700); err != nil {
		return nil, fmt.Errorf("pin maps: %w", err)
	}
	if err := ours(s.maps); err != nil {
		return nil, fmt.Errorf("pin maps: %w", err)
	}
	for _, name := range kept(spec) {
		spec.Maps[name].Pinning = ebpf.PinByName
		_, err := os.Lstat(filepath.Join(s.maps, spec.Maps[name].Name))
		if errors.Is(err, fs.ErrNotExist) { // what is linked would count in one that nobody reads
			err = unlinkAll(s.links)
		}
		if err != nil {
			return nil, fmt.Errorf("look for pinned map %s: %w", name, err)
		}
	}
	return s, nil
}

// ours tells whether nobody else can change what is in a directory, or is above it in its file
// system. Its root may be everybody's, with the sticky bit, as mount(8) makes that of a BPF file
// system.
func ours(dir string) error {
	for {
		var here, above unix.Stat_t
		if err := errors.Join(unix.Lstat(dir, &here), unix.Lstat(filepath.Dir(dir), &above)); err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		if here.Mode&unix.S_IFMT == unix.S_IFDIR && here.Dev != above.Dev {
			return nil
		}
		if here.Mode&unix.S_IFMT != unix.S_IFDIR || here.Uid != uint32(os.Geteuid()) || here.Mode&0o022 != 0 {
			return fmt.Errorf("%s has mode %#o and belongs to user %d, want a directory that user %d alone may write to: remove it, or pin elsewhere",
				dir, here.Mode, here.Uid, os.Geteuid())
		}
		dir = filepath.Dir(dir)
	}
}

// onBPF tells whether the nearest directory that there is lies in a BPF file system.
func onBPF(dir string) error {
	var stat unix.Statfs_t
	at := dir
	err := unix.Statfs(at, &stat)
	for errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		err = unix.Statfs(at, &stat)
	}
	if err != nil {
		return fmt.Errorf("look at the file system of %s: %w", at, err)
	}
	if stat.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is in no BPF file system (%s has type %#x, want %#x): mount one there, mount -t bpf bpf %s", dir, at, stat.Type, unix.BPF_FS_MAGIC, at)
	}
	return nil
}

// kept are the maps that are pinned: all but what the compiler makes of constants and globals.
func kept(spec *ebpf.CollectionSpec) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(spec.Maps)), func(n string) bool { return strings.HasPrefix(n, ".") })
}

// layoutOf is a digest of all that a map must agree in to be taken over.
func layoutOf(spec *ebpf.CollectionSpec) (string, error) {
	var parts []string
	for _, name := range kept(spec) {
		m := spec.Maps[name]
		parts = append(parts, fmt.Sprintf("%s %v %d %d %d %#x", name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags))
		for _, t := range []btf.Type{m.Key, m.Value} {
			if t == nil {
				continue
			}
			f := btf.GoFormatter{}
			text, err := f.TypeDeclaration("t", t)
			if err != nil {
				return "", fmt.Errorf("describe map %s: %w", name, err)
			}
			parts = append(parts, text)
		}
	}
	return digest(parts...), nil
}

// digest is short, as names in a BPF file system may not hold a point.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return fmt.Sprintf("%x", sum[:8])
}

// Options are for loading what Open was given.
func (s *Set) Options() *ebpf.CollectionOptions {
	if s == nil {
		return nil
	}
	return &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: s.maps}}
}

// Replace detaches the programs of other versions and forgets maps of another layout. Between
// it and Link nothing is attached of what was replaced.
func (s *Set) Replace() error {
	if s == nil {
		return nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("look for what older versions pinned: %w", err)
	}
	var errs []error
	for _, e := range entries {
		at := filepath.Join(s.dir, e.Name())
		own := strings.HasPrefix(e.Name(), mapsPrefix) || strings.HasPrefix(e.Name(), linksPrefix)
		if own && at != s.maps && at != s.links {
			if strings.HasPrefix(e.Name(), linksPrefix) {
				errs = append(errs, unlinkAll(at))
			}
			errs = append(errs, os.RemoveAll(at))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what older versions pinned: %w", err)
	}
	return nil
}

// unlinkAll detaches all links of a directory; none where there is no such directory.
func unlinkAll(dir string) error {
	names, err := linked(dir)
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, unlink(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// Link gives the link that is pinned under name, if good holds of it, and else attaches and
// pins one. To close it does not detach the program; Unlink does.
func (s *Set) Link(name string, good func(link.Link) bool, attach func() (link.Link, error)) (link.Link, error) {
	if s == nil {
		return attach()
	}
	at := filepath.Join(s.links, name)
	l, err := link.LoadPinnedLink(at, nil)
	switch {
	case err == nil && good(l):
		return l, nil
	case err == nil:
		l.Close()
		if err := unlink(at); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("load pinned link %s: %w", name, err)
	}
	if l, err = attach(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.links, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("pin link %s: %w", name, err), l.Close())
	}
	if err := l.Pin(at); err != nil {
		return nil, errors.Join(fmt.Errorf("pin link %s: %w", name, err), l.Close())
	}
	return l, nil
}

// Unlink detaches the program whose link is pinned under name; one that is not is no error.
// Programs of network devices are off when it returns; those of tracepoints soon after, once
// the link is closed, too: the kernel has no other way for them.
func (s *Set) Unlink(name string) error {
	if s == nil {
		return nil
	}
	return unlink(filepath.Join(s.links, name))
}

func unlink(at string) error {
	if l, err := link.LoadPinnedLink(at, nil); err == nil {
		err := l.Detach()
		if err = errors.Join(ignore(err, link.ErrNotSupported), l.Close()); err != nil {
			return fmt.Errorf("detach link %s: %w", at, err)
		}
	}
	if err := ignore(os.Remove(at), fs.ErrNotExist); err != nil {
		return fmt.Errorf("unpin link %s: %w", at, err)
	}
	return nil
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// Detach detaches all programs of this version. Their maps stay.
func (s *Set) Detach() error {
	if s == nil {
		return nil
	}
	return unlinkAll(s.links)
}

// Linked lists the names of the pinned links of this version.
func (s *Set) Linked() ([]string, error) {
	if s == nil {
		return nil, nil
	}
	return linked(s.links)
}

func linked(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list pinned links: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}
