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

// Packet is what travels between two agents: a probe, or its answer, which differs from it in
// the kind alone, and where a program gave it in how long that took. When the probe left is
// not in it: the origin keeps that.
type Packet struct {
	Kind Kind
	// Dwell is how long the peer had the probe before it answered, of AnsweredByKernel alone; to
	// be taken off the round trip. Nanoseconds travel, in 16 bits, and more than that is not told.
	Dwell time.Duration
	// Nonce is random, so that nobody who cannot see the probe can answer it.
	Nonce uint64
	// Sequence counts the origin's probes, for those who read captures.
	Sequence uint64
}

// Append appends the packet's PacketSize bytes to b.
func (p Packet) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, version, byte(p.Kind))
	b = binary.BigEndian.AppendUint16(b, uint16(min(max(p.Dwell, 0), math.MaxUint16)))
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
	dwell := binary.BigEndian.Uint16(b[6:])
	if dwell != 0 && kind != AnsweredByKernel {
		return Packet{}, fmt.Errorf("route time packet of kind %d with %#04x where zeros belong", kind, dwell)
	}
	return Packet{
		Kind:     kind,
		Dwell:    time.Duration(dwell),
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
