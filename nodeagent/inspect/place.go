package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/rootfs"
)

// mountSpec is one of a bundle's mounts.
type mountSpec struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

// kind is how CRIU comes by a mount.
type kind int

const (
	root     kind = iota // the container's root file system, which runc has ready
	bind                 // from the node, by a key that runc resolves
	own                  // made anew by its type
	masked               // /dev/null, or an empty directory
	readonly             // a part of the mount that it lies in
)

// place is what the container has at a mount point.
type place struct {
	kind
	types  []mnt.Fstype // own: those that it can be of
	flags  uint32       // those of restrict that are set
	source string       // bind: what of the node
	// shared and slave tell whether mounts are propagated from it, and to it.
	shared, slave bool
	// optional: the dump may come without it.
	optional bool
}

// types are the file systems that runc makes for a container, by their names in a bundle.
var types = map[string][]mnt.Fstype{
	"proc": {mnt.Fstype_PROC}, "sysfs": {mnt.Fstype_SYSFS}, "tmpfs": {mnt.Fstype_TMPFS},
	"devpts": {mnt.Fstype_DEVPTS}, "mqueue": {mnt.Fstype_MQUEUE}, "cgroup2": {mnt.Fstype_CGROUP2},
	// A tmpfs that holds the hierarchies of version 1, or version 2.
	"cgroup": {mnt.Fstype_TMPFS, mnt.Fstype_CGROUP, mnt.Fstype_CGROUP2},
}

// devNull is the key by which runc lets CRIU mask files.
const devNull = "/dev/null"

// expected gives what the bundle has, by where it lies in the container.
func (b *bundle) expected() (map[string]*place, error) {
	all := map[string]*place{}
	top := &place{kind: root, shared: b.propagates("shared"), slave: !b.propagates("private")}
	if b.Root.Readonly {
		top.flags = unix.MS_RDONLY
	}
	for _, p := range b.Linux.ReadonlyPaths {
		all[path.Clean(p)] = &place{kind: readonly, flags: unix.MS_RDONLY, optional: !b.exists(p), slave: true}
	}
	for _, p := range b.Linux.MaskedPaths {
		all[path.Clean(p)] = &place{kind: masked, optional: !b.exists(p) || ofOneCPU.MatchString(p)}
	}
	for _, m := range b.Mounts {
		where, err := rootfs.Place(b.rootfs, m.Destination)
		if err != nil {
			return nil, fmt.Errorf("inspect images: %w", err)
		}
		p := &place{kind: own, types: types[m.Type], shared: top.shared, slave: b.propagates("slave")}
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			p.kind, p.source, p.slave = bind, m.Source, true
		}
		p.options(m.Options)
		all[where] = p
	}
	if b.Process.Terminal {
		all["/dev/console"] = &place{kind: readonly, optional: true}
	}
	all["/"] = top
	return all, nil
}

// stayed refuses files by which a mount lies elsewhere than where runc has found its place, before those
// files came: CRIU would be given another mount for the one that is looked at here.
func (b *bundle) stayed(begun []string) error {
	if len(begun) == 0 {
		return nil // runc looks when the files are there, as is done here
	}
	if len(begun) != len(b.Mounts) {
		return fmt.Errorf("inspect images: runc has begun with %d mounts, and the waiting container's bundle has %d", len(begun), len(b.Mounts))
	}
	for i, m := range b.Mounts {
		now, err := rootfs.Place(b.rootfs, m.Destination)
		if err != nil {
			return fmt.Errorf("inspect images: %w", err)
		}
		if now != begun[i] {
			return fmt.Errorf("%w: %w", ErrRefused, refuse("leave the links on its way alone in the container's files, or start the pod anew", begun[i],
				"with the files that came the mount at %s lies at %s", m.Destination, now))
		}
	}
	return nil
}

func (b *bundle) propagates(how string) bool {
	return strings.TrimPrefix(b.Linux.RootfsPropagation, "r") == how
}

// ofOneCPU is masked for each processor of its node: that of the source may have fewer.
var ofOneCPU = regexp.MustCompile(`^/sys/devices/system/cpu/cpu[0-9]+/thermal_throttle$`)

// exists tells whether the node has what the container is not to see, or not to change:
// runc leaves out what the kernel does not have.
func (b *bundle) exists(p string) bool {
	root := b.rootfs
	if strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/") {
		root = b.host
	}
	_, err := os.Lstat(filepath.Join(root, p))
	return !errors.Is(err, fs.ErrNotExist)
}

// options reads a bundle's options of a mount (runtime-spec, config.md), later ones over earlier.
func (p *place) options(options []string) {
	for _, o := range options {
		switch o {
		case "ro", "rro":
			p.flags |= unix.MS_RDONLY
		case "rw", "rrw":
			p.flags &^= unix.MS_RDONLY
		case "nosuid", "rnosuid":
			p.flags |= unix.MS_NOSUID
		case "suid", "rsuid":
			p.flags &^= unix.MS_NOSUID
		case "nodev", "rnodev":
			p.flags |= unix.MS_NODEV
		case "dev", "rdev":
			p.flags &^= unix.MS_NODEV
		case "noexec", "rnoexec":
			p.flags |= unix.MS_NOEXEC
		case "exec", "rexec":
			p.flags &^= unix.MS_NOEXEC
		case "private", "rprivate", "unbindable", "runbindable":
			p.shared, p.slave = false, false
		case "slave", "rslave":
			p.shared, p.slave = false, true
		case "shared", "rshared":
			p.shared, p.slave = true, true
		}
	}
}

func (p *place) words() string {
	switch p.kind {
	case root:
		return "its root file system"
	case bind:
		return p.source + " of the node, " + flagNames(p.flags)
	case masked:
		return "it is masked"
	case readonly:
		return "it is read-only"
	default:
		return fmt.Sprintf("%v, %s", p.types, flagNames(p.flags))
	}
}

func flagNames(flags uint32) string {
	names := []string{"writable"}
	if flags&unix.MS_RDONLY != 0 {
		names[0] = "read-only"
	}
	for _, f := range []struct {
		flag uint32
		name string
	}{{unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"}} {
		if flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ", ")
}
