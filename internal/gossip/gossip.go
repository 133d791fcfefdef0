// Package gossip spreads what every node knows about itself to all others, without a
// master: load, route times, and where moved pods went. It runs over memberlist (SWIM
// with Lifeguard), of which it is the only importer.
//
// Membership and transport are encrypted with the cluster's gossip key, but that key is
// shared, so nothing is believed because of it. Every record is signed by its origin with
// the key of a certificate of Drover's CA that names the origin's Node; certificates
// travel as records themselves. What an origin may say is bounded: its own state, and
// places of pods that it took part in moving.
package gossip

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Transport carries packets and streams; tests bring their own.
type Transport = memberlist.Transport

// DefaultPort is the port of gossip, UDP and TCP.
const DefaultPort = 7946

// Config says who takes part, with whom, and how.
type Config struct {
	// Self is who this member is. An observer hears everything and says nothing.
	Self identity.Subject
	// Identity gives the identity of the moment; not used for an observer, may be nil then.
	Identity func() *identity.Identity
	// Roots holds Drover's CA.
	Roots *x509.CertPool
	// SecretKey encrypts all traffic: 16, 24 or 32 bytes (AES-GCM).
	SecretKey []byte
	// BindAddr and BindPort are listened on; BindAddr is also what others are told.
	BindAddr string
	BindPort int
	// Seeds gives addresses (host or host:port) of some other members; it is asked again
	// and again, so that members that lost each other find together.
	Seeds func(context.Context) ([]string, error)
	// Confirmer may be nil: then only both ends' signatures confirm a location.
	Confirmer Confirmer
	// Transport replaces UDP and TCP.
	Transport  Transport
	Registerer prometheus.Registerer
	Log        *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Gossip is one member. All methods are safe for concurrent use, also before Run.
type Gossip struct {
	cfg     Config
	metrics *metrics
	queue   *memberlist.TransmitLimitedQueue

	mu        sync.Mutex
	store     *store
	members   map[string]Member
	last      uint64           // version given out last
	state     *model.NodeState // own, as published last
	owed      bool             // own state is newer than what was queued last
	queuedAt  time.Time
	certified *identity.Identity // whose certificate is in the store
	snapshot  *view.Snapshot     // nil when it must be made anew
	places    []model.Location
	watchers  map[chan struct{}]struct{}

	alive atomic.Int64 // members alive
	large chan []byte  // records too large for a packet
}

// New checks the configuration and returns a member that is not running yet.
func New(cfg Config) (*Gossip, error) {
	if n := len(cfg.SecretKey); n != 16 && n != 24 && n != 32 {
		return nil, fmt.Errorf("gossip key has %d bytes, want 16, 24 or 32", n)
	}
	if cfg.Roots == nil {
		return nil, errors.New("gossip needs the CA's certificates")
	}
	if cfg.Self.IsNode() && cfg.Identity == nil {
		return nil, errors.New("gossip of a node needs its identity")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		cfg:      cfg,
		store:    newStore(cfg.Roots, codec, cfg.Confirmer),
		members:  map[string]Member{},
		watchers: map[chan struct{}]struct{}{},
		large:    make(chan []byte, 64),
	}
	g.queue = &memberlist.TransmitLimitedQueue{NumNodes: g.size, RetransmitMult: retransmitMult}
	g.metrics, err = newMetrics(cfg.Registerer, g)
	return g, err
}

// ErrObserver is what an observer gets that tries to say something.
var ErrObserver = errors.New("an observer publishes nothing")

// Publish makes a state this node's current one, here at once and everywhere else soon.
// Node and Version are set by it: a version is greater than all before it, also over
// restarts of the process. In a large cluster states are spread less often than they are
// published; the newest is what is spread.
func (g *Gossip) Publish(s model.NodeState) error {
	id, err := g.identity()
	if err != nil {
		return fmt.Errorf("publish state: %w", err)
	}
	g.mu.Lock()
	defer g.unlock()
	s.Node, s.Version = g.cfg.Self.Node, g.nextVersion()
	if err := g.sayState(id, s); err != nil {
		return fmt.Errorf("publish state: %w", err)
	}
	g.state = &s
	return nil
}

// Announce says where a pod is that left this node or came to it, and repeats what was
// said when called again. Others count it once the other end says the same, or their
// Confirmer knows of it.
func (g *Gossip) Announce(l model.Location) error {
	id, err := g.identity()
	if err != nil {
		return fmt.Errorf("announce location: %w", err)
	}
	if !wellFormed(l) || (l.Node != g.cfg.Self.Node && l.From != g.cfg.Self.Node) {
		return fmt.Errorf("announce location: %+v is incomplete, or %q is neither end of it", l, g.cfg.Self.Node)
	}
	g.mu.Lock()
	defer g.unlock()
	if err := g.certify(id); err != nil {
		return fmt.Errorf("announce location: %w", err)
	}
	body, err := g.store.codec.encode(l)
	if err != nil {
		return fmt.Errorf("announce location: %w", err)
	}
	raw, err := seal(id, kindLocation, g.nextVersion(), body)
	if err != nil {
		return fmt.Errorf("announce location: %w", err)
	}
	return g.take(raw, true)
}

// Reconfirm asks the Confirmer again about locations that only one end has announced. To
// be called when the records have changed.
func (g *Gossip) Reconfirm() {
	g.mu.Lock()
	defer g.unlock()
	g.store.placesChanged = true
	g.snapshot = nil
}

// Snapshot is the picture of the cluster at this moment.
func (g *Gossip) Snapshot() view.Snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.snapshot == nil {
		g.snapshot = g.draw()
	}
	s := *g.snapshot
	s.At = g.cfg.Now()
	return s
}

// draw makes a snapshot. Maps of routes are shared with earlier ones: nobody changes them.
func (g *Gossip) draw() *view.Snapshot {
	if g.store.placesChanged {
		g.places = g.store.confirmedPlaces()
	}
	s := &view.Snapshot{Self: g.cfg.Self.Node, Nodes: map[model.NodeID]view.Node{}, Locations: g.places}
	for _, m := range g.members {
		if m.Node != "" {
			s.Nodes[m.Node] = view.Node{State: model.NodeState{Node: m.Node}, Alive: m.Alive}
		}
	}
	for id, e := range g.store.nodes {
		if state := e.whole(); state != nil {
			s.Nodes[id] = view.Node{State: *state, Received: e.received, Alive: s.Nodes[id].Alive || id == g.cfg.Self.Node}
		}
	}
	return s
}

// Subscribe gives a channel on which something arrives after the picture has changed;
// changes in quick succession arrive as one. Cancel ends it.
func (g *Gossip) Subscribe() (changes <-chan struct{}, cancel func()) {
	ch := make(chan struct{}, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers[ch] = struct{}{}
	return ch, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watchers, ch)
	}
}

// unlock tells the subscribers when the snapshot was spoilt under the lock.
func (g *Gossip) unlock() {
	if g.snapshot == nil {
		for ch := range g.watchers {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
	g.mu.Unlock()
}

func (g *Gossip) identity() (*identity.Identity, error) {
	if !g.cfg.Self.IsNode() {
		return nil, ErrObserver
	}
	id := g.cfg.Identity()
	if id == nil {
		return nil, fmt.Errorf("%s has no certificate yet", g.cfg.Self)
	}
	return id, nil
}
