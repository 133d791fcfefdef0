package routetime

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// udpHeader is the length of what a filter of a UDP socket sees before the payload.
const udpHeader = 8

// Filter has the kernel drop on the socket what is no packet by its length and beginning, so
// that nobody is woken for it. Parse looks at the rest.
func Filter(conn *net.UDPConn) error {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: udpHeader + PacketSize, SkipTrue: 5},
		bpf.LoadAbsolute{Off: udpHeader, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: magic, SkipTrue: 3},
		bpf.LoadAbsolute{Off: udpHeader + 4, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: version, SkipTrue: 1},
		bpf.RetConstant{Val: udpHeader + PacketSize},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return fmt.Errorf("assemble a socket filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err = control(conn, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
	})
	if err != nil {
		return fmt.Errorf("attach a filter to the socket on %s: %w", conn.LocalAddr(), err)
	}
	return nil
}

// Dropped counts the datagrams that the kernel dropped on the socket: by Filter, or as nobody
// read them soon enough.
func Dropped(conn *net.UDPConn) (uint64, error) {
	var info [9]uint32 // SK_MEMINFO_VARS
	const drops = 8    // SK_MEMINFO_DROPS
	err := control(conn, func(fd int) error {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read what the socket on %s dropped: %w", conn.LocalAddr(), err)
	}
	return uint64(info[drops]), nil
}

func control(conn *net.UDPConn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}
