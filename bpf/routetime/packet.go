package routetime

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// Kind tells what a Packet is.
type Kind uint8

const (
	// Probe asks for an answer.
	Probe Kind = 1
	// AnsweredByKernel is a probe that the peer's program has turned round.
	AnsweredByKernel Kind = 2
	// AnsweredByUser is a probe that the peer's agent has answered.
	AnsweredByUser Kind = 3
)

// PacketSize is the length of every packet, bytes of UDP payload.
const PacketSize = 24

const (
	magic   = 0x44525254
	version = 1
)

// Packet is what travels between two agents: a probe, or its answer, which differs from it
// in the kind alone. It carries no time: the origin keeps that.
type Packet struct {
	Kind Kind
	// Nonce is random, so that nobody who cannot see the probe can answer it.
	Nonce uint64
	// Sequence counts the origin's probes, for those who read captures.
	Sequence uint64
}

// Append appends the packet's PacketSize bytes to b.
func (p Packet) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, version, byte(p.Kind), 0, 0)
	b = binary.BigEndian.AppendUint64(b, p.Nonce)
	return binary.BigEndian.AppendUint64(b, p.Sequence)
}

// Parse reads a packet from a datagram's payload. Anything that Append does not write is
// an error.
func Parse(b []byte) (Packet, error) {
	if len(b) != PacketSize {
		return Packet{}, fmt.Errorf("route time packet of %d bytes, want %d", len(b), PacketSize)
	}
	if got := binary.BigEndian.Uint32(b); got != magic {
		return Packet{}, fmt.Errorf("route time packet begins with %#x, want %#x", got, magic)
	}
	if b[4] != version {
		return Packet{}, fmt.Errorf("route time packet of version %d, want %d", b[4], version)
	}
	kind := Kind(b[5])
	if kind < Probe || kind > AnsweredByUser {
		return Packet{}, fmt.Errorf("route time packet of kind %d", kind)
	}
	if b[6] != 0 || b[7] != 0 {
		return Packet{}, fmt.Errorf("route time packet with %#x%02x where zeros belong", b[6], b[7])
	}
	return Packet{
		Kind:     kind,
		Nonce:    binary.BigEndian.Uint64(b[8:]),
		Sequence: binary.BigEndian.Uint64(b[16:]),
	}, nil
}

// sampleSize is sizeof(struct sample) in routetime.bpf.c.
const sampleSize = 40

// decodeSample reads what the program put into the ring, in the host's byte order.
func decodeSample(b []byte) (Sample, error) {
	if len(b) < sampleSize {
		return Sample{}, fmt.Errorf("route time sample of %d bytes, want %d", len(b), sampleSize)
	}
	rtt, kind := binary.NativeEndian.Uint64(b[24:]), binary.NativeEndian.Uint32(b[32:])
	if rtt > math.MaxInt64 {
		return Sample{}, fmt.Errorf("route time sample of %d ns", rtt)
	}
	if kind != uint32(AnsweredByKernel) && kind != uint32(AnsweredByUser) {
		return Sample{}, fmt.Errorf("route time sample of an answer of kind %d", kind)
	}
	return Sample{
		Peer:     netip.AddrFrom16([16]byte(b[:16])).Unmap(),
		Nonce:    binary.NativeEndian.Uint64(b[16:]),
		RTT:      time.Duration(rtt),
		Answered: Kind(kind),
	}, nil
}

// toWords gives an address as the programs keep it: 16 bytes in network order, IPv4 mapped.
func toWords(a netip.Addr) routetimeAddress {
	var to routetimeAddress
	b := a.As16()
	for i := range to.Word {
		to.Word[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return to
}

// fromWords is the opposite of toWords.
func fromWords(from routetimeAddress) netip.Addr {
	var b [16]byte
	for i, word := range from.Word {
		binary.NativeEndian.PutUint32(b[4*i:], word)
	}
	return netip.AddrFrom16(b).Unmap()
}
