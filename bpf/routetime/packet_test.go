package routetime

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func TestPacketRoundTrip(t *testing.T) {
	for _, want := range []Packet{
		{Kind: Probe, Nonce: 1<<64 - 1, Sequence: 5},
		{Kind: AnsweredByKernel, Dwell: 1234},
		{Kind: AnsweredByKernel, Dwell: 65535},
		{Kind: AnsweredByUser, Nonce: 0x0102030405060708, Sequence: 1 << 40},
	} {
		b := want.Append([]byte("before"))[len("before"):]
		if len(b) != PacketSize {
			t.Errorf("%+v takes %d bytes, want %d", want, len(b), PacketSize)
		}
		if got, err := Parse(b); err != nil || got != want {
			t.Errorf("Parse(Append(%+v)) = %+v, %v", want, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := Packet{Kind: Probe, Nonce: 1}.Append(nil)
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":    func([]byte) []byte { return nil },
		"short":    func(b []byte) []byte { return b[:PacketSize-1] },
		"long":     func(b []byte) []byte { return append(b, 0) },
		"magic":    func(b []byte) []byte { b[0]++; return b },
		"version":  func(b []byte) []byte { b[4]++; return b },
		"kind 0":   func(b []byte) []byte { b[5] = 0; return b },
		"kind 4":   func(b []byte) []byte { b[5] = 4; return b },
		"not zero": func(b []byte) []byte { b[7] = 1; return b },
		"also not": func(b []byte) []byte { b[6] = 1; return b },
	} {
		if p, err := Parse(spoil(bytes.Clone(good))); err == nil {
			t.Errorf("%s: parsed as %+v", name, p)
		}
	}
}

func TestDecodeSample(t *testing.T) {
	if s, err := decodeSample(make([]byte, sampleSize-1)); err == nil {
		t.Errorf("a short record gave %+v", s)
	}
	b := make([]byte, sampleSize)
	copy(b, netip.MustParseAddr("::ffff:10.0.0.9").AsSlice())
	b[16], b[24], b[32] = 3, 4, 2 // little-endian, as the object is
	want := Sample{Peer: netip.MustParseAddr("10.0.0.9"), Nonce: 3, RTT: 4 * time.Nanosecond, Answered: AnsweredByKernel}
	if got, err := decodeSample(b); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// What Parse takes is exactly what Append writes.
func FuzzParse(f *testing.F) {
	f.Add(Packet{Kind: Probe, Nonce: 1, Sequence: 2}.Append(nil))
	f.Add([]byte("DRRT"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err == nil && !bytes.Equal(p.Append(nil), b) {
			t.Errorf("%x parsed as %+v, which is written otherwise", b, p)
		}
	})
}

// A record of any content is a sample or an error, and of a sample every byte counts once.
func FuzzDecodeSample(f *testing.F) {
	good := make([]byte, sampleSize)
	good[32] = byte(AnsweredByKernel)
	f.Add(good)
	f.Add(bytes.Repeat([]byte{0xff}, sampleSize))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSample(b)
		if err != nil {
			return
		}
		again := make([]byte, 0, sampleSize)
		peer := s.Peer.As16()
		again = append(again, peer[:]...)
		again = binary.NativeEndian.AppendUint64(again, s.Nonce)
		again = binary.NativeEndian.AppendUint64(again, uint64(s.RTT))
		again = binary.NativeEndian.AppendUint32(again, uint32(s.Answered))
		if !bytes.Equal(again, b[:len(again)]) || s.RTT < 0 {
			t.Errorf("%x decoded as %+v", b, s)
		}
	})
}
