package gossip

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
	"github.com/drover-project/drover/internal/lifecycle"
	"github.com/drover-project/drover/internal/model"
)

// agents is a cluster whose nodes publish as agents do: every second, what they find when they
// probe the others' kernels.
type agents struct {
	*cluster
	mu      sync.Mutex
	saying  map[model.NodeID]model.Phase
	off     map[model.NodeID]bool // machines that are off: nothing of them answers
	skew    map[model.NodeID]time.Duration
	silence map[model.NodeID]bool // nodes whose kernel does not answer though they run
}

func newAgents(t *testing.T, seed int64, names ...model.NodeID) *agents {
	a := &agents{cluster: newCluster(t, seed, 0.02), saying: map[model.NodeID]model.Phase{}, off: map[model.NodeID]bool{},
		skew: map[model.NodeID]time.Duration{}, silence: map[model.NodeID]bool{}}
	a.with = func(c *Config) {
		node := c.Self.Node
		c.Now = func() time.Time { return a.clock(node) }
	}
	for _, name := range names {
		a.agent(name)
	}
	return a
}

func (a *agents) clock(id model.NodeID) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Add(a.skew[id])
}

func (a *agents) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// agent starts one, which publishes until it is stopped.
func (a *agents) agent(name model.NodeID) *run {
	r := a.node(name)
	ctx, cancel := context.WithCancel(context.Background())
	stop := r.stop
	r.stop = func() { cancel(); stop() }
	go func() {
		answered := map[model.NodeID]time.Time{}
		for ctx.Err() == nil {
			if err := r.Publish(a.stateOf(r, name, answered)); err != nil {
				panic(err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return r
}

// stateOf probes all that the node knows.
func (a *agents) stateOf(r *run, self model.NodeID, answered map[model.NodeID]time.Time) model.NodeState {
	known := r.Snapshot().Nodes
	now := a.clock(self)
	a.mu.Lock()
	defer a.mu.Unlock()
	s := model.NodeState{Phase: a.saying[self], BootID: "boot", Load: model.Load{At: now}, Routes: map[model.NodeID]model.RouteTime{}}
	for id := range known {
		if id == self {
			continue
		}
		if answered[id].IsZero() {
			answered[id] = now
		}
		there := a.at(id)
		if !a.off[id] && !a.silence[id] && there != nil && !a.net.Parted(r.port, there.port) {
			answered[id] = now
			s.Routes[id] = model.RouteTime{RTT: time.Millisecond, Samples: 1, At: now}
		} else if now.Sub(answered[id]) > 5*time.Second {
			s.Silent = append(s.Silent, id)
		}
	}
	slices.Sort(s.Silent)
	return s
}

func (a *agents) at(id model.NodeID) *run {
	for _, r := range slices.Backward(a.runs) {
		if r.id.Subject.Node == id {
			return r
		}
	}
	return nil
}

// powerOff ends a machine without a word.
func (a *agents) powerOff(id model.NodeID) {
	a.set(func() { a.off[id] = true })
	a.at(id).port.Crash()
	a.at(id).stop()
}

// hold tells whether all of those hold a node for that; "" for not known at all.
func (a *agents) hold(id model.NodeID, phase model.Phase, by ...model.NodeID) func() bool {
	return func() bool {
		for _, who := range by {
			if a.at(who).Snapshot().Nodes[id].Phase != phase {
				return false
			}
		}
		return true
	}
}

func (a *agents) allNormal(names ...model.NodeID) func() bool {
	return func() bool {
		for _, who := range names {
			for _, of := range names {
				if a.at(who).Snapshot().Nodes[of].Phase != model.Normal {
					return false
				}
			}
		}
		return true
	}
}

// never fails the test if, in that time, one of those ever holds the node for the phase.
func (a *agents) never(during time.Duration, id model.NodeID, phase model.Phase, by ...model.NodeID) {
	a.t.Helper()
	for start := time.Now(); time.Since(start) < during; time.Sleep(250 * time.Millisecond) {
		for _, who := range by {
			if n := a.at(who).Snapshot().Nodes[id]; n.Phase == phase {
				a.t.Fatalf("%s holds %s for %s after %v: %s", who, id, phase, time.Since(start), n.Why)
			}
		}
	}
}

func TestLifeOfANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgents(t, 11)
		defer a.close()
		a.set(func() { a.saying["d"] = model.Joining })
		for _, name := range []model.NodeID{"a", "b", "c", "d"} {
			a.agent(name)
		}
		others := []model.NodeID{"a", "b", "c"}
		a.within(time.Minute, "d is joining", a.hold("d", model.Joining, others...))
		a.set(func() { a.saying["d"] = model.Normal })
		a.within(time.Minute, "d is normal", a.hold("d", model.Normal, "a", "b", "c", "d"))
		a.set(func() { a.saying["d"] = model.Leaving })
		a.within(time.Minute, "d is leaving", a.hold("d", model.Leaving, "a", "b", "c", "d"))
		a.at("d").stop() // its agent ends in order, the machine still runs
		a.within(time.Minute, "d is no member", func() bool { return !a.at("a").Snapshot().Nodes["d"].Alive })
		a.never(2*time.Minute, "d", model.Left, others...)
		a.never(time.Second, "d", "", others...)
		a.set(func() { a.off["d"] = true })
		a.within(time.Minute, "d is forgotten", a.hold("d", "", others...))
		a.never(10*time.Minute, "d", model.Leaving, others...)
		for _, who := range others {
			if n := testutil.ToFloat64(a.at(who).metrics.phases.WithLabelValues("left")); n != 1 {
				t.Errorf("%s has counted %v that left, want 1", who, n)
			}
		}
		late := a.agent("e")
		a.within(time.Minute, "a newcomer knows the others", func() bool { return len(late.Snapshot().Alive()) == 4 })
		if n, known := late.Snapshot().Nodes["d"]; known {
			t.Errorf("a newcomer knows the node that has left: %+v", n)
		}
		a.set(func() { a.off["d"], a.saying["d"] = false, model.Normal })
		a.agent("d")
		a.within(2*time.Minute, "d is back", a.hold("d", model.Normal, "a", "b", "c", "d", "e"))
	})
}

func TestKilledAgentIsNotADeadNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgents(t, 12, "a", "b", "c")
		defer a.close()
		a.within(time.Minute, "all are normal", a.allNormal("a", "b", "c"))
		c := a.at("c")
		c.port.Crash()
		c.stop() // the agent alone: its kernel answers
		a.within(time.Minute, "c is suspected", a.hold("c", model.Suspected, "a", "b"))
		a.never(5*time.Minute, "c", model.Dead, "a", "b")
		if closed := a.at("a").Snapshot().Nodes["c"].Closed(); closed == "" {
			t.Error("a pod may be placed on a suspected node")
		}
		a.agent("c")
		a.within(2*time.Minute, "c is normal again", a.allNormal("a", "b", "c"))
		a.powerOff("c")
		a.within(2*time.Minute, "c is dead", a.hold("c", model.Dead, "a", "b"))
		a.set(func() { a.off["c"] = false })
		a.agent("c")
		a.within(2*time.Minute, "c is refuted to be dead", a.allNormal("a", "b", "c"))
	})
}

// A node that is cut off holds nobody for dead: it cannot know which side it is on.
func TestNodeThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgents(t, 13, "a", "b", "c")
		defer a.close()
		a.within(time.Minute, "all are normal", a.allNormal("a", "b", "c"))
		c := a.at("c").port
		a.net.Cut(func(from, to *gossiptest.Port) bool { return (from == c) != (to == c) })
		a.within(2*time.Minute, "the others hold it for dead", a.hold("c", model.Dead, "a", "b"))
		a.within(time.Minute, "it suspects them", func() bool {
			return a.hold("a", model.Suspected, "c")() && a.hold("b", model.Suspected, "c")()
		})
		a.never(10*time.Minute, "a", model.Dead, "c")
		a.net.Cut(nil)
		a.within(2*time.Minute, "all are normal again", a.allNormal("a", "b", "c"))
	})
}

// Whoever has the gossip's key can say unsigned that a node is dead. It is believed of no node
// whose kernel answers, and refuted.
func TestForgedDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgents(t, 14, "a", "b", "c")
		defer a.close()
		a.within(time.Minute, "all are normal", a.allNormal("a", "b", "c"))
		liar, lost := a.net.Open(), 0
		for i := range 20 {
			for _, r := range a.runs {
				for _, from := range []string{"liar", memberName("c")} { // as a death, and as a leave
					if _, err := liar.WriteTo(deathOf(t, memberName("c"), from, uint32(1000+i)), r.port.String()); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 100 {
				synctest.Wait()
				for _, who := range []model.NodeID{"a", "b"} {
					switch n := a.at(who).Snapshot().Nodes["c"]; n.Phase {
					case model.Suspected:
						lost++
					case model.Normal:
					default:
						t.Fatalf("%s holds c for %q: %s", who, n.Phase, n.Why)
					}
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		if lost == 0 {
			t.Error("c was never lost as a member: nothing was forged")
		}
		a.within(2*time.Minute, "all are normal again", a.allNormal("a", "b", "c"))
	})
}

// deathOf is memberlist's word that a member is dead, with the cluster's key, as anybody can say it
// who has that key.
func deathOf(t *testing.T, name, from string, incarnation uint32) []byte {
	t.Helper()
	const deadMsg, fixmap, fixstr, bin32 = 5, 0x80, 0xa0, 0xce
	text := func(b []byte, s string) []byte { return append(append(b, fixstr|byte(len(s))), s...) }
	msg := text([]byte{deadMsg, fixmap | 3}, "Incarnation")
	msg = binary.BigEndian.AppendUint32(append(msg, bin32), incarnation)
	msg = text(text(msg, "Node"), name)
	msg = text(text(msg, "From"), from)
	block, err := aes.NewCipher(testKey)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	sealed := append([]byte{1}, make([]byte, gcm.NonceSize())...) // version of the encryption, nonce
	return gcm.Seal(sealed, sealed[1:], msg, nil)
}

// Clocks are never compared: a node whose clock is an hour off is like any other, and the same
// node when it jumps.
func TestClockAnHourOff(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAgents(t, 15, "a", "b", "c")
				defer a.close()
				a.within(time.Minute, "all are normal", a.allNormal("a", "b", "c"))
				a.set(func() { a.skew["c"] = skew })
				// Nothing of it is stale or far from fresh to the others, and nothing of theirs to it.
				for range 60 {
					time.Sleep(time.Second)
					for _, who := range []model.NodeID{"a", "b", "c"} {
						s := a.at(who).Snapshot()
						for id, n := range s.Nodes {
							if n.Phase != model.Normal {
								t.Fatalf("%s holds %s for %s: %s", who, id, n.Phase, n.Why)
							}
						}
					}
				}
				a.within(time.Minute, "all are heard", func() bool {
					for _, who := range []model.NodeID{"a", "b", "c"} {
						s := a.at(who).Snapshot()
						for _, n := range s.Nodes {
							if age, heard := n.Age(s.At); !heard || age > 5*time.Second {
								return false
							}
						}
					}
					return true
				})
				a.powerOff("b")
				a.within(2*time.Minute, "a death is seen by both", a.hold("b", model.Dead, "a", "c"))
			})
		})
	}
}

// TestSilenceIsLongerThanTheSpaceBetweenLoads, however many members there are.
func TestSilenceIsLongerThanTheSpaceBetweenLoads(t *testing.T) {
	if _, repeated := Spaces(100_000); lifecycle.Unheard <= repeated || lifecycle.Fresh < 2*repeated {
		t.Errorf("nodes say something every %v; silent after %v, no witness after %v", repeated, lifecycle.Unheard, lifecycle.Fresh)
	}
}

// A member that has signed nothing settles nothing, however long it has been one.
func TestMadeUpMembersSettleNothing(t *testing.T) {
	s := newSpeaker(t)
	b := &bench{t: t, ca: s.ca, store: s.store, now: s.now}
	other := b.known("other")
	delegate{s.Gossip}.NotifyJoin(&memberlist.Node{Name: other.Subject.CommonName(), Addr: net.IPv4(10, 0, 0, 1), Port: DefaultPort})
	s.wait(settledAfter)
	if s.Settled() {
		t.Error("settled by a member of which only the certificate is known")
	}
	said := b.load(other, b.version()/uint64(loadUnit)*uint64(loadUnit), typicalLoad())
	s.hear([][]byte{said})
	if !s.Settled() {
		t.Error("not settled by one that has signed a load")
	}
	// Others may remember what a node said that is gone: somebody comes by its name.
	delegate{s.Gossip}.NotifyLeave(&memberlist.Node{Name: other.Subject.CommonName(), Addr: net.IPv4(10, 0, 0, 1), Port: DefaultPort})
	s.wait(settledAfter)
	delegate{s.Gossip}.NotifyJoin(&memberlist.Node{Name: other.Subject.CommonName(), Addr: net.IPv4(10, 0, 0, 2), Port: DefaultPort})
	s.wait(settledAfter)
	if s.hear([][]byte{said}); s.Settled() {
		t.Error("settled by what was said before it came")
	}
}
