package gossip

import (
	"context"
	"math/rand"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/spread"
)

// TestReportsReachAllForLittle: members say something new every 6 s, and others
// have it within 3 s for about as many bytes as there are.
func TestReportsReachAllForLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, span, within = 60, 40 * time.Second, 3 * time.Second
		c := newCluster(t, 9, 0.01)
		defer c.close()
		all := names(n)
		for _, name := range all {
			publish(t, c.node(name), stateOf())
		}
		c.within(time.Minute, "all know all", func() bool {
			for _, r := range c.runs {
				if s := r.Snapshot(); len(s.IDs()) != n || len(s.Alive()) != n {
					return false
				}
			}
			return true
		})
		time.Sleep(20 * time.Second)
		type said struct {
			by  int
			cpu model.Cores
			at  time.Time
		}
		var open []said
		newest := map[int]model.Cores{}
		had, asked := 0, 0
		rng := rand.New(rand.NewSource(1))
		before := c.net.Sent()
		for start := time.Now(); time.Since(start) < span; time.Sleep(100 * time.Millisecond) {
			for len(open) > 0 && time.Since(open[0].at) >= within {
				s := open[0]
				open = open[1:]
				for _, r := range c.runs {
					asked++
					if got := r.Snapshot().Nodes[all[s.by]].State.Load.Used.CPU; tells(got, s.cpu) || newest[s.by] != s.cpu {
						had++
					}
				}
			}
			if by := rng.Intn(n); time.Since(start) < span-within { // 10 a second: each every 6 s
				s, cpu := stateOf(), model.Cores(1+rng.Intn(4000))/1000
				newest[by] = cpu
				s.Load.Used.CPU = cpu
				publish(t, c.runs[by], s)
				open = append(open, said{by, cpu, time.Now()})
			}
		}
		rate := float64(c.net.Sent()-before) / span.Seconds() / n
		t.Logf("%d of %d had what was new after %v, at %.0f bytes a member and second", had, asked, within, rate)
		if had*100 < asked*95 { // some changes were within their dead bands
			t.Errorf("%d of %d had what was new after %v", had, asked, within)
		}
		if rate > 5000 {
			t.Errorf("%.0f bytes a member and second", rate)
		}
	})
}

func TestSlotsOfOneOriginFollowEachOther(t *testing.T) {
	certificate := slot{kindCertificate, "a", "key"}.id()
	for _, at := range []slot{{kindLoad, "a", ""}, {kindRoutes, "a", "7"}, {kindLocation, "a", "lineage"}} {
		if at.id() <= certificate {
			t.Errorf("%v comes before the certificate that it needs", at)
		}
		if at.id()>>32 != certificate>>32 {
			t.Errorf("%v is not beside the certificate", at)
		}
		other := at
		other.origin = "b"
		if at.id() == other.id() || at.id()>>32 == other.id()>>32 {
			t.Errorf("%v and %v share a place", at, other)
		}
	}
}

// TestOwnRecordsThatReturn are outdone, and passed on to nobody.
func TestOwnRecordsThatReturn(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	id := ca.Node(t, "a")
	now := time.Now()
	g, err := New(Config{Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(), SecretKey: testKey,
		Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, &run{Gossip: g}, stateOf())
	later := uint64(now.Add(time.Hour).UnixNano()) / uint64(loadUnit) * uint64(loadUnit)
	raw, err := sealLoad(id, later, saidLoad{})
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	_, _, verdict := carried{g}.Take(raw)
	g.outdoOwed()
	g.mu.Unlock()
	if verdict != spread.Refused {
		t.Errorf("verdict %d: what is outdone would be passed on", verdict)
	}
	if got := g.store.nodes["a"].load.version; got <= later {
		t.Errorf("own load has version %d, others have %d", got, later)
	}
	// Another comes at once, which is not outdone yet when there is something to say.
	later += uint64(time.Hour)
	if raw, err = sealLoad(id, later, saidLoad{}); err != nil {
		t.Fatal(err)
	}
	g.hear([][]byte{raw})
	busy := stateOf()
	busy.Load.Used.CPU++
	publish(t, &run{Gossip: g}, busy)
	if got := g.store.nodes["a"].load; got.version <= later || !tells(got.load.Used.CPU, 1) {
		t.Errorf("own load is %+v with version %d, others have %d", got.load, got.version, later)
	}
}

// TestTwoAgentsOfOneName outdo each other for ever, but not as fast as the network carries it.
func TestTwoAgentsOfOneName(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	start := time.Now()
	now := start
	twin := func() *Gossip {
		id := ca.Node(t, "a")
		g, err := New(Config{Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(), SecretKey: testKey,
			Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		publish(t, &run{Gossip: g}, stateOf())
		return g
	}
	a, b := twin(), twin()
	lives := map[uint64]bool{}
	const span = 20 * time.Second
	for now.Sub(start) < span {
		for _, to := range []*Gossip{b, a} {
			from := a
			if to == a {
				from = b
			}
			var raws [][]byte
			for k := range from.store.nodes["a"].each {
				raws = append(raws, k.raw)
			}
			to.hear(raws)
			lives[to.said.since] = true
		}
		if now.Sub(start)%(10*tick) == 0 { // also while something is owed
			publish(t, &run{Gossip: b}, stateOf())
			lives[b.said.since] = true
		}
		now = now.Add(tick)
	}
	if most := 2*(1+int(span/outdoSpace)) + int(span/(10*tick)); len(lives) > most {
		t.Errorf("%d lives in %v, want %d at most", len(lives), span, most)
	}
	now = now.Add(outdoSpace)
	a.mu.Lock()
	a.outdoOwed()
	a.mu.Unlock()
	if own, other := a.said.since, b.said.since; own < other {
		t.Errorf("what was put off is not said: life %d, the other's is %d", own, other)
	}
}

// TestFullQueuesLoseCounted: nobody waits for the network.
func TestFullQueuesLoseCounted(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	id := ca.Node(t, "a")
	g, err := New(Config{Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(), SecretKey: testKey})
	if err != nil {
		t.Fatal(err)
	}
	g.post(make([]spread.Packet, packetsWaiting+3))
	if got := len(g.packets); got != packetsWaiting {
		t.Errorf("%d packets wait, want %d", got, packetsWaiting)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.sendEach(ctx, g.packets, nil) // returns at once, or sends to nobody
}
