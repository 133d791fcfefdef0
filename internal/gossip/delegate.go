package gossip

import (
	"bytes"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/spread"
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
	b = bytes.Clone(b)
	if !spread.Is(b) {
		d.g.hear([][]byte{b})
		return
	}
	g := d.g
	g.mu.Lock()
	defer g.unlock()
	g.post(g.spread.Receive(g.cfg.Now(), b))
	g.outdoOwed()
}

// Records are carried by internal/spread: memberlist's own ways of spreading anything carry
// the membership alone.

func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }

func (d delegate) LocalState(bool) []byte { return nil }

func (d delegate) MergeRemoteState([]byte, bool) {}

// hear takes in bare records, which are passed on to nobody.
func (g *Gossip) hear(raws [][]byte) {
	g.mu.Lock()
	defer g.unlock()
	for _, raw := range raws {
		g.ingest(raw)
	}
	g.outdoOwed()
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
	old := g.members[n.Name]
	if old.Name != "" && old.Alive == alive {
		m.Since = old.Since
	}
	g.members[n.Name] = m
	g.count(old.Alive, alive)
	if m.Node != "" {
		g.touch(m.Node)
	}
	peer := spread.PeerOf(n.Name)
	if alive {
		g.peers[peer] = *n
		g.spread.Join(g.cfg.Now(), peer)
	} else {
		delete(g.peers, peer)
		g.post(g.spread.Leave(g.cfg.Now(), peer))
	}
	g.cfg.Log.Info("member", "name", m.Name, "address", m.Address, "alive", alive)
}

// Members lists the members, sorted by name, the dead for a while too.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return sortedMembers(g.members)
}

// size is how many members are alive, this one included.
func (g *Gossip) size() int { return max(1, int(g.alive.Load())) }

// count is called when a member is held for alive, or is no more.
func (g *Gossip) count(was, is bool) {
	switch {
	case is && !was:
		g.alive.Add(1)
	case was && !is:
		g.alive.Add(-1)
	}
}
