package gossip

import (
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// Member is one member of the cluster, as memberlist sees it.
type Member struct {
	// Name is the common name of the member's certificate, as it says itself.
	Name string `json:"name"`
	// Node is set for an agent, empty for an observer.
	Node model.NodeID `json:"node,omitempty"`
	// Address is host:port.
	Address string `json:"address"`
	Alive   bool   `json:"alive"`
	// Since is when Alive last changed, by this member's clock.
	Since time.Time `json:"since"`
}

// delegate is what memberlist calls. It is a type of its own so that these methods are no
// part of Gossip's face.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
)

// NodeMeta: nothing is in the metadata, since nothing in it is signed.
func (d delegate) NodeMeta(int) []byte { return nil }

func (d delegate) NotifyMsg(b []byte) {
	// memberlist may use the buffer again.
	d.g.hear([][]byte{append([]byte(nil), b...)})
}

func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.g.queue.GetBroadcasts(overhead, limit)
}

func (d delegate) LocalState(bool) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return joinRecords(d.g.store.all())
}

func (d delegate) MergeRemoteState(b []byte, _ bool) {
	raws, whole := splitRecords(append([]byte(nil), b...))
	if !whole {
		d.g.metrics.records.WithLabelValues(string(malformed)).Inc()
	}
	d.g.hear(raws)
}

// hear takes in what others say, and passes on what is new.
func (g *Gossip) hear(raws [][]byte) {
	g.mu.Lock()
	defer g.unlock()
	now := g.cfg.Now()
	for _, raw := range raws {
		at, version, got := g.store.ingest(raw, now)
		g.metrics.records.WithLabelValues(string(got)).Inc()
		if got != accepted {
			continue
		}
		g.touch(at.origin)
		if at.origin == g.cfg.Self.Node && at.kind != kindCertificate {
			g.outdo(at, version)
			continue
		}
		if len(raw) <= packetRecord {
			g.queue.QueueBroadcast(broadcast{name: at.String(), raw: raw})
		}
	}
}

func (d delegate) NotifyJoin(n *memberlist.Node) { d.g.note(n, true) }

func (d delegate) NotifyLeave(n *memberlist.Node) { d.g.note(n, false) }

func (d delegate) NotifyUpdate(n *memberlist.Node) { d.g.note(n, true) }

func (g *Gossip) note(n *memberlist.Node, alive bool) {
	g.mu.Lock()
	defer g.unlock()
	m := Member{
		Name:    n.Name,
		Address: net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port))),
		Alive:   alive,
		Since:   g.cfg.Now(),
	}
	if node, ok := identity.NodeOf(n.Name); ok {
		m.Node = node
	}
	if old, ok := g.members[n.Name]; ok && old.Alive == alive {
		m.Since = old.Since
	}
	g.members[n.Name] = m
	g.count()
	if m.Node != "" {
		g.touch(m.Node)
	}
	if alive {
		g.repeatCertificate()
	}
	g.cfg.Log.Info("member", "name", m.Name, "address", m.Address, "alive", alive)
}

// Members lists the members, sorted by name, the dead for a while too.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return sortedMembers(g.members)
}

// size is how many members are alive, this one included. The queue asks for it while it
// holds its own lock, so it must not wait for g.mu.
func (g *Gossip) size() int { return max(1, int(g.alive.Load())) }

// count is called whenever members has changed.
func (g *Gossip) count() {
	var n int64
	for _, m := range g.members {
		if m.Alive {
			n++
		}
	}
	g.alive.Store(n)
}
