package routetime

import (
	"math"
	"testing"
	"time"
)

// said answers one of a's probes as b's program would, had that taken so long.
func said(t *testing.T, ma *Meter, a, b *node, nonce uint64, dwell time.Duration) (Sample, time.Duration) {
	t.Helper()
	fromA, fromB := a.socket(t, a.v4), b.socket(t, b.v4)
	defer fromA.Close()
	defer fromB.Close()
	if err := ma.Expect(nonce, b.v4); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	send(t, fromA, b.v4, probe(nonce))
	if _, _, err := fromB.ReadFromUDPAddrPort(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	send(t, fromB, a.v4, Packet{Kind: AnsweredByKernel, Nonce: nonce, Dwell: dwell}.Append(nil))
	ma.ring.SetDeadline(time.Now().Add(patience))
	s, err := ma.Read()
	if err != nil {
		t.Fatalf("%v; counters %+v", err, stats(t, ma))
	}
	return s, time.Since(began)
}

// How long the peer had the probe is no part of the round trip.
func TestDwellIsTakenOff(t *testing.T) {
	a, b := vethPair(t)
	ma := a.meter(t, b)
	a.attach(t, ma)
	for nonce := range uint64(200) {
		const dwell = 50 * time.Microsecond
		// No round trip takes longer than what is seen of it here: one that is told without the
		// dwell is too long for that as soon as one is quick.
		if s, seen := said(t, ma, a, b, nonce, dwell); s.RTT > dwell && s.RTT+dwell > seen {
			t.Fatalf("told %v, with %v taken off, of a round trip seen to take %v", s.RTT, dwell, seen)
		}
	}
}

// A peer that lies comes nearer by 65 µs, and never behind itself.
func TestDwellIsBounded(t *testing.T) {
	const oneWay = 3 * time.Millisecond
	nodes := tapNodes(t, oneWay, "a", "b")
	a, b := nodes[0], nodes[1]
	ma := a.meter(t, b)
	a.attach(t, ma)
	if s, _ := said(t, ma, a, b, 1, time.Hour); s.RTT < 2*oneWay-math.MaxUint16 {
		t.Errorf("told %v, the delay alone is %v", s.RTT, 2*oneWay)
	}
	near, far := vethPair(t)
	m := near.meter(t, far)
	near.attach(t, m)
	for nonce := range uint64(50) {
		if s, _ := said(t, m, near, far, nonce, time.Hour); s.RTT <= 0 {
			t.Fatalf("told %v", s.RTT)
		}
	}
}
