package fabric

import (
	"slices"

	"golang.org/x/sys/unix"
)

// refresh takes over ports that were added or replaced.
func (l *loop) refresh() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.version == l.s.version {
		return
	}
	l.version = l.s.version
	l.letGo()
	for _, p := range l.s.ports {
		l.fds = append(l.fds, unix.PollFd{Fd: int32(hold(p)), Events: unix.POLLIN})
	}
	l.fds = append(l.fds, unix.PollFd{Fd: int32(l.s.wakeFD), Events: unix.POLLIN})
	l.links = make([][]*link, len(l.s.links))
	for i := range l.links {
		l.links[i] = slices.Clone(l.s.links[i])
	}
	clear(l.table)
}

// hold gives a descriptor of the loop's own, so that the number cannot become another file
// while the loop uses it, or -1 for a port whose file was closed.
func hold(p Port) int {
	fd := -1
	conn, err := p.File.SyscallConn()
	if err != nil {
		return -1
	}
	// Control keeps a concurrent Close away while the number is in use.
	_ = conn.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err != nil || fd < 0 {
		return -1
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1
	}
	return fd
}

// letGo closes what hold gave.
func (l *loop) letGo() {
	for port := range len(l.fds) - 1 {
		l.lose(port)
	}
	l.fds = l.fds[:0]
}

// lose leaves a port out until Attach replaces it.
func (l *loop) lose(port int) {
	if fd := &l.fds[port]; fd.Fd >= 0 {
		unix.Close(int(fd.Fd))
		fd.Fd = -1
	}
}
