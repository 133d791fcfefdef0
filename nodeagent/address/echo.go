package address

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/tunnel"
)

// echo answers probes where the port is a tunnel's already, and the filters let nothing but that tunnel's
// packets through: it takes frames before they do, and sends them past them. Each part of a probe is sent
// back as it came, with its addresses exchanged: of that no checksum changes.
type echo struct {
	lease Lease
	nonce Nonce
	// parts is the number of the probe whose first part came last, if any has.
	parts uint32
	any   bool
}

// taken tells that there are tunnels, or that filters were left which let no probe through.
func (s *sandbox) taken() (bool, error) {
	ours, err := s.ours()
	if err != nil || len(ours) > 0 {
		return true, err
	}
	links, err := s.LinkList()
	if err != nil {
		return false, fmt.Errorf("list the devices in %s: %w", s.path, err)
	}
	for _, link := range links {
		if is, err := tunnel.Attached(s.Handle, link); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

func (s *sandbox) echo(ctx context.Context, l Lease, nonce Nonce) error {
	uplink, err := s.holder(l.Old[0])
	if err != nil {
		return err
	}
	frames, err := s.packets(uplink, unix.ETH_P_ALL)
	if err != nil {
		return err
	}
	defer frames.Close()
	raw, err := frames.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("have answers to probes pass the filters: %w", err)
	}
	defer context.AfterFunc(ctx, func() { frames.SetReadDeadline(time.Unix(1, 0)) })()
	e, buf := echo{lease: l, nonce: nonce}, make([]byte, virtio+1<<17)
	for {
		n, err := frames.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for a probe of the network in %s: %w", s.path, err)
		}
		if n > virtio && e.answer(buf[virtio:n]) {
			// One that is lost is asked for again.
			_, _ = frames.Write(buf[:n])
		}
	}
}

// answer makes the answer of what is a probe, or a part of one, of the new end's.
func (e *echo) answer(frame []byte) bool {
	p, is := packetOf(frame)
	if !is || p.protocol != unix.IPPROTO_UDP || p.from != e.lease.New || p.to != e.lease.Old[0] {
		return false
	}
	if p.later {
		if !e.any || p.id != e.parts {
			return false
		}
	} else {
		const udp = 8
		if !p.toPort(Port) || binary.BigEndian.Uint16(p.body) != Port || len(p.body) < udp+len(e.nonce) ||
			subtle.ConstantTimeCompare(p.body[udp:udp+len(e.nonce)], e.nonce[:]) != 1 {
			return false
		}
		if p.fragment {
			e.parts, e.any = p.id, true
		}
	}
	const mac = 6
	swap(frame[:mac], frame[mac:2*mac])
	swap(p.ends[0], p.ends[1])
	return true
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}
