package badinput

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/drover-project/drover/bpf/routetime"
)

// Kind is a kind of bad input.
type Kind string

const (
	Truncated     Kind = "truncated"     // less than a packet, or less than its headers say
	Oversized     Kind = "oversized"     // more than a packet
	Malformed     Kind = "malformed"     // of the right length, and no packet
	Replayed      Kind = "replayed"      // a peer's answers once more
	Forged        Kind = "forged"        // answers with nonces that were made up
	Misattributed Kind = "misattributed" // answers to probes under way, not from the peer asked
	Stranger      Kind = "stranger"      // probes of no member
	Resent        Kind = "resent"        // a peer's own probes once more: they are answered
)

// Kinds are all kinds.
var Kinds = []Kind{Truncated, Oversized, Malformed, Replayed, Forged, Misattributed, Stranger, Resent}

// link is the wire between the attacker and the node.
type link struct {
	attackerMAC, nodeMAC net.HardwareAddr
	// node is under attack; peer is a member whose address the attacker uses.
	node, peer, stranger netip.Addr
}

// frame makes one frame of the kind. nonces are of probes that the node has sent.
func (l link) frame(kind Kind, nonces []uint64, rng *rand.Rand) []byte {
	p := routetime.Packet{Kind: routetime.AnsweredByKernel, Nonce: rng.Uint64(), Sequence: rng.Uint64()}
	if rng.IntN(2) == 0 {
		p.Kind = routetime.AnsweredByUser
	}
	low, high := uint16(routetime.Port), routetime.Port+uint16(rng.IntN(routetime.Paths))
	answer := func(from netip.Addr) []byte { return l.datagram(from, low, high, p.Append(nil)) }
	switch kind {
	case Truncated:
		p.Kind = routetime.Probe
		if rng.IntN(2) == 0 {
			return l.datagram(l.peer, high, low, p.Append(nil)[:rng.IntN(routetime.PacketSize)])
		}
		whole := l.datagram(l.peer, high, low, p.Append(nil))
		return whole[:etherSize+rng.IntN(len(whole)-etherSize)]
	case Oversized:
		return l.datagram(l.peer, low, high, append(p.Append(nil), make([]byte, 1+rng.IntN(1300))...))
	case Malformed:
		b, fixed := p.Append(nil), 8 // magic, version, kind and zeros
		if p.Kind == routetime.AnsweredByKernel {
			fixed = 6 // any time is one that the peer may have needed
		}
		b[rng.IntN(fixed)] ^= byte(4 + rng.IntN(252)) // never another kind
		return l.datagram(l.peer, low, high, b)
	case Replayed, Misattributed:
		p.Nonce = nonces[rng.IntN(len(nonces))]
		if kind == Replayed {
			return answer(l.peer)
		}
		return answer(l.stranger)
	case Forged:
		return answer(l.peer)
	case Stranger:
		p.Kind = routetime.Probe
		return l.datagram(l.stranger, high, low, p.Append(nil))
	case Resent:
		p.Kind = routetime.Probe
		return l.datagram(l.peer, high, low, p.Append(nil))
	}
	panic("no such kind: " + string(kind))
}

const etherSize = 14

// datagram is an Ethernet frame with a UDP datagram to the node.
func (l link) datagram(from netip.Addr, source, destination uint16, payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, source)
	udp = binary.BigEndian.AppendUint16(udp, destination)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(udp, 0, 0)
	udp = append(udp, payload...)
	pseudo := binary.BigEndian.AppendUint32(append(from.AsSlice(), l.node.AsSlice()...), uint32(len(udp)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, 17)
	check := checksum(append(pseudo, udp...))
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)

	frame := append(append([]byte{}, l.nodeMAC...), l.attackerMAC...)
	if l.node.Is6() {
		frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0)
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(udp)))
		frame = append(frame, 17, 64)
		frame = append(append(frame, from.AsSlice()...), l.node.AsSlice()...)
		return append(frame, udp...)
	}
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
	ip = append(append(ip, from.AsSlice()...), l.node.AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return append(append(append(frame, 0x08, 0x00), ip...), udp...)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for len(b) >= 2 {
		sum += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
