package address

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/thread"
)

// Kept is what comes for the old addresses while they are held. Without it that is lost, and TCP
// sends it again only after a while that doubles each time. It is lost with its process.
type Kept struct {
	lease  Lease
	mac    net.HardwareAddr
	limit  int // of size
	socket *os.File
	// frames have a virtio-net header: a large one is cut, and a checksum made, where it leaves.
	frames [][]byte
	size   int // of them
	ended  chan error
	stop   func() error // once
}

// virtio is the size of that header (linux/virtio_net.h).
const virtio = 10

// Keep begins to keep what comes to the sandbox at path, up to limit bytes, after Hold: what the
// pod still got must not come to it twice. Forward or Close ends it. It takes CAP_NET_RAW.
func Keep(path string, l Lease, limit int) (*Kept, error) {
	s, err := l.enter(path)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	uplink, err := s.holder(l.Old[0])
	if err != nil {
		return nil, err
	}
	k := &Kept{lease: l, mac: uplink.Attrs().HardwareAddr, limit: limit, ended: make(chan error, 1)}
	if k.socket, err = s.packets(uplink, unix.ETH_P_ALL); err != nil {
		return nil, fmt.Errorf("keep what comes for %v: %w", l.Old, err)
	}
	k.stop = sync.OnceValue(k.halt)
	go func() { k.ended <- k.collect() }()
	return k, nil
}

// packets makes a socket for whole frames at a device.
func (s *sandbox) packets(link netlink.Link, protocol uint16) (*os.File, error) {
	order := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
	fd := -1
	err := thread.Apart(func() (err error) {
		if err = netns.Set(s.ns); err != nil {
			return err
		}
		// Of protocol 0 until it is bound: nothing of another device comes to it.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a packet socket in %s: %w", s.path, err)
	}
	f := os.NewFile(uintptr(fd), "packets of "+link.Attrs().Name)
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: order, Ifindex: link.Attrs().Index})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("bind a packet socket to %s: %w", link.Attrs().Name, err)
	}
	return f, nil
}

func (k *Kept) collect() error {
	buf := make([]byte, virtio+1<<17)
	for {
		n, err := k.socket.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return fmt.Errorf("keep what comes for %v: %w", k.lease.Old, err)
		}
		k.take(buf[:n])
	}
	// What had come by then is there to be read, and a deadline keeps Read from it.
	raw, err := k.socket.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), buf)
			if err != nil {
				return
			}
			k.take(buf[:n])
		}
	})
}

// take keeps a frame that is wanted and for which there is room.
func (k *Kept) take(frame []byte) {
	if len(frame) > virtio && k.wanted(frame[virtio:]) && k.size+len(frame) <= k.limit {
		k.size += len(frame)
		k.frames = append(k.frames, bytes.Clone(frame))
	}
}

// wanted tells whether a frame would be forwarded if the address was not held: not what is a tunnel's own,
// nor neighbours'.
func (k *Kept) wanted(frame []byte) bool {
	p, is := packetOf(frame)
	return is && bytes.Equal(frame[:6], k.mac) && slices.Contains(k.lease.Old, p.to) && p.protocol != unix.IPPROTO_ICMPV6 &&
		!(p.protocol == unix.IPPROTO_UDP && p.from == k.lease.New) && !p.toPort(Port)
}

// send ends the keeping, and sends what was kept through the tunnel of that lease of the same addresses.
func (k *Kept) send(s *sandbox, l Lease) error {
	if err := k.stop(); err != nil {
		return err
	}
	link, err := s.end(l)
	if err != nil {
		return err
	}
	out, err := s.packets(link, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	for ; len(k.frames) > 0; k.frames = k.frames[1:] {
		f := k.frames[0]
		copy(f[virtio:], newMAC)
		copy(f[virtio+len(newMAC):], leftMAC)
		// One that is not taken is sent again by who sent it.
		_, _ = out.Write(f)
	}
	return nil
}

// Close drops what was kept. After Forward or Turn that had no error it does nothing.
func (k *Kept) Close() error { return k.stop() }

func (k *Kept) halt() error {
	if err := k.socket.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	return errors.Join(<-k.ended, k.socket.Close())
}
