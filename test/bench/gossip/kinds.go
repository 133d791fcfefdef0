package gossip

import (
	"encoding/binary"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
)

// kinds tells Drover's bytes apart.
func kinds() (*gossiptest.Kinds, error) { return gossiptest.NewKinds(key, userKinds) }

// Frames of internal/spread: their kinds, and how much comes before the records that some hold.
// A bit in the kind asks for a receipt.
const urged = 0x40

var frames = map[byte]struct {
	name    string
	header  int
	records bool
}{
	0x80: {"frames", 17, true},
	0x81: {"frames", 26, true},
	0x82: {"receipts", 0, false},
	0x83: {"receipts", 0, false},
	0x84: {"digests", 0, false},
	0x85: {"answers", 9, false},
	0x86: {"answers", 0, false},
	0x87: {"answers", 9, false},
}

// userKinds tells what one of Drover's messages is made of.
func userKinds(b []byte, add func(kind string, bytes int)) {
	if len(b) == 0 || b[0] < 0x80 {
		add(recordKind(b), len(b))
		return
	}
	f, known := frames[b[0]&^urged]
	switch {
	case !known || len(b) < f.header:
		add("unknown", len(b))
		return
	case !f.records:
		add(f.name, len(b))
		return
	}
	rest, framing := b[f.header:], f.header
	for len(rest) > 0 {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			add("unknown", len(rest))
			break
		}
		add(recordKind(rest[size:size+int(n)]), int(n))
		framing += size
		rest = rest[size+int(n):]
	}
	add(f.name, framing)
}

func recordKind(b []byte) string {
	if len(b) < 2 {
		return "unknown"
	}
	if b[0] == 2 {
		return "loads"
	}
	switch b[1] {
	case 1:
		return "certificates"
	case 4:
		return "locations"
	case 5, 7:
		return "registrations"
	case 6:
		return "routes"
	case 8:
		return "pods"
	}
	return "unknown"
}
