package address

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ether is the size of an Ethernet header.
const ether = 14

// packet is what is read of an IP packet in an Ethernet frame.
type packet struct {
	from, to netip.Addr
	// ends are the bytes of both addresses in the frame.
	ends [2][]byte
	// protocol is that of what it carries, body that or, of a fragment, a part.
	protocol byte
	body     []byte
	// fragment: it is not whole, and the parts have the number id. later: it is not the first.
	fragment, later bool
	id              uint32
}

// packetOf reads a frame; false: it is no IP packet, or cut off. Of IPv6's extension headers it knows the
// fragment's alone.
func packetOf(frame []byte) (p packet, _ bool) {
	if len(frame) < ether {
		return p, false
	}
	b := frame[ether:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == unix.ETH_P_IP && len(b) >= 20:
		p.ends, p.protocol = [2][]byte{b[12:16], b[16:20]}, b[9]
		offset := binary.BigEndian.Uint16(b[6:])
		p.fragment, p.later, p.id = offset&0x3fff != 0, offset&0x1fff != 0, uint32(binary.BigEndian.Uint16(b[4:]))
		p.body = b[min(len(b), int(b[0]&0xf)*4):]
	case kind == unix.ETH_P_IPV6 && len(b) >= 40:
		p.ends, p.protocol, p.body = [2][]byte{b[8:24], b[24:40]}, b[6], b[40:]
		if p.protocol == unix.IPPROTO_FRAGMENT && len(p.body) >= 8 {
			p.fragment, p.later = true, binary.BigEndian.Uint16(p.body[2:])&0xfff8 != 0
			p.protocol, p.id = p.body[0], binary.BigEndian.Uint32(p.body[4:])
			p.body = p.body[8:]
		}
	default:
		return p, false
	}
	p.from, _ = netip.AddrFromSlice(p.ends[0])
	p.to, _ = netip.AddrFromSlice(p.ends[1])
	return p, true
}

// toPort tells of UDP that it is sent to this port, as far as that can be told: it is in the first part.
func (p packet) toPort(port uint16) bool {
	return p.protocol == unix.IPPROTO_UDP && !p.later && len(p.body) >= 8 && binary.BigEndian.Uint16(p.body[2:]) == port
}
