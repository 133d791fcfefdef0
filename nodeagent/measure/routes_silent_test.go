package measure

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
)

// A peer is silent after enough probes and enough time without an answer; neither alone will do.
func TestSilentPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		r := NewRoutes(RoutesConfig{Address: netip.MustParseAddr("10.0.0.9"), Interval: RouteInterval, Window: RouteWindow})
		r.SetPeers(map[model.NodeID]netip.Addr{"a": a, "b": b})
		nonce := uint64(0)
		probe := func(to netip.Addr, n int, answered bool) {
			for range n {
				nonce++
				r.routes[to].turn++
				r.flights.byNonce[nonce] = flight{to: to, sent: time.Now()}
				if answered && !r.land(nonce, to, model.StampKernel, func(time.Time) time.Duration { return time.Millisecond }) {
					t.Fatal("the answer was not waited for")
				}
			}
		}
		are := func(want ...model.NodeID) {
			t.Helper()
			if diff := cmp.Diff(want, r.Silent(time.Now())); diff != "" {
				t.Error(diff)
			}
		}
		probe(a, silentProbes, false)
		probe(b, silentProbes, false)
		are() // not for long
		time.Sleep(silentAfter)
		are("a", "b")
		probe(b, 1, true)
		are("a")
		time.Sleep(silentAfter)
		probe(b, silentProbes-1, false)
		are("a") // b was asked too seldom
		probe(b, 1, false)
		are("a", "b")
		r.SetPeers(map[model.NodeID]netip.Addr{"b": b})
		are("b")
		r.SetPeers(map[model.NodeID]netip.Addr{"a": a, "b": b})
		probe(a, silentProbes, false)
		are("b") // a is a peer anew
	})
}
