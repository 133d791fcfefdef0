package examine

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/movable"
)

// files examines a table of descriptors, /proc/PID/task/TID/fd.
func (s *survey) files(dir, who string, mounts map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ended(err)
	}
	for _, e := range entries {
		if err := s.descriptor(dir, e.Name(), who, mounts); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

func (s *survey) descriptor(dir, n, who string, mounts map[string]bool) error {
	path := filepath.Join(dir, n)
	to, err := os.Readlink(path)
	if err != nil {
		return ended(err)
	}
	kind, rest, special := strings.Cut(to, ":")
	switch {
	case special && kind == "socket":
		return s.socket(path, n, who)
	case special && kind == "anon_inode":
		s.anonymous(rest, "descriptor "+n, who)
		return nil
	case special && !strings.HasPrefix(to, "/"):
		return nil // pipes and namespaces: CRIU takes them
	}
	return s.file(dir, n, to, who, mounts)
}

// sockets are the names of the kernel's protocols whose sockets CRIU dumps.
var sockets = map[string]bool{
	"TCP": true, "TCPv6": true, "UDP": true, "UDPv6": true, "UDP-Lite": true, "UDPLITEv6": true, "RAW": true, "RAWv6": true,
	"PING": true, "PINGv6": true, "UNIX": true, "UNIX-STREAM": true, "NETLINK": true, "PACKET": true,
}

// socket asks the kernel for the protocol's name, which it tells of any process's socket as
// an attribute of the descriptor.
func (s *survey) socket(path, n, who string) error {
	buf := make([]byte, 64)
	size, err := unix.Getxattr(path, "system.sockprotoname", buf)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) {
			return errGone
		}
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODATA) {
			return nil // a kernel that does not tell
		}
		return &fs.PathError{Op: "getxattr", Path: path, Err: err}
	}
	proto := string(bytes.TrimRight(buf[:size], "\x00"))
	switch {
	case proto == "MPTCP" || proto == "MPTCPv6":
		s.saw(movable.Found(movable.ReasonMPTCP, "descriptor %s of %s is an MPTCP socket, which CRIU cannot dump", n, who).
			But("Go programs listen with MPTCP by default: set the environment variable GODEBUG=multipathtcp=0; in others open TCP sockets"))
	case proto != "" && !sockets[proto]:
		s.saw(movable.Found(movable.ReasonSocket, "descriptor %s of %s is a socket of the protocol %s, which CRIU cannot dump", n, who, proto).
			But("close it, or do without that protocol"))
	}
	return nil
}

// anonymous are the files without a place that CRIU dumps.
var anonymous = map[string]bool{
	"[eventpoll]": true, "[eventfd]": true, "[signalfd]": true, "[timerfd]": true, "inotify": true, "[inotify]": true,
	"[fanotify]": true, "[pidfd]": true,
}

// known are those that it does not, with a reason of their own.
var known = map[string]struct{ reason, what, remedy string }{
	"[io_uring]":     {movable.ReasonIOURing, "an io_uring", "let the program use epoll or threads instead; Node.js does under the seccomp profile RuntimeDefault"},
	"[perf_event]":   {movable.ReasonPerf, "a perf event", "end the profiler"},
	"bpf-map":        {movable.ReasonBPF, "a BPF map", "BPF objects belong to the node's kernel: close them"},
	"bpf-prog":       {movable.ReasonBPF, "a BPF program", "BPF objects belong to the node's kernel: close them"},
	"bpf_link":       {movable.ReasonBPF, "a BPF link", "BPF objects belong to the node's kernel: close them"},
	"[userfaultfd]":  {movable.ReasonUserfaultfd, "a userfaultfd", "let the program do without, most garbage collectors that use one have a switch"},
	"seccomp notify": {movable.ReasonSeccompNotify, "a seccomp listener", "a sandbox that supervises system calls cannot be moved"},
}

func (s *survey) anonymous(name, where, who string) {
	if anonymous[name] {
		return
	}
	if k, ok := known[name]; ok {
		s.saw(movable.Found(k.reason, "%s of %s is %s, which CRIU cannot dump", where, who, k.what).But(k.remedy))
		return
	}
	s.saw(movable.Found(movable.ReasonDescriptor, "%s of %s is %s, which CRIU cannot dump", where, who, strings.Trim(name, "[]")).
		But("let the program close it"))
}

// file examines what has a path.
func (s *survey) file(dir, n, to, who string, mounts map[string]bool) error {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, n), &st); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			return errGone
		}
		return &fs.PathError{Op: "stat", Path: filepath.Join(dir, n), Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFCHR:
		if major, minor := unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)); !dumpable(major, minor) {
			s.saw(movable.Found(movable.ReasonDevice, "descriptor %s of %s is the device %s (%d:%d), whose state cannot be taken along", n, who, to, major, minor).
				But("close it before the move: a pod that works with a device has to be made anew on another node"))
		}
		return nil
	case strings.HasPrefix(to, "/secretmem"):
		s.saw(movable.Found(movable.ReasonSecretMemory, "descriptor %s of %s is secret memory (memfd_secret), which not even CRIU can read", n, who).
			But("keep such secrets in ordinary memory, or do not move the pod"))
		return nil
	case strings.HasPrefix(to, "/memfd:"):
		return nil // on no mount, but CRIU knows them
	}
	mount := field(readInfo(dir, n), "mnt_id")
	switch {
	case mount != "" && !mounts[mount]:
		s.saw(movable.Found(movable.ReasonFileOutside, "descriptor %s of %s is %s, on no file system of the container: a message queue, or a file that came from outside", n, who, to).
			But("let the program close it"))
	case st.Nlink == 0 && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Blocks*512 > layout.GhostLimit:
		s.saw(movable.Found(movable.ReasonLargeDeletedFile, "descriptor %s of %s is %s, %d KiB in a file that has no name any more: %d KiB are taken along", n, who, to, st.Blocks/2, layout.GhostLimit>>10).
			But("let the program close deleted files, or keep their names"))
	case dated.MatchString(to):
		s.saw(movable.Found(movable.ReasonVolumeFile, "descriptor %s of %s is %s, a file of a ConfigMap, Secret or projected volume: its path has the time of its mounting in it, and is another on every node", n, who, to).
			But("let the program close it; a shell keeps the script open that it runs: use sh -c with the script's text"))
	}
	return nil
}

// dated is how kubelet names the directory that the files of such a volume lie in, a new one
// whenever they change (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go).
var dated = regexp.MustCompile(`/\.\.\d{4}(_\d\d){5}\.\d+/`)

// dumpable are the character devices that CRIU opens anew by their path: those of memory
// (null, zero, random, kmsg …), terminals, and tun, which has no state while it is not bound.
func dumpable(major, minor uint32) bool {
	return major == 1 || major == 5 || major >= 136 && major <= 143 || major == 10 && minor == 200
}

// readInfo is /proc/PID/task/TID/fdinfo/N for the descriptor in .../fd.
func readInfo(dir, n string) string {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "fdinfo", n))
	if err != nil {
		return ""
	}
	return string(data)
}

// mountIDs are the file systems that a process sees, by the first field of its mountinfo.
func mountIDs(path string) (map[string]bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, unix.EINVAL) {
			return nil, errGone // a zombie has no mounts any more
		}
		return nil, ended(err)
	}
	found := map[string]bool{}
	for _, line := range strings.Split(string(data), "\n") {
		if id, _, ok := strings.Cut(line, " "); ok {
			found[id] = true
		}
	}
	return found, nil
}

// mappings examines what is mapped and not open any more.
func (s *survey) mappings(path, who string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return ended(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		// address perms offset dev inode path; the path may hold spaces.
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		to := strings.Join(f[5:], " ")
		switch {
		case strings.HasPrefix(to, "anon_inode:"):
			s.anonymous(strings.TrimPrefix(to, "anon_inode:"), "a mapping", who)
		case strings.HasPrefix(to, "/secretmem"):
			s.saw(movable.Found(movable.ReasonSecretMemory, "a mapping of %s is secret memory (memfd_secret), which not even CRIU can read", who).
				But("keep such secrets in ordinary memory, or do not move the pod"))
		}
	}
	return nil
}
