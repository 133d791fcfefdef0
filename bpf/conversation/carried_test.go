package conversation

import (
	"maps"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

func mapped(last byte) [4]uint32 {
	b := netip.AddrFrom4([4]byte{10, 0, 0, last}).As16()
	return *(*[4]uint32)(unsafe.Pointer(&b))
}

func TestCarried(t *testing.T) {
	p := conversationPair{Local: mapped(1), Remote: mapped(2)}
	pair := Pair{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	was := conversationTraffic{Sent: 100, Received: 50, Connections: 2, Segments: 10, Srtt: 5000, MinRtt: 90, Period: 6}
	for name, c := range map[string]struct {
		now  conversationTraffic
		want map[Pair]Traffic
	}{
		// 4 segments: (9000-5000) us / 4
		"more": {conversationTraffic{Sent: 130, Received: 51, Connections: 3, Segments: 14, Srtt: 9000, MinRtt: 80, Period: 7},
			map[Pair]Traffic{pair: {Sent: 30, Received: 1, Connections: 1, Segments: 4, SmoothedRTT: time.Millisecond, MinRTT: 80 * time.Microsecond}}},
		"nothing new": {was, map[Pair]Traffic{}},
		"a byte too many was told of": {conversationTraffic{Sent: 99, Received: 49, Connections: 3, Segments: 10, Srtt: 5000},
			map[Pair]Traffic{pair: {Connections: 1}}},
		"no round trip is known": {conversationTraffic{Sent: 101, Received: 50, Connections: 3, Segments: 10, Srtt: 5000, MinRtt: 90, Period: 6},
			map[Pair]Traffic{pair: {Sent: 1, Connections: 1}}},
		"the least one is an old one": {conversationTraffic{Sent: 100, Received: 50, Connections: 3, Segments: 11, Srtt: 5100, MinRtt: 90, Period: 6},
			map[Pair]Traffic{pair: {Connections: 1, Segments: 1, SmoothedRTT: 100 * time.Microsecond}}},
	} {
		now := map[conversationPair]conversationTraffic{p: c.now}
		if diff := cmp.Diff(c.want, carried(now, map[conversationPair]conversationTraffic{p: was}, 7), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if now[p].Sent < was.Sent || now[p].Received < was.Received {
			t.Errorf("%s: %+v is told of again", name, now[p])
		}
	}
	anew := map[conversationPair]conversationTraffic{p: {Sent: 3, Connections: 1}}
	if got := carried(anew, nil, 7); got[pair].Sent != 3 {
		t.Errorf("of one that is new: %+v", got)
	}
}

// Whatever the kernel's table holds, nothing is told twice, and nothing panics.
func FuzzCarried(f *testing.F) {
	f.Add(make([]byte, 2*unsafe.Sizeof(conversationPair{})+2*unsafe.Sizeof(conversationTraffic{})), uint32(1))
	f.Fuzz(func(t *testing.T, raw []byte, period uint32) {
		const size = int(unsafe.Sizeof(conversationPair{}) + unsafe.Sizeof(conversationTraffic{}))
		var tables [2]map[conversationPair]conversationTraffic
		for i := range tables {
			tables[i] = map[conversationPair]conversationTraffic{}
			if len(raw) < size {
				continue
			}
			p := *(*conversationPair)(unsafe.Pointer(&raw[0]))
			tables[i][p] = *(*conversationTraffic)(unsafe.Pointer(&raw[unsafe.Sizeof(p)]))
			raw = raw[size:]
		}
		before, now := tables[0], tables[1]
		first := carried(maps.Clone(before), nil, period)
		second := carried(now, before, period)
		for p, raw := range now {
			a, b := first[p.pair()], second[p.pair()]
			if p.pair().Local.Is4In6() || p.pair().Remote.Is4In6() {
				t.Errorf("%v is mapped", p.pair())
			}
			if len(before) == 1 && len(first) == 1 && a.Sent+b.Sent != raw.Sent {
				t.Errorf("%d and %d bytes were told of, %d sent", a.Sent, b.Sent, raw.Sent)
			}
			if b.SmoothedRTT != 0 && b.Segments == 0 {
				t.Errorf("a round trip of no segments: %+v", b)
			}
		}
	})
}
