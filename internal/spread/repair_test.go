package spread

import (
	"maps"
	"testing"
	"time"
)

// TestEqualPicturesCostNoAnswer, and one that is behind gets what it lacks.
func TestComparing(t *testing.T) {
	a, b := pair()
	const origins = 200
	for o := range origins {
		for _, n := range []*simNode{a, b} {
			n.set(o, 7)
			n.known.set(simSlot(o), 7, simStart)
		}
	}
	later := simStart.Add(settleTime)
	ask := func(at time.Time) []Packet {
		a.repair.from = 0
		d := a.digest()
		return b.Receive(at, d.encode())
	}
	if got := ask(later); len(got) != 0 {
		t.Errorf("%d packets answer one that has everything", len(got))
	}
	b.set(17, 8)
	b.known.set(simSlot(17), 8, later)
	if got := ask(later); len(got) != 0 {
		t.Errorf("%d packets answer one that will get it anyway", len(got))
	}
	got := ask(later.Add(settleTime))
	if len(got) != 1 {
		t.Fatalf("%d packets, want the one record that is newer", len(got))
	}
	a.Receive(later.Add(settleTime), got[0].Bytes)
	if a.version(17) != 8 || a.Counts().Repaired != 1 {
		t.Errorf("version %d, %d repaired, want 8 and 1", a.version(17), a.Counts().Repaired)
	}
}

// TestManyWhoJoinMakeAHurry: a twentieth is many, one is not.
func TestManyWhoJoinMakeAHurry(t *testing.T) {
	const n = 100
	m := newSimulation(10, n, 0)
	digests := 0
	m.sent = func(p Packet) {
		if p.Bytes[0] == kindDigest {
			digests++
		}
	}
	m.run(10 * time.Second)
	digests = 0
	m.run(time.Second)
	calm := digests
	join := func(more int) (digestsThen int) {
		for i := range more {
			for _, x := range m.nodes {
				x.Join(m.now, simPeer(1000+len(m.nodes[0].ring)*10+i))
			}
		}
		digests = 0
		m.run(time.Second)
		return digests
	}
	if got := join(1); got > 2*calm {
		t.Errorf("%d comparisons a second after one has joined, %d before", got, calm)
	}
	if got := join(n / 10); got < 2*calm {
		t.Errorf("%d comparisons a second after a tenth has joined, %d before", got, calm)
	}
}

// TestAnswersAreBounded, whoever asks how often.
func TestAnswersAreBounded(t *testing.T) {
	a, b := pair()
	for o := range 3000 {
		b.set(o, 7)
		b.known.set(simSlot(o), 7, simStart)
	}
	const span = 10 * time.Second
	bytes := 0
	for at := time.Duration(0); at < span; at += 100 * time.Millisecond {
		now := simStart.Add(settleTime + at)
		for _, f := range []frame{{kind: kindDigest, from: a.self, last: ^Slot(0)}, {kind: kindWhole, from: a.self}} {
			for _, p := range b.Receive(now, f.encode()) {
				if f.kind == kindDigest {
					bytes += len(p.Bytes)
				} else if at%wholeSpace != 0 {
					t.Fatalf("everything is told again after %v", at%wholeSpace)
				}
			}
		}
	}
	if most := answerBurst + int(span/time.Second)*answerRate; bytes > most*11/10 || bytes < most/2 {
		t.Errorf("%d bytes of answers in %v, want about %d", bytes, span, most)
	}
	if b.Counts().Limited == 0 {
		t.Error("nothing was counted")
	}
}

// TestEverythingIsToldAMemberNowAndThen: a request is small and may be a copy, what it brings upon
// a member is not; and one that is asked for too often keeps nobody else from getting theirs.
func TestEverythingIsToldAMemberNowAndThen(t *testing.T) {
	m := newSimulation(1, 3, 0)
	a, b, c := m.nodes[0], m.nodes[1], m.nodes[2]
	b.set(1, 7)
	b.known.set(simSlot(1), 7, simStart)
	told := map[Peer]int{}
	stranger := Peer(1 << 16)
	for at := time.Duration(0); at < time.Minute; at += 100 * time.Millisecond {
		for _, from := range []Peer{a.self, stranger, c.self} {
			for _, p := range b.Receive(simStart.Add(at), (&frame{kind: kindWhole, from: from}).encode()) {
				told[p.To]++
			}
		}
	}
	want := map[Peer]int{a.self: int(time.Minute / wholeMost), c.self: int(time.Minute / wholeMost)}
	if !maps.Equal(told, want) {
		t.Errorf("everything is told so often in a minute: %v, want %v", told, want)
	}
	b.Leave(simStart.Add(time.Minute), a.self)
	b.Join(simStart.Add(time.Minute), a.self)
	if out := b.Receive(simStart.Add(time.Minute+wholeSpace), (&frame{kind: kindWhole, from: a.self}).encode()); len(out) == 0 {
		t.Error("one that has come back is told nothing")
	}
}

// TestNewcomerAsksOn: who gets no answer asks another, also when someone sends scraps for ever.
func TestNewcomerAsksOn(t *testing.T) {
	a, b := pair()
	a.repair = repair{newcomer: true}
	asked := 0
	for at := time.Duration(0); at < time.Minute; at += wholeTime / 2 {
		now := simStart.Add(time.Hour + at)
		a.Receive(now, (&frame{kind: kindAnswer, from: b.self}).encode())
		for _, p := range a.Tick(now) {
			if p.Bytes[0] == kindWhole {
				asked++
			}
		}
	}
	if want := int(time.Minute / wholeMost); asked != want {
		t.Errorf("asked %d times in a minute, want %d", asked, want)
	}
	if !a.Newcomer() {
		t.Error("scraps were taken for everything")
	}
	a.Receive(simStart.Add(2*time.Hour), (&frame{kind: kindLast, from: b.self}).encode())
	if a.Newcomer() {
		t.Error("the end of the answer was not noticed")
	}
}
