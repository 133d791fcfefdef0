// Package repair ends the repair mode of TCP sockets. CRIU puts connections into it while it dumps
// them with tcp-established, and if it is killed they stay so: they neither send nor close.
//
// Sources: linux/tcp.h, net/ipv4/tcp.c. Needs Linux 5.6 (pidfd_getfd), CAP_SYS_PTRACE for the
// process, and CAP_NET_ADMIN in the user namespace of its network.
package repair

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Values of TCP_REPAIR.
const (
	on = 1
	// offQuietly sends no window probe: the peer is told nothing.
	offQuietly = -1
)

// End takes all sockets of the process that are in repair mode out of it, and gives their number.
// What is shared with other processes is theirs as well. A process that is gone has none. An error
// that is not ErrSockets: none was looked at.
//
// What cannot be done of one socket keeps nobody from the others: ErrSockets tells of all of those.
func End(pid int) (ended int, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list the files of process %d: %w", pid, err)
	}
	var sockets []int
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || !strings.HasPrefix(to, "socket:") {
			continue // closed meanwhile, or no socket
		}
		if n, err := strconv.Atoi(e.Name()); err == nil {
			sockets = append(sockets, n)
		}
	}
	return each(pid, sockets, func(n int) (bool, error) { return end(pidfd, n) })
}

// each goes through the files of a process, and tells of how many end said so.
func each(pid int, files []int, end func(n int) (bool, error)) (ended int, err error) {
	var errs []error
	for _, n := range files {
		was, err := end(n)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: file %d of process %d: %w", ErrSockets, n, pid, err))
		}
		if was && err == nil {
			ended++
		}
	}
	return ended, errors.Join(errs...)
}

// ErrSockets: some sockets could not be looked at, or be taken out of repair mode.
var ErrSockets = errors.New("end the repair mode of a socket")

// end tells whether file n is a socket that was in repair mode.
func end(pidfd, n int) (bool, error) {
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	// Other domains count their protocols anew, and a raw socket may be of TCP's.
	for _, is := range []struct {
		option int
		one    []int
	}{
		{unix.SO_DOMAIN, []int{unix.AF_INET, unix.AF_INET6}},
		{unix.SO_TYPE, []int{unix.SOCK_STREAM}},
		{unix.SO_PROTOCOL, []int{unix.IPPROTO_TCP}},
	} {
		if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, is.option); err != nil || !slices.Contains(is.one, got) {
			return false, err
		}
	}
	if mode, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR); err != nil || mode != on {
		return false, err
	}
	return true, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, offQuietly)
}
