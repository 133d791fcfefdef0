package inspect

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"golang.org/x/sys/unix"
)

// restrict are the flags of a mount that take something away; plain are all that mean no
// more than how it may be used. CRIU hands what is set to mount(2), which would take others
// for orders: MS_BIND binds a directory of the node.
const (
	restrict  = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	propagate = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
	plain     = restrict | propagate | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME | unix.MS_STRICTATIME | unix.MS_NOSYMFOLLOW
	plainOfFS = unix.MS_RDONLY | unix.MS_SYNCHRONOUS | unix.MS_MANDLOCK | unix.MS_DIRSYNC | unix.MS_LAZYTIME | unix.MS_POSIXACL | unix.MS_I_VERSION
)

// mounts are a dump's, held against the bundle's.
type mounts struct {
	entries map[string]*mnt.MntEntry
	places  map[string]*place
}

// mounts checks a container's mounts as a whole: each is one that the bundle has, made as
// runc makes it, and none of those is missing.
func (b *bundle) mounts(entries []*mnt.MntEntry) (*mounts, error) {
	places, err := b.expected()
	if err != nil {
		return nil, err
	}
	m := &mounts{entries: map[string]*mnt.MntEntry{}, places: places}
	ids := map[uint32]bool{}
	for _, e := range entries {
		if e.GetMountpoint() != path.Clean(e.GetMountpoint()) || !path.IsAbs(e.GetMountpoint()) {
			return nil, refuse(tampered, "an absolute path without dots", "a mount at %q", e.GetMountpoint())
		}
		if m.entries[e.GetMountpoint()] != nil || ids[e.GetMntId()] {
			return nil, refuse(tampered, "one at a place, each with a number of its own", "a second mount at %s (number %d)", e.GetMountpoint(), e.GetMntId())
		}
		m.entries[e.GetMountpoint()], ids[e.GetMntId()] = e, true
	}
	for where := range places {
		if m.entries[where] == nil && !places[where].optional {
			return nil, refuse(differs, "what the container has there: "+places[where].words(), "no mount at %s", where)
		}
	}
	devices := map[uint32]string{}
	for _, where := range slices.Sorted(maps.Keys(m.entries)) {
		if err := m.check(b, where); err != nil {
			return nil, err
		}
		if group := m.group(where); group != devNull {
			dev := m.entries[where].GetRootDev()
			if first, ok := devices[dev]; ok && first != group {
				// CRIU binds one from the other, and with it goes round what that may not.
				return nil, refuse(tampered, "a file system of its own", "the mount at %s is of the file system %d, which is that of %s", where, dev, first)
			}
			devices[dev] = group
		}
	}
	return m, m.twice()
}

// check holds one mount against its place.
func (m *mounts) check(b *bundle, where string) error {
	e, p := m.entries[where], m.at(b, where)
	if p == nil {
		return refuse(differs, "those of the container's specification", "a mount at %s (%v from %s of %q)", where, typeOf(e), e.GetRoot(), e.GetSource())
	}
	m.places[where] = p
	if e.SbFlags == nil || e.GetSbFlags()&^plainOfFS != 0 || e.GetFlags()&^plain != 0 {
		return refuse(tampered, fmt.Sprintf("%#x and %#x", plain, plainOfFS), "the mount at %s has flags %#x and, for its file system, %#x",
			where, e.GetFlags(), e.GetSbFlags())
	}
	if e.GetWithPlugin() || e.GetDeleted() || e.GetExtMount() || e.GetFsname() != "" {
		return refuse(tampered, "none of that", "the mount at %s wants a plugin (%t), a deleted source (%t), an old key (%t), a file system by name (%q)",
			where, e.GetWithPlugin(), e.GetDeleted(), e.GetExtMount(), e.GetFsname())
	}
	want := p.flags
	if p.kind == own && typeOf(e) == mnt.Fstype_TMPFS && slices.Contains(p.types, mnt.Fstype_CGROUP) {
		want &^= unix.MS_RDONLY // runc leaves the directory of the hierarchies writable
	}
	if want&^e.GetFlags() != 0 {
		return refuse(differs, flagNames(want), "the mount at %s is %s", where, flagNames(e.GetFlags()))
	}
	if !p.shared && (e.GetSharedId() != 0 || e.GetFlags()&unix.MS_SHARED != 0) || !p.slave && e.GetMasterId() != 0 {
		return refuse(differs, fmt.Sprintf("to share: %t, to receive: %t", p.shared, p.slave), "the mount at %s shares mounts with the group %d, and receives those of %d",
			where, e.GetSharedId(), e.GetMasterId())
	}
	if err := m.parent(where); err != nil {
		return err
	}
	return m.source(where)
}

// at finds the place of a mount, or nil.
func (m *mounts) at(b *bundle, where string) *place {
	if p := m.places[where]; p != nil {
		return p
	}
	e := m.entries[where]
	if up := m.places[path.Dir(where)]; up != nil && up.kind == own && slices.Contains(up.types, mnt.Fstype_CGROUP) {
		// A hierarchy of version 1: which there are is the node's.
		p := &place{kind: bind, flags: up.flags, slave: true}
		if e.GetExtKey() == "" {
			p.kind, p.types = own, []mnt.Fstype{mnt.Fstype_CGROUP, mnt.Fstype_CGROUP2}
		}
		return p
	}
	if b.devicePath(where) && e.GetExtKey() == where {
		return &place{kind: bind, source: where, slave: true}
	}
	if strings.HasPrefix(where, "/proc/") || strings.HasPrefix(where, "/sys/") {
		return &place{kind: masked} // one more is masked on the source
	}
	return nil
}

// parent wants a mount to lie in the one around it: elsewhere it would be covered by that.
func (m *mounts) parent(where string) error {
	e := m.entries[where]
	if where == "/" {
		return nil
	}
	if around := m.around(path.Dir(where)); m.entries[around].GetMntId() != e.GetParentMntId() {
		return refuse(tampered, fmt.Sprintf("%d (%s)", m.entries[around].GetMntId(), around), "the mount at %s lies in %d", where, e.GetParentMntId())
	}
	return nil
}

// around gives the mount point that a path lies in or is.
func (m *mounts) around(p string) string {
	for m.entries[p] == nil && p != "/" {
		p = path.Dir(p)
	}
	return p
}

// source checks what is mounted.
func (m *mounts) source(where string) error {
	e, p := m.entries[where], m.places[where]
	key, allowed, ok := "", "", true
	switch p.kind {
	case root:
	case bind:
		key = where
	case own:
		allowed = fmt.Sprintf("all of a %v", p.types)
		ok = slices.Contains(p.types, typeOf(e)) && (e.GetRoot() == "/" || typeOf(e) == mnt.Fstype_CGROUP || typeOf(e) == mnt.Fstype_CGROUP2)
	case masked:
		if e.GetExtKey() != "" {
			key = devNull
			break
		}
		allowed = devNull + " or an empty read-only directory"
		ok = typeOf(e) == mnt.Fstype_TMPFS && e.GetRoot() == "/" && e.GetFlags()&unix.MS_RDONLY != 0
	case readonly:
		up := m.around(path.Dir(where))
		around := m.entries[up]
		want := path.Join(around.GetRoot(), strings.TrimPrefix(where, up))
		if where == "/dev/console" {
			around, want = m.entries["/dev/pts"], "/"+path.Base(e.GetRoot())
		}
		allowed = fmt.Sprintf("%v, %s of the file system %d", typeOf(around), want, around.GetRootDev())
		ok = around != nil && typeOf(e) == typeOf(around) && e.GetRootDev() == around.GetRootDev() && e.GetRoot() == want
	}
	if e.GetExtKey() != key {
		return refuse(tampered, fmt.Sprintf("%q", key), "the mount at %s is of what runc calls %q", where, e.GetExtKey())
	}
	if !ok {
		return refuse(tampered, allowed, "the mount at %s is %v, %s of the file system %d", where, typeOf(e), e.GetRoot(), e.GetRootDev())
	}
	return nil
}

// group tells which mounts may be of one file system: only they are bound from each other.
func (m *mounts) group(where string) string {
	switch p := m.places[where]; p.kind {
	case root, bind:
		return "the node's"
	case masked:
		if m.entries[where].GetExtKey() == devNull {
			return devNull
		}
		return "what is masked"
	case readonly:
		if where == "/dev/console" {
			return m.group("/dev/pts")
		}
		return m.group(m.around(path.Dir(where)))
	default:
		return where
	}
}

// twice refuses what CRIU (4.2) would restore writable: of two mounts from the node with one
// file system and the same flags, one a part of the other, it forgets the flags of one.
func (m *mounts) twice() error {
	for where, e := range m.entries {
		if p := m.places[where]; p.kind != bind || p.flags == 0 {
			continue
		}
		for other, o := range m.entries {
			if o == e || o.GetRootDev() != e.GetRootDev() || (o.GetFlags()^e.GetFlags())&^propagate != 0 {
				continue
			}
			if within(e.GetRoot(), o.GetRoot()) {
				return refuse("mount the volume once, or start the pod anew", "one read-only mount of a directory, since CRIU would restore a second one writable",
					"the mounts at %s and %s are of the same directory (%s and %s) and %s", where, other, e.GetRoot(), o.GetRoot(), flagNames(e.GetFlags()))
			}
		}
	}
	return nil
}

func typeOf(e *mnt.MntEntry) mnt.Fstype { return mnt.Fstype(e.GetFstype()) }

func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}
