// Package gossip spreads what every node knows about itself to all others, without a
// master: load, route times, and where moved pods went. Who is a member is memberlist's to
// say (SWIM with Lifeguard), of which it is the only importer; what members say travels as
// internal/spread decides.
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
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/keyring"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peak"
	"github.com/drover-project/drover/internal/spread"
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
	// SecretKey encrypts all traffic: 16, 24 or 32 bytes (AES-GCM). In its place KeyFile may name
	// a file with a list of keys (keyring.Parse), which Run reads, and follows when it changes.
	SecretKey []byte
	KeyFile   string
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
	// Simulation is nil outside of simulations.
	Simulation *Simulation
}

// Gossip is one member. All methods are safe for concurrent use, also before Run.
type Gossip struct {
	cfg     Config
	metrics *metrics
	ring    *memberlist.Keyring

	mu        sync.Mutex
	store     *store
	spread    *spread.Spread
	peers     map[spread.Peer]memberlist.Node
	returned  bool      // own records that others had, and this node not
	outdone   time.Time // last
	members   map[string]Member
	last      uint64           // version given out last
	state     *model.NodeState // own, as published last
	published time.Time
	recent    peak.Excess        // own
	said      *words             // nil: nothing in this life, or all must be said again
	owed      bool               // something was put off
	certified *identity.Identity // whose certificate is in the store
	watchers  map[chan struct{}]struct{}
	standings map[model.NodeID]standing
	settledAt time.Time

	// What has changed since the picture was drawn.
	touched map[model.NodeID]struct{}
	own     bool // by this member itself
	anew    bool // anything
	drawn   time.Time
	retold  bool      // ends or edges, since they were put together
	indexed time.Time // when they were
	picture atomic.Pointer[view.Snapshot]

	alive   atomic.Int64 // members alive
	packets chan spread.Packet
	streams chan spread.Packet

	calm    bool          // keep waits for longer
	stirred chan struct{} // tells keep that it is to wait no longer
}

// New checks the configuration and returns a member that is not running yet.
func New(cfg Config) (*Gossip, error) {
	ring := &memberlist.Keyring{}
	if cfg.KeyFile == "" {
		if err := (keyring.Keys{cfg.SecretKey}).Validate(); err != nil {
			return nil, err
		}
		if err := ring.AddKey(cfg.SecretKey); err != nil {
			return nil, err
		}
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
	codec, err := codecFor(cfg.Simulation)
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		cfg: cfg, ring: ring,
		store:    newStore(cfg.Roots, codec, cfg.Confirmer),
		members:  map[string]Member{},
		watchers: map[chan struct{}]struct{}{}, standings: map[model.NodeID]standing{},
		touched: map[model.NodeID]struct{}{},
		packets: make(chan spread.Packet, packetsWaiting),
		streams: make(chan spread.Packet, streamsWaiting),
		peers:   map[spread.Peer]memberlist.Node{},
		stirred: make(chan struct{}, 1),
	}
	g.store.self = cfg.Self.Node
	g.picture.Store(&view.Snapshot{Self: cfg.Self.Node, Nodes: map[model.NodeID]view.Node{}})
	g.simulate()
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	g.spread = spread.New(spread.PeerOf(cfg.Self.CommonName()), carried{g}, rng)
	g.metrics, err = newMetrics(cfg.Registerer, g)
	return g, err
}

// ErrObserver is what an observer gets that tries to say something.
var ErrObserver = errors.New("an observer publishes nothing")

// Publish makes a state this node's current one, here at once and everywhere else soon.
// Node and Version are set by it: a version is greater than all before it, also over
// restarts of the process. The others are told what has changed beyond its dead band, in a
// large cluster a little later; what was not told again stands, as long as Publish is called.
func (g *Gossip) Publish(s model.NodeState) error {
	id, err := g.identity()
	if err != nil {
		return fmt.Errorf("publish state: %w", err)
	}
	g.mu.Lock()
	defer g.unlock()
	g.reckon()
	if g.returned { // what is said now outdoes it
		g.returned, g.outdone, g.said = false, g.cfg.Now(), nil
	}
	s.Node, s.Version = g.cfg.Self.Node, g.nextVersion()
	if err := g.say(id, &s, true); err != nil {
		return fmt.Errorf("publish state: %w", err)
	}
	if g.state != nil {
		g.recent = g.recent.Follow(g.state.Load, s.Load, g.cfg.Now())
	}
	g.state, g.published = &s, g.cfg.Now()
	g.touch(s.Node)
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
	g.reckon()
	if err := g.certify(id); err != nil {
		return fmt.Errorf("announce location: %w", err)
	}
	if err := g.sayJSON(id, kindLocation, g.nextVersion(), l); err != nil {
		return fmt.Errorf("announce location: %w", err)
	}
	return nil
}

// Reconfirm asks the Confirmer again about locations that only one end has announced. To
// be called when the records have changed.
func (g *Gossip) Reconfirm() {
	g.mu.Lock()
	defer g.unlock()
	g.store.placesChanged, g.own = true, true
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
