package spread

import (
	"bytes"
	"testing"
	"time"
)

// pair is two members, of which what one sends is given to the other by hand.
func pair() (a, b *simNode) {
	m := newSimulation(1, 2, 0)
	a, b = m.nodes[0], m.nodes[1]
	a.repair.next, b.repair.next = simStart.Add(time.Hour), simStart.Add(time.Hour)
	return a, b
}

func leafFrame(from *simNode, session uint32, number uint16, raws ...[]byte) frame {
	f := frame{kind: kindLeaf, from: from.self, session: session, number: number}
	for _, raw := range raws {
		f.rest = appendRecords(f.rest, raw)
	}
	return f
}

func TestNumbersOfFrames(t *testing.T) {
	a, b := pair()
	l := b.link(a.self, simStart)
	note := func(session uint32, number uint16) bool {
		return b.note(simStart, l, leafFrame(a, session, number))
	}
	for _, c := range []struct {
		session uint32
		number  uint16
		fresh   bool
		newest  uint16
		missing bool
	}{
		{1, 1, true, 1, false},
		{1, 1, false, 1, false}, // repeated
		{1, 3, true, 3, true},   // 2 is missing
		{1, 2, true, 3, false},  // and comes
		{1, 2, false, 3, false}, // again
		{1, 3 + maxAhead, true, 3 + maxAhead, true},
		{1, 4 + 2*maxAhead, false, 3 + maxAhead, true}, // absurd
		{1, 3, false, 3 + maxAhead, true},              // too old to tell
		{2, 3, true, 3, true},                          // another session, whose 1 and 2 are missing
		{3, 1000, true, 1000, false},                   // one that is older than we are
		{4, 0, true, 0, false},
		{5, 1<<16 - 1, true, 1<<16 - 1, false},
		{5, 1, true, 1, true}, // 0 is missing
		{5, 0, true, 1, false},
		{5, 1<<16 - 1, false, 1, false},
		{4, 0, true, 0, false},
		{4, 1<<16 - 1, false, 0, false}, // before the first
	} {
		if fresh := note(c.session, c.number); fresh != c.fresh || l.in.newest != c.newest || l.in.missing() != c.missing {
			t.Errorf("frame %d of session %d: fresh %v, newest %d, missing %v, want %+v", c.number, c.session, fresh, l.in.newest, l.in.missing(), c)
		}
	}
	if got := b.Counts(); got.Absurd != 1 || got.Repeated != 5 {
		t.Errorf("%+v, want 1 absurd and 5 repeated", got)
	}
}

func TestAnAbsurdReceiptTakesNothingOff(t *testing.T) {
	a, b := pair()
	a.set(0, 1)
	sent := a.Say(simStart, simSlot(0), 1, simRecord(0, 1, 90), false)
	l := a.links[b.self]
	if len(sent) != 1 || len(l.flight) != 1 {
		t.Fatalf("%d packets, %d in flight, want 1 of each", len(sent), len(l.flight))
	}
	for _, f := range []frame{
		{kind: kindReceipt, from: b.self, session: l.session + 1, number: 1},
		{kind: kindReceipt, from: b.self, session: l.session, number: 2, before: ^uint64(0)},
		{kind: kindReceipt, from: b.self, session: l.session, number: 1 << 15, before: ^uint64(0)},
		{kind: kindRefusal, from: b.self, session: l.session, number: 2},
	} {
		a.Receive(simStart, f.encode())
	}
	if len(l.flight) != 1 || a.Counts().Absurd != 4 {
		t.Errorf("%d in flight, %+v, want 1 and 4 absurd", len(l.flight), a.Counts())
	}
	a.Receive(simStart, (&frame{kind: kindReceipt, from: b.self, session: l.session, number: 1}).encode())
	if len(l.flight) != 0 {
		t.Error("the receipt took nothing off")
	}
}

func TestQueueAndFlightAreBounded(t *testing.T) {
	a, b := pair()
	for i := range 3 * maxQueue / MaxRecord {
		a.set(0, uint64(i+1))
		a.Say(simStart, simSlot(0), uint64(i+1), simRecord(0, uint64(i+1), MaxRecord), false)
	}
	l := a.links[b.self]
	if l.queued > maxQueue || len(l.flight) > maxFlight {
		t.Errorf("%d bytes wait, %d frames fly, want at most %d and %d", l.queued, len(l.flight), maxQueue, maxFlight)
	}
	if a.Counts().Dropped == 0 {
		t.Error("nothing was counted as dropped")
	}
	if n := l.queued; n != a.Waiting() {
		t.Errorf("%d bytes wait, Waiting tells %d", n, a.Waiting())
	}
}

// TestBatches: what cannot be sent yet is sent together, in full packets.
func TestBatches(t *testing.T) {
	a, b := pair()
	l := a.link(b.self, simStart)
	var got [][]byte
	take := func(ps []Packet) (packets int) {
		for _, p := range ps {
			f, err := decode(p.Bytes)
			if err != nil || len(p.Bytes) > maxPacket || p.To != b.self {
				t.Fatalf("%+v: %v", p, err)
			}
			for raw := range records(f.rest) {
				got = append(got, raw)
			}
			packets++
		}
		return packets
	}
	var want [][]byte
	packets := 0
	for i := range 40 {
		raw := bytes.Repeat([]byte{byte(i)}, 90)
		want = append(want, raw)
		s := a.link(b.self, simStart)
		a.queue(s, 0, arc{}, [][]byte{raw})
		packets += take(a.flush(simStart))
	}
	if packets != 1+39/15 {
		t.Errorf("%d packets at once, want the first and those that are full", packets)
	}
	if n := take(a.flush(simStart.Add(window))); n != 1 || l.queued != 0 {
		t.Errorf("%d packets after the window, %d bytes left", n, l.queued)
	}
	if len(got) != len(want) {
		t.Fatalf("%d records came, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("record %d is %x", i, got[i])
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, fr := range []frame{
		{kind: kindLeaf, from: 1, session: 2, number: 3, rest: appendRecords(nil, []byte("record"))},
		{kind: kindLeaf, urge: true, from: 1},
		{kind: kindBranch, from: 1, session: 2, number: 3, tree: 1, arc: arc{4, 5}, rest: appendRecords(nil, make([]byte, 300))},
		{kind: kindReceipt, from: 1, session: 2, number: 3, before: 4},
		{kind: kindRefusal, from: 1, session: 2, number: 3},
		{kind: kindDigest, from: 1, nonce: 2, first: 3, last: 1 << 40, rest: []byte{5, 6}},
		{kind: kindAnswer, from: 1}, {kind: kindWhole, from: 1}, {kind: kindLast, from: 1},
	} {
		f.Add(fr.encode())
		f.Add(fr.encode()[:5])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := decode(b)
		if err != nil {
			return
		}
		if again := fr.encode(); !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x", b, again)
		}
		if fr.kind == kindDigest {
			marks(fr)
		}
	})
}

// FuzzReceive: whatever comes, nobody answers much to it, and records spread as before.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{kindLeaf}, uint8(1), uint16(0))
	f.Add([]byte{kindReceipt, 1, 2, 3}, uint8(2), uint16(900))
	f.Add((&frame{kind: kindDigest, last: ^Slot(0)}).encode(), uint8(3), uint16(3))
	f.Add((&frame{kind: kindBranch, arc: arc{1, 0}, rest: appendRecords(nil, simRecord(2, 9, 90))}).encode(), uint8(4), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, from uint8, after uint16) {
		const n = 12
		m := newSimulation(1, n, 0)
		m.twice = 0
		m.nodes[3].say(1, false)
		m.run(time.Second)
		victim := m.nodes[0]
		if len(b) >= prefixSize { // as if from a member
			copy(b[1:], prefix(0, m.nodes[int(from)%n].self)[1:])
		}
		now := m.now.Add(time.Duration(after) * time.Millisecond)
		was := victim.Counts()
		known := len(victim.known.entries)
		out := victim.Receive(now, b)
		if _, err := decode(b); err != nil && (len(out) != 0 || victim.Counts().Malformed != was.Malformed+1 || len(victim.known.entries) != known) {
			t.Fatal("what cannot be decoded was not just counted")
		}
		bytes := 0
		for _, p := range out {
			bytes += len(p.Bytes)
		}
		if most := (2*trees + fanout) * (len(b) + maxPacket); bytes > most {
			t.Fatalf("%d bytes are answered to %d, want at most %d", bytes, len(b), most)
		}
		m.send(victim, out)
		m.run(time.Second)
		for _, x := range m.nodes { // what the input has brought is beaten
			var newest uint64
			for _, y := range m.nodes {
				newest = max(newest, y.version(x.id))
			}
			if newest++; newest == 0 {
				return
			}
			x.say(newest, false)
		}
		m.run(3 * time.Second)
		for _, x := range m.nodes {
			for o := range n {
				if x.version(o) != m.nodes[o].version(o) {
					t.Fatalf("node %d has %d of node %d, who says %d", x.id, x.version(o), o, m.nodes[o].version(o))
				}
			}
		}
	})
}
