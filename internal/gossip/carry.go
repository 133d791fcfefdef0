package gossip

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/drover-project/drover/internal/spread"
)

// carried is the store as internal/spread sees it. Its methods are called under g.mu.
type carried struct{ g *Gossip }

func (c carried) Take(raw []byte) (spread.Slot, uint64, spread.Verdict) {
	// What is kept must not keep the packet.
	at, version, got := c.g.ingest(c.g.clone(raw))
	switch got {
	case accepted:
		if c.g.isOwn(at) {
			return 0, 0, spread.Refused
		}
		return spread.Slot(at.id()), version, spread.Fresh
	case duplicate:
		return spread.Slot(at.id()), version, spread.Known
	case stale:
		return spread.Slot(at.id()), version, spread.Stale
	default:
		return 0, 0, spread.Refused
	}
}

func (c carried) Get(at spread.Slot) []byte {
	raw, _ := c.g.store.get(slotID(at))
	return raw
}

// isOwn tells of a record that came from others whether it speaks for this node: it is from
// before a restart then.
func (g *Gossip) isOwn(at slot) bool {
	return at.origin == g.cfg.Self.Node && at.kind != kindCertificate
}

// ingest takes one record in that others said.
func (g *Gossip) ingest(raw []byte) (slot, uint64, result) {
	at, version, got := g.store.ingest(raw, g.cfg.Now())
	g.metrics.records.WithLabelValues(string(got)).Inc()
	if got == accepted {
		g.tell(at, version, raw)
		g.touch(at.origin)
		if g.isOwn(at) {
			g.last = max(g.last, version)
			g.returned = g.returned || at.kind != kindLocation
		}
	}
	return at, version, got
}

// outdoSpace is the least time between two times that what has returned is outdone: two agents of
// one name do it to each other for as long as there are two.
const outdoSpace = time.Second

// outdoOwed outdoes what has returned.
func (g *Gossip) outdoOwed() {
	now := g.cfg.Now()
	if !g.returned || passed(g.outdone, now) < outdoSpace {
		return
	}
	g.returned, g.outdone = false, now
	g.outdo()
}

// post hands packets to those who send them. What there is no room for is lost, as packets
// may be.
func (g *Gossip) post(packets []spread.Packet) {
	for _, p := range packets {
		to := g.packets
		if p.Stream {
			to = g.streams
		}
		select {
		case to <- p:
		default:
			g.metrics.unsent.Inc()
		}
	}
}

const (
	packetsWaiting = 4096
	streamsWaiting = 64
	// streamSenders is how many streams are sent at once: one to a member that is gone waits long.
	streamSenders = 8
)

// carry sends what is posted until ctx ends.
func (g *Gossip) carry(ctx context.Context, ml *memberlist.Memberlist) {
	var senders sync.WaitGroup
	for range streamSenders {
		senders.Go(func() { g.sendEach(ctx, g.streams, ml.SendReliable) })
	}
	g.sendEach(ctx, g.packets, ml.SendBestEffort)
	senders.Wait()
}

func (g *Gossip) sendEach(ctx context.Context, posted <-chan spread.Packet, send func(*memberlist.Node, []byte) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-posted:
			g.mu.Lock()
			n, member := g.peers[p.To]
			g.mu.Unlock()
			if !member {
				continue
			}
			if err := send(&n, p.Bytes); err != nil {
				g.cfg.Log.Debug("not sent; if it matters it is sent again", "to", n.Name, "bytes", len(p.Bytes), "stream", p.Stream, "error", err)
			}
		}
	}
}
