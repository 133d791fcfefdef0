package gossip

import (
	"fmt"
	"math/rand"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/drover-project/drover/internal/model"
)

// What was forgotten of a node does not come back from those that hold it longer; what the node
// says anew counts at once, and what it says with a clock that has gone back after a while.
func TestForgottenStaysForgotten(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("gone")
	v := b.version() / uint64(loadUnit) * uint64(loadUnit)
	said := [][]byte{b.registration(id, v), b.load(id, v, saidLoad{load: model.Load{At: b.now}})}
	for _, raw := range parts(b, id, kindPods, v, 2, podsOf(1, 2, 3)) {
		said = append(said, raw)
	}
	for _, raw := range said {
		if got := b.ingest(raw); got != accepted {
			t.Fatal(got)
		}
	}
	nobody := func(model.NodeID) bool { return false }
	e := b.store.nodes["gone"]
	b.now = b.now.Add(deadRetention)
	b.store.sweep(b.now, nobody)
	if e.report.empty() {
		t.Error("forgotten too soon")
	}
	b.now = b.now.Add(time.Second)
	b.store.sweep(b.now, nobody)
	if !e.report.empty() {
		t.Error("not forgotten")
	}
	for _, raw := range said {
		if got := b.ingest(raw); got != stale {
			t.Errorf("it came back: %s", got)
		}
	}
	if !e.report.empty() {
		t.Error("it came back")
	}
	if got := b.ingest(b.registration(id, v+1)); got != accepted {
		t.Errorf("what it says anew: %s", got)
	}
	b.store.forget(e, b.now)
	b.now = b.now.Add(deadRetention + 1)
	if got := b.ingest(b.registration(id, v)); got != accepted {
		t.Errorf("with a clock that has gone back, later: %s", got)
	}
	b.consistent()
}

// Members that come, go, come back and are forgotten are counted as what they are.
func TestMembersAreCounted(t *testing.T) {
	s := newSpeaker(t)
	rng := rand.New(rand.NewSource(1))
	for range 500 {
		name := model.NodeID(fmt.Sprint("m", rng.Intn(8)))
		n := &memberlist.Node{Name: memberName(name), Addr: net.IPv4(10, 0, 0, 1), Port: DefaultPort}
		switch rng.Intn(4) {
		case 0, 1:
			delegate{s.Gossip}.NotifyJoin(n)
		case 2:
			delegate{s.Gossip}.NotifyLeave(n)
		case 3:
			s.mu.Lock()
			s.forget(name, s.now)
			s.mu.Unlock()
		}
		alive := 0
		for _, m := range s.Members() {
			if m.Alive {
				alive++
			}
		}
		if got := s.size(); got != max(1, alive) {
			t.Fatalf("%d members counted, %d are alive", got, alive)
		}
	}
}
