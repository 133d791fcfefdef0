package gossip

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

// cluster runs members over one in-memory network, inside a synctest bubble: its time is
// virtual.
type cluster struct {
	t    *testing.T
	ca   *identitytest.Authority
	net  *gossiptest.Network
	runs []*run
	with func(*Config) // changes what a member is started with; may be nil
}

type run struct {
	*Gossip
	port *gossiptest.Port
	id   *identity.Identity
	stop context.CancelFunc
	done chan error
}

func newCluster(t *testing.T, seed int64, loss float64) *cluster {
	return &cluster{t: t, ca: identitytest.NewAuthority(t), net: gossiptest.NewNetwork(gossiptest.Config{Seed: uint64(seed), Loss: loss})}
}

func (c *cluster) node(name model.NodeID) *run {
	return c.start(c.ca.Node(c.t, name))
}

func (c *cluster) start(id *identity.Identity) *run {
	c.t.Helper()
	r := &run{port: c.net.Open(), id: id, done: make(chan error, 1)}
	var seeds []string
	for _, other := range c.runs {
		seeds = append(seeds, other.port.String())
	}
	if len(seeds) > 3 {
		seeds = seeds[:3]
	}
	cfg := Config{
		Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: c.ca.Pool(), SecretKey: testKey,
		Seeds: func(context.Context) ([]string, error) { return seeds, nil }, Transport: r.port,
	}
	if c.with != nil {
		c.with(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Gossip = g
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- g.Run(ctx) }()
	c.runs = append(c.runs, r)
	return r
}

// close stops all members, whoever still runs.
func (c *cluster) close() {
	for _, r := range c.runs {
		r.stop()
	}
	for _, r := range c.runs {
		<-r.done
	}
	time.Sleep(time.Minute) // virtual: connections of memberlist run into their deadlines
	synctest.Wait()
}

// within waits, in virtual time, until ok holds everywhere it looks.
func (c *cluster) within(limit time.Duration, what string, ok func() bool) {
	c.t.Helper()
	for start := time.Now(); time.Since(start) < limit; time.Sleep(100 * time.Millisecond) {
		if ok() {
			c.t.Logf("%s after %v", what, time.Since(start))
			return
		}
	}
	c.t.Fatalf("not within %v: %s", limit, what)
}

func stateOf(routes ...model.NodeID) model.NodeState {
	s := model.NodeState{BootID: "boot", Load: model.Load{Allocatable: model.Resources{CPU: 2, Memory: model.GiB}, At: time.Now()}}
	for i, r := range routes {
		if s.Routes == nil {
			s.Routes = map[model.NodeID]model.RouteTime{}
		}
		s.Routes[r] = model.RouteTime{RTT: time.Duration(1+i) * 1234567, Spread: 98765, Samples: 20, Stamp: model.StampKernel, At: time.Now()}
	}
	return s
}

func publish(t *testing.T, r *run, s model.NodeState) {
	t.Helper()
	if err := r.Publish(s); err != nil {
		t.Fatal(err)
	}
}

func names(n int) []model.NodeID {
	out := make([]model.NodeID, n)
	for i := range out {
		out[i] = model.NodeID(fmt.Sprintf("node-%02d.example.internal", i))
	}
	return out
}

func TestClusterConverges(t *testing.T) {
	for seed, n := range map[int64]int{1: 3, 2: 12, 3: 32} {
		t.Run(fmt.Sprint(n, " nodes"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, seed, 0.1)
				defer c.close()
				all := names(n)
				for _, name := range all {
					publish(t, c.node(name), stateOf(all...))
				}
				c.within(2*time.Minute, "all know all, with routes", func() bool { return c.complete(n) })
				for i, r := range c.runs {
					s := stateOf(all...)
					s.Load.Used.CPU = model.Cores(i)
					publish(t, r, s)
				}
				c.within(time.Minute, "the second state is everywhere", func() bool {
					for _, r := range c.runs {
						for i, name := range all {
							if !tells(r.Snapshot().Nodes[name].State.Load.Used.CPU, model.Cores(i)) {
								return false
							}
						}
					}
					return true
				})
			})
		})
	}
}

// tells: what is used is told to 1 in 256.
func tells(told, is model.Cores) bool { return math.Abs(float64(told-is)) <= float64(is)/256 }

func (c *cluster) complete(n int) bool {
	for _, r := range c.runs {
		s := r.Snapshot()
		if len(s.Alive()) != n {
			return false
		}
		for _, node := range s.Nodes {
			if len(node.State.Routes) != n {
				return false
			}
		}
	}
	return true
}

func TestCrashLeaveAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4, 0.05)
		defer c.close()
		a, b, d := c.node("a"), c.node("b"), c.node("d")
		for _, r := range c.runs {
			publish(t, r, stateOf())
		}
		c.within(2*time.Minute, "three are alive, and b is heard", func() bool {
			return len(a.Snapshot().Alive()) == 3 && !a.Snapshot().Nodes["b"].Received.IsZero()
		})

		b.port.Crash()
		c.within(time.Minute, "the crash is seen", func() bool { return !a.Snapshot().Nodes["b"].Alive && !d.Snapshot().Nodes["b"].Alive })
		if a.Snapshot().Nodes["b"].Received.IsZero() {
			t.Error("what a dead node said last is still known")
		}
		d.stop()
		c.within(5*time.Second, "leaving is seen at once", func() bool { return !a.Snapshot().Nodes["d"].Alive })

		before := a.Snapshot().Nodes["b"].State.Version
		again := c.node("b") // a new process: new key, new certificate
		s := stateOf()
		s.BootID = "another"
		publish(t, again, s)
		c.within(2*time.Minute, "the restarted node is back with its new state", func() bool {
			n := a.Snapshot().Nodes["b"]
			return n.Alive && n.State.BootID == "another" && n.State.Version > before
		})
	})
}

func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 5, 0)
		defer c.close()
		a, b := c.node("a"), c.node("b")
		publish(t, a, stateOf())
		publish(t, b, stateOf())
		both := func(n int) func() bool {
			return func() bool { return len(a.Snapshot().Alive()) == n && len(b.Snapshot().Alive()) == n }
		}
		c.within(time.Minute, "two are alive", both(2))
		c.net.Cut(func(_, _ *gossiptest.Port) bool { return true })
		c.within(2*time.Minute, "each is alone", both(1))
		time.Sleep(10 * time.Minute)
		c.net.Cut(nil)
		c.within(2*time.Minute, "two are alive again", both(2))
	})
}

func TestLocationsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 6, 0.1)
		defer c.close()
		a, b := c.node("a"), c.node("b")
		c.node("d")
		l := testLocation("lineage", "a", "b", 1)
		for _, r := range c.runs {
			publish(t, r, stateOf())
		}
		c.within(time.Minute, "three are alive", func() bool { return len(a.Snapshot().Alive()) == 3 })
		for _, r := range []*run{a, b} {
			if err := r.Announce(l); err != nil {
				t.Fatal(err)
			}
		}
		agree := func(want model.Location) func() bool {
			return func() bool {
				for _, r := range c.runs {
					got, ok := r.Snapshot().Location("lineage")
					if !ok || !cmp.Equal(got, want) {
						return false
					}
				}
				return true
			}
		}
		c.within(time.Minute, "all agree on the place", agree(l))
		late := c.node("e")
		back := testLocation("lineage", "b", "a", 2)
		for _, r := range []*run{a, b} {
			if err := r.Announce(back); err != nil {
				t.Fatal(err)
			}
		}
		c.within(time.Minute, "all agree on the next place, the newcomer too", agree(back))
		if err := late.Announce(back); err == nil {
			t.Error("a node announced a move that it has no part in")
		}
	})
}

func testLocation(origin string, from, to model.NodeID, epoch uint64) model.Location {
	return model.Location{
		Origin: origin, Pod: model.PodID{Namespace: "ns", Name: fmt.Sprint("pod-", epoch), UID: fmt.Sprint("uid-", epoch)},
		From: from, Node: to, Epoch: epoch, Migration: fmt.Sprint("move-", epoch), At: time.Unix(1e9+int64(epoch), 0).UTC(),
	}
}

func TestObserverHearsAndSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 7, 0)
		defer c.close()
		a := c.node("a")
		publish(t, a, stateOf("b"))
		o := c.start(c.ca.Identity(t, identity.Subject{Observer: "drover-scheduler-0"}, nil))
		c.within(time.Minute, "the observer sees the node", func() bool { return len(o.Snapshot().Nodes["a"].State.Routes) == 1 })
		if err := o.Publish(stateOf()); err == nil {
			t.Error("an observer published")
		}
		if ids := a.Snapshot().IDs(); len(ids) != 1 {
			t.Errorf("an observer is no node: %v", ids)
		}
		if ms := a.Members(); len(ms) != 2 {
			t.Errorf("members %v, want both", ms)
		}
	})
}

func TestLargeStateArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 8, 0)
		defer c.close()
		a, b := c.node("a"), c.node("b")
		publish(t, a, stateOf())
		publish(t, b, stateOf())
		c.within(time.Minute, "two are alive", func() bool { return len(a.Snapshot().Alive()) == 2 })
		s := stateOf(names(300)...)
		for i := range 200 { // this part cannot be split: it goes by stream
			s.Suffering = append(s.Suffering, model.Contention{Pod: model.PodID{Namespace: "ns", Name: fmt.Sprint(i * 7919), UID: fmt.Sprint(i * 104729)}, Wait: float64(i) / 7})
		}
		publish(t, a, s)
		c.within(5*time.Second, "the large state has arrived", func() bool {
			got := b.Snapshot().Nodes["a"].State
			return len(got.Suffering) == 200 && len(got.Routes) == 300
		})
	})
}
