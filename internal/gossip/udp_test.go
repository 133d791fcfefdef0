package gossip

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

// loopback starts a member on real UDP and TCP, on a free port of an address of its own.
func loopback(t *testing.T, id *identity.Identity, ca *identitytest.Authority, address, seed string, reg prometheus.Registerer) *Gossip {
	t.Helper()
	g, err := New(Config{
		Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(), SecretKey: testKey,
		BindAddr: address, BindPort: freePort(t, address), Registerer: reg,
		Seeds: func(context.Context) ([]string, error) { return []string{seed}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Logf("gossip on %s: %v", address, err)
		}
	})
	return g
}

// freePort finds a port that is free for UDP and TCP.
func freePort(t *testing.T, address string) int {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// await reads changes until ok holds. The bound is for a test that hangs, not a claim.
func await(t *testing.T, g *Gossip, what string, ok func() bool) {
	t.Helper()
	changes, cancel := g.Subscribe()
	defer cancel()
	limit := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-changes:
		case <-limit:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestThreeOverUDP(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	reg := prometheus.NewRegistry()
	a := loopback(t, ca.Node(t, "a"), ca, "127.0.0.1", "127.0.0.1:1", reg)
	seed := net.JoinHostPort("127.0.0.1", strconv.Itoa(a.cfg.BindPort))
	all := []*Gossip{a,
		loopback(t, ca.Node(t, "b"), ca, "127.0.0.1", seed, nil),
		loopback(t, ca.Identity(t, identity.Subject{Observer: "o"}, nil), ca, "127.0.0.1", seed, nil),
	}
	for _, g := range all[:2] {
		if err := g.Publish(stateOf("a", "b")); err != nil {
			t.Fatal(err)
		}
	}
	l := testLocation("lineage", "a", "b", 1)
	for _, g := range all[:2] {
		if err := g.Announce(l); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range all {
		await(t, g, "the whole picture", func() bool {
			s := g.Snapshot()
			_, placed := s.Location("lineage")
			return placed && len(s.Alive()) == 2 && !s.Nodes["a"].Received.IsZero() && !s.Nodes["b"].Received.IsZero()
		})
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]float64{}
	for _, f := range families {
		if g := f.GetMetric()[0].GetGauge(); g != nil {
			seen[f.GetName()] = g.GetValue()
		}
	}
	if seen["drover_gossip_members"] != 3 || seen["drover_gossip_locations"] != 1 {
		t.Errorf("metrics %v, want 3 members and 1 location", seen)
	}
}

func TestAnotherKeyIsNoMember(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	a := loopback(t, ca.Node(t, "a"), ca, "127.0.0.1", "127.0.0.1:1", nil)
	id := ca.Node(t, "b")
	b, err := New(Config{
		Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(),
		SecretKey: []byte("another key of 32 bytes, no more"), BindAddr: "127.0.0.1", BindPort: freePort(t, "127.0.0.1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, a, "it knows itself", func() bool { return len(a.Members()) == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	// One try after the other; none may succeed. missing() asks for seeds until then.
	tries := make(chan struct{}, 16)
	b.cfg.Seeds = func(context.Context) ([]string, error) {
		select {
		case tries <- struct{}{}:
		default:
		}
		return []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(a.cfg.BindPort))}, nil
	}
	go func() { done <- b.Run(ctx) }()
	<-tries
	<-tries // the first has ended
	cancel()
	<-done
	if n := len(a.Members()); n != 1 {
		t.Errorf("%d members, want 1", n)
	}
}

func TestConfigIsChecked(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	id := ca.Node(t, "a")
	good := Config{Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(), SecretKey: testKey}
	for name, change := range map[string]func(*Config){
		"short key": func(c *Config) { c.SecretKey = c.SecretKey[:15] }, "no key": func(c *Config) { c.SecretKey = nil },
		"no CA": func(c *Config) { c.Roots = nil }, "no identity": func(c *Config) { c.Identity = nil },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	none := good
	none.Identity = func() *identity.Identity { return nil }
	g, err := New(none)
	if err != nil {
		t.Fatal(err)
	}
	if g.Publish(model.NodeState{}) == nil || g.Announce(testLocation("l", "a", "b", 1)) == nil {
		t.Error("spoke without a certificate")
	}
}

// A state from before a restart, said with a clock that has gone back since, must not
// silence the node.
func TestOutdoesItsOwnPast(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	id := ca.Node(t, "a")
	now := time.Now()
	g, err := New(Config{
		Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(), SecretKey: testKey,
		Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	past := ca.Node(t, "a") // the key of the process before
	v := uint64(now.Add(time.Hour).UnixNano())
	b := bench{t: t, store: g.store, now: now}
	ghost := b.registration(past, v)
	if err := g.Publish(model.NodeState{BootID: "now"}); err != nil {
		t.Fatal(err)
	}
	g.hear([][]byte{b.certificate(past), ghost})
	if s := g.Snapshot().Nodes["a"].State; s.BootID != "now" || s.Version <= v {
		t.Errorf("state %q with version %d, want the present one with more than %d", s.BootID, s.Version, v)
	}
}
