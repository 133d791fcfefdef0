package gossip

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

const (
	// spacing bounds how often a state is spread: each member costs the others a packet or
	// so for each state, so that the time between two grows with the number of members.
	spacing       = 20 * time.Millisecond
	shortestSpace = 500 * time.Millisecond
	longestSpace  = 15 * time.Second
	// certificateSpace is how often the own certificate is repeated.
	certificateSpace = 15 * time.Second
)

// broadcast is a queued record; a newer one for the same slot takes its place.
type broadcast struct {
	name string
	raw  []byte
}

func (b broadcast) Name() string    { return b.name }
func (b broadcast) Message() []byte { return b.raw }
func (b broadcast) Finished()       {}

// Invalidates is not asked for named broadcasts, but has to be there.
func (b broadcast) Invalidates(o memberlist.Broadcast) bool {
	other, ok := o.(broadcast)
	return ok && other.name == b.name
}

// nextVersion grows with the clock, so that it also grows over a restart.
func (g *Gossip) nextVersion() uint64 {
	g.last = max(g.last+1, uint64(g.cfg.Now().UnixNano()))
	return g.last
}

// take puts an own record into the store and, if told to, into the queue.
func (g *Gossip) take(raw []byte, spread bool) error {
	at, _, got := g.store.ingest(raw, g.cfg.Now())
	if got != accepted && got != duplicate {
		return fmt.Errorf("own record refused: %s", got)
	}
	g.snapshot = nil
	if spread {
		g.spread(at, raw)
	}
	return nil
}

// spread queues a record for packets, or for streams when it is too large for one.
func (g *Gossip) spread(at slot, raw []byte) {
	if len(raw) <= packetRecord {
		g.queue.QueueBroadcast(broadcast{name: at.String(), raw: raw})
		return
	}
	select {
	case g.large <- raw:
	default: // they will get it with the next push/pull
	}
}

// certify puts the own certificate into the store when it is new.
func (g *Gossip) certify(id *identity.Identity) error {
	if g.certified == id {
		return nil
	}
	raw, err := seal(id, kindCertificate, certificateVersion(id.Cert), id.Cert.Raw)
	if err != nil {
		return err
	}
	if err := g.take(raw, true); err != nil {
		return fmt.Errorf("own certificate: %w", err)
	}
	g.certified = id
	return nil
}

// sayState stores the own state and queues it unless one was queued a moment ago.
func (g *Gossip) sayState(id *identity.Identity, s model.NodeState) error {
	if err := g.certify(id); err != nil {
		return err
	}
	raws, err := g.store.codec.sealState(id, s)
	if err != nil {
		return err
	}
	for _, raw := range raws {
		if err := g.take(raw, false); err != nil {
			return err
		}
	}
	g.owed = true
	g.payOwed()
	return nil
}

// payOwed queues the own state when enough time has passed since the last.
func (g *Gossip) payOwed() {
	wait := min(max(spacing*time.Duration(len(g.members)), shortestSpace), longestSpace)
	now := g.cfg.Now()
	if !g.owed || now.Sub(g.queuedAt) < wait {
		return
	}
	for at, raw := range g.store.from(g.cfg.Self.Node) {
		if at.kind != kindCertificate {
			g.spread(at, raw)
		}
	}
	g.owed, g.queuedAt = false, now
}

// repeatCertificate queues the own certificate again, for those that missed it.
func (g *Gossip) repeatCertificate() {
	for at, raw := range g.store.from(g.cfg.Self.Node) {
		if at.kind == kindCertificate {
			g.spread(at, raw)
		}
	}
}

// outdo is called when a record of this node itself came back with a version greater than
// any given out: from before a restart, with a clock that has gone back since. The state
// is said again with a version that beats it.
func (g *Gossip) outdo(version uint64) {
	if version <= g.last {
		return
	}
	g.last = version
	id, err := g.identity()
	if err != nil || g.state == nil {
		return
	}
	s := *g.state
	s.Version = g.nextVersion()
	if err := g.sayState(id, s); err != nil {
		g.cfg.Log.Warn("could not repeat own state", "error", err)
		return
	}
	g.state = &s
}
