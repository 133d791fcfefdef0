package spread

import (
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
