package inspect

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/ghost-file"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"
	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// files checks what the processes hold open. CRIU opens and makes files as root, by their
// paths, and makes deleted ones while the node's own files are in reach.
type files struct {
	*bundle
	*mounts
	links map[uint32]links // of each tmpfs, by its file system
	ids   *criu_core.TaskKobjIdsEntry
}

func (f *files) open(e *fdinfo.FileEntry) error {
	needs := func(what string, any ...int) error {
		for _, c := range any {
			if f.all.has(c) {
				return nil
			}
		}
		return refuse(differs, "those that need no more than the container's capabilities: "+f.all.String(), "file %d is %s", e.GetId(), what)
	}
	var err error
	switch e.GetType() {
	case fdinfo.FdTypes_REG:
		return f.regular(e.GetReg())
	case fdinfo.FdTypes_PIPE, fdinfo.FdTypes_FIFO, fdinfo.FdTypes_EVENTFD, fdinfo.FdTypes_EVENTPOLL, fdinfo.FdTypes_SIGNALFD,
		fdinfo.FdTypes_TTY, fdinfo.FdTypes_TIMERFD, fdinfo.FdTypes_MEMFD, fdinfo.FdTypes_PIDFD:
		return nil
	case fdinfo.FdTypes_INETSK:
		s := e.GetIsk()
		if s.GetType() == unix.SOCK_RAW {
			err = needs(fmt.Sprintf("a raw socket (family %d, protocol %d)", s.GetFamily(), s.GetProto()), unix.CAP_NET_RAW)
		}
		return first(err, f.socket(s.GetNsId(), s.GetOpts(), needs))
	case fdinfo.FdTypes_PACKETSK:
		s := e.GetPsk()
		return first(needs(fmt.Sprintf("a packet socket (type %d, protocol %#x)", s.GetType(), s.GetProtocol()), unix.CAP_NET_RAW),
			f.socket(s.GetNsId(), s.GetOpts(), needs))
	case fdinfo.FdTypes_NETLINKSK:
		return f.socket(e.GetNlsk().GetNsId(), e.GetNlsk().GetOpts(), needs)
	case fdinfo.FdTypes_UNIXSK:
		return first(f.socket(e.GetUsk().GetNsId(), e.GetUsk().GetOpts(), needs), f.unixSocket(e.GetUsk()))
	case fdinfo.FdTypes_TUNF:
		return first(needs("a tun or tap device "+strconv.Quote(e.GetTunf().GetNetdev()), unix.CAP_NET_ADMIN), f.socket(e.GetTunf().GetNsId(), nil, needs))
	case fdinfo.FdTypes_BPFMAP:
		return needs("a BPF map "+strconv.Quote(e.GetBpf().GetMapName()), unix.CAP_BPF, unix.CAP_SYS_ADMIN)
	case fdinfo.FdTypes_INOTIFY:
		for _, w := range e.GetIfy().GetWd() {
			if dots(w.GetFHandle().GetPath()) {
				return refuse(tampered, "a path without dots", "file %d watches %q", e.GetId(), w.GetFHandle().GetPath())
			}
		}
		return nil
	case fdinfo.FdTypes_FANOTIFY:
		return needs("a fanotify group", unix.CAP_SYS_ADMIN)
	case fdinfo.FdTypes_NS:
		if id := e.GetNsf().GetNsId(); !slices.Contains(spaces(f.ids), id) {
			return refuse(tampered, fmt.Sprintf("those of its processes: %v", spaces(f.ids)), "file %d is the namespace %d", e.GetId(), id)
		}
		return nil
	}
	return refuse(tampered, "those kinds that runc has CRIU dump", "file %d is of the kind %v", e.GetId(), e.GetType())
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// socket checks what all sockets have: marks are for who administers the node's network.
func (f *files) socket(ns uint32, o *sk_opts.SkOptsEntry, needs func(string, ...int) error) error {
	if ns != 0 && ns != f.ids.GetNetNsId() {
		return refuse(tampered, fmt.Sprintf("that of its processes, %d", f.ids.GetNetNsId()), "a socket in the network namespace %d", ns)
	}
	if o.GetSoMark() != 0 {
		return needs(fmt.Sprintf("a socket that marks packets (%#x)", o.GetSoMark()), unix.CAP_NET_ADMIN, unix.CAP_NET_RAW)
	}
	return nil
}

func spaces(ids *criu_core.TaskKobjIdsEntry) []uint32 {
	all := []uint32{ids.GetPidNsId(), ids.GetNetNsId(), ids.GetIpcNsId(), ids.GetUtsNsId(), ids.GetMntNsId(), ids.GetUserNsId(),
		ids.GetCgroupNsId(), ids.GetTimeNsId()}
	return slices.DeleteFunc(all, func(id uint32) bool { return id == 0 })
}

// regular checks a file by its path. A dump has the path that Linux gives, where no part is
// a link any more; CRIU would follow one, in /proc to its own files, which are the node's.
func (f *files) regular(r *regfile.RegFileEntry) error {
	name := r.GetName()
	if !path.IsAbs(name) || path.Clean(name) != name {
		return refuse(tampered, "an absolute path without dots", "file %d is %q", r.GetId(), name)
	}
	if r.GetExt() {
		return refuse(tampered, "files of the container", "file %d, %q, is from outside", r.GetId(), name)
	}
	where := f.around(name)
	if id := r.GetMntId(); id != -1 && uint32(id) != f.entries[where].GetMntId() {
		return refuse(tampered, fmt.Sprintf("%d (%s)", f.entries[where].GetMntId(), where), "file %d, %q, is in the mount %d", r.GetId(), name, id)
	}
	const itself = unix.O_PATH | unix.O_NOFOLLOW // the link is what is open
	if link := f.link(name, r.GetFlags()&itself != itself); link != "" {
		return refuse(tampered, "paths without links", "file %d, %q, lies behind the link %s", r.GetId(), name, link)
	}
	return nil
}

// link gives the first part of a path that is a link, or "".
func (f *files) link(name string, last bool) string {
	where := f.around(name)
	e, p := f.entries[where], f.places[where]
	rel := strings.TrimPrefix(name, where)
	switch {
	case p.kind == root:
		return onNode(f.rootfs, name, last)
	case p.kind == bind && p.source != "":
		dir, err := securejoin.SecureJoin(f.host, p.source)
		if err != nil {
			return name
		}
		return onNode(dir, rel, last)
	case p.kind == bind, e.GetExtKey() != "":
		return "" // a hierarchy of control groups, or a device: they hold no links
	case typeOf(e) == mnt.Fstype_TMPFS:
		return f.links[e.GetRootDev()].through(rel, last)
	case typeOf(e) == mnt.Fstype_PROC:
		return magic(path.Join(e.GetRoot(), rel))
	}
	return ""
}

// onNode is link for what the node already has.
func onNode(dir, rel string, last bool) string {
	parts := strings.Split(strings.Trim(rel, "/"), "/")
	for i := range parts {
		part := filepath.Join(append([]string{dir}, parts[:i+1]...)...)
		info, err := os.Lstat(part)
		if err != nil {
			return "" // CRIU finds none either
		}
		if info.Mode()&os.ModeSymlink != 0 && (last || i+1 < len(parts)) {
			return path.Join("/", path.Join(parts[:i+1]...))
		}
	}
	return ""
}

// magic gives the part of a path in /proc that leads out of it (proc_pid(5)).
func magic(p string) string {
	parts := strings.Split(strings.Trim(p, "/"), "/")
	if parts[0] == "self" || parts[0] == "thread-self" {
		return path.Join("/proc", parts[0])
	}
	rest := parts[1:]
	if len(rest) > 2 && rest[0] == "task" {
		rest = rest[2:]
	}
	if len(rest) == 0 {
		return ""
	}
	switch rest[0] {
	case "exe", "cwd", "root":
		return path.Join("/proc", p)
	case "fd", "map_files", "ns":
		if len(rest) > 1 {
			return path.Join("/proc", p)
		}
	}
	return ""
}

// unixSocket checks where a socket is bound: by the path that the program gave, through
// links of its image.
func (f *files) unixSocket(s *sk_unix.UnixSkEntry) error {
	name := string(s.GetName())
	if name == "" || name[0] == 0 {
		return nil
	}
	name = strings.TrimRight(name, "\x00")
	if dots(s.GetNameDir()) {
		return refuse(tampered, "a path without dots", "socket %d is bound in %q", s.GetId(), s.GetNameDir())
	}
	if !path.IsAbs(name) {
		name = path.Join("/", s.GetNameDir(), name)
	}
	resolved, err := securejoin.SecureJoin(f.rootfs, name)
	if err != nil {
		return refuse(tampered, "a path that can be resolved", "socket %d is bound at %q: %v", s.GetId(), name, err)
	}
	resolved = path.Join("/", strings.TrimPrefix(resolved, f.rootfs))
	for _, p := range []string{path.Clean(name), resolved} {
		e := f.entries[f.around(p)]
		if e.GetExtKey() == "" && (typeOf(e) == mnt.Fstype_PROC || typeOf(e) == mnt.Fstype_TMPFS && f.places[f.around(p)].kind != root && f.link(p, true) != "") {
			return refuse(tampered, "a place for files, not behind links in /dev or /proc", "socket %d is bound at %q (%s)", s.GetId(), name, p)
		}
	}
	return nil
}

// ghost checks a deleted file, which CRIU makes anew.
func (f *files) ghost(g *ghost_file.GhostFileEntry) error {
	const allowed = "a file, a directory, a pipe or a socket"
	switch kind := g.GetMode() & unix.S_IFMT; kind {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO, unix.S_IFSOCK:
		return nil
	case unix.S_IFCHR, unix.S_IFBLK:
		name := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[kind]
		dev := uint64(g.GetRdev())
		return f.node("of a deleted file", name, int64(unix.Major(dev)), int64(unix.Minor(dev)))
	case unix.S_IFLNK:
		return refuse(tampered, allowed, "a deleted link to %q", g.GetSymlnkTarget())
	default:
		return refuse(tampered, allowed, "a deleted file of mode %#o", g.GetMode())
	}
}
