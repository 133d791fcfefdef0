// Package netlock removes the network lock that CRIU leaves behind when it dies in the
// middle of a dump: a table of nftables called CRIU-… in the container's network namespace
// that drops every packet. It speaks netlink itself, so that no nft program is needed.
//
// Sources: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h, criu/netfilter.c.
package netlock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/thread"
)

// prefix begins the names of CRIU's tables.
const prefix = "CRIU-"

// From linux/netfilter/nfnetlink.h and nf_tables.h.
const (
	msgBatchBegin = 0x10
	msgBatchEnd   = 0x11
	subsysTables  = unix.NFNL_SUBSYS_NFTABLES << 8
	headerSize    = unix.NLMSG_HDRLEN + 4 // nlmsghdr and nfgenmsg
)

// typeMask takes the flags off an attribute's type: NLA_TYPE_MASK of linux/netlink.h.
const typeMask = 0x3fff

// table is one table of nftables.
type table struct {
	family byte
	name   string
}

// Clear removes the locks in the network namespace at path (as /proc/PID/ns/net). In the
// namespace of process 1 it does nothing: containers that share it are not locked, and
// other programs' tables live there.
func Clear(path string) error {
	own, err := os.Readlink(path)
	if err != nil {
		return fmt.Errorf("find the network namespace: %w", err)
	}
	if host, err := os.Readlink("/proc/1/ns/net"); err == nil && host == own {
		return nil
	}
	fd, err := socketIn(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	tables, err := list(fd)
	if err != nil {
		return fmt.Errorf("list the tables of nftables: %w", err)
	}
	for _, t := range tables {
		if !strings.HasPrefix(t.name, prefix) {
			continue
		}
		if err := remove(fd, t); err != nil {
			return fmt.Errorf("remove the network lock %s: %w", t.name, err)
		}
	}
	return nil
}

// Locks lists the locks in the network namespace at path.
func Locks(path string) ([]string, error) {
	fd, err := socketIn(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	tables, err := list(fd)
	if err != nil {
		return nil, fmt.Errorf("list the tables of nftables: %w", err)
	}
	var names []string
	for _, t := range tables {
		if strings.HasPrefix(t.name, prefix) {
			names = append(names, t.name)
		}
	}
	return names, nil
}

// socketIn opens a netlink socket in another namespace; a socket stays where it was made.
func socketIn(path string) (int, error) {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(ns)
	fd := -1
	err = thread.Apart(func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", path, err)
		}
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		// The kernel answers at once; the bound is against a bug, not a slow machine.
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	})
	return fd, err
}

// message builds one netlink message of nftables.
func message(kind, flags uint16, seq uint32, family byte, resource uint16, attrs []byte) []byte {
	m := make([]byte, headerSize, headerSize+len(attrs))
	binary.NativeEndian.PutUint32(m[0:], uint32(headerSize+len(attrs)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(m[8:], seq)
	m[unix.NLMSG_HDRLEN] = family
	binary.BigEndian.PutUint16(m[unix.NLMSG_HDRLEN+2:], resource)
	return append(m, attrs...)
}

func list(fd int) ([]table, error) {
	req := message(subsysTables|unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, 1, unix.NFPROTO_UNSPEC, 0, nil)
	if err := send(fd, req); err != nil {
		return nil, err
	}
	var tables []table
	for {
		done, err := receive(fd, func(body []byte) {
			if len(body) >= 4 {
				tables = append(tables, table{family: body[0], name: tableName(body[4:])})
			}
		})
		if err != nil || done {
			return tables, err
		}
	}
}

// tableName finds NFTA_TABLE_NAME among attributes.
func tableName(attrs []byte) string {
	for len(attrs) >= unix.NLA_HDRLEN {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < unix.NLA_HDRLEN || size > len(attrs) {
			return ""
		}
		if binary.NativeEndian.Uint16(attrs[2:])&typeMask == unix.NFTA_TABLE_NAME {
			return strings.TrimRight(string(attrs[unix.NLA_HDRLEN:size]), "\x00")
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return ""
}

func remove(fd int, t table) error {
	value := append([]byte(t.name), 0)
	attr := make([]byte, unix.NLA_HDRLEN, unix.NLA_HDRLEN+len(value)+3)
	binary.NativeEndian.PutUint16(attr, uint16(unix.NLA_HDRLEN+len(value)))
	binary.NativeEndian.PutUint16(attr[2:], unix.NFTA_TABLE_NAME)
	attr = append(attr, value...)
	for len(attr)%4 != 0 {
		attr = append(attr, 0)
	}
	// Changes are taken in batches only; the answer to the one change is what counts.
	batch := message(msgBatchBegin, 0, 1, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	batch = append(batch, message(subsysTables|unix.NFT_MSG_DELTABLE, unix.NLM_F_ACK, 2, t.family, 0, attr)...)
	batch = append(batch, message(msgBatchEnd, 0, 3, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)...)
	if err := send(fd, batch); err != nil {
		return err
	}
	_, err := receive(fd, func([]byte) {})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func send(fd int, m []byte) error {
	return unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive reads one datagram and calls each for the body of every message of nftables in
// it. done: the dump is over, or a change was acknowledged.
func receive(fd int, each func(body []byte)) (done bool, err error) {
	buf := make([]byte, 64<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return false, err
	}
	for buf = buf[:n]; len(buf) >= unix.NLMSG_HDRLEN; {
		size := int(binary.NativeEndian.Uint32(buf))
		if size < unix.NLMSG_HDRLEN || size > len(buf) {
			return false, fmt.Errorf("a netlink message of %d bytes in %d: %w", size, len(buf), unix.EBADMSG)
		}
		body := buf[unix.NLMSG_HDRLEN:size]
		switch binary.NativeEndian.Uint16(buf[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, unix.EBADMSG
			}
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
				return false, unix.Errno(-code)
			}
			return true, nil
		default:
			each(body)
		}
		buf = buf[min((size+3)&^3, len(buf)):]
	}
	return false, nil
}
