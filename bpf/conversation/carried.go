package conversation

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// pair gives the addresses, which are in network order in memory.
func (p conversationPair) pair() Pair { return Pair{address(p.Local), address(p.Remote)} }

func address(words [4]uint32) netip.Addr {
	var b [16]byte
	for i, w := range words {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

// String gives the pair as a sentence's subject and object.
func (p Pair) String() string { return fmt.Sprintf("%v talks to %v", p.Local, p.Remote) }

// carried is what each pair has carried since before. What is less now than it was is kept as
// it was, in now too, for the kernel has told of a byte too many then. The least round trips are
// those of the period.
func carried(now, before map[conversationPair]conversationTraffic, period uint32) map[Pair]Traffic {
	pairs := make(map[Pair]Traffic)
	for p, t := range now {
		was := before[p]
		t.Sent, t.Received = max(t.Sent, was.Sent), max(t.Received, was.Received)
		now[p] = t
		more := Traffic{
			Sent: t.Sent - was.Sent, Received: t.Received - was.Received,
			Connections: t.Connections - was.Connections, Segments: t.Segments - was.Segments,
		}
		if more == (Traffic{}) {
			continue
		}
		if more.Segments > 0 {
			more.SmoothedRTT = time.Duration(t.Srtt-was.Srtt) * time.Microsecond / time.Duration(more.Segments)
			if t.Period == period {
				more.MinRTT = time.Duration(t.MinRtt) * time.Microsecond
			}
		}
		pairs[p.pair()] = more
	}
	return pairs
}
