package gossip

import (
	"maps"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// The picture is drawn when something has changed, not when it is read: a reader takes what
// hangs there, waits for nobody and makes nothing. This node's own words are in it at
// once. What is heard may wait a moment, so that to draw takes a hundredth of the time or so
// however much is heard: it copies what is known of each node, and puts together anew only
// what is known of those from which something was heard.

// drawSpace is the least time between two pictures, for each node in it, up to longestDraw.
const (
	drawSpace   = 100 * time.Microsecond
	longestDraw = time.Second
	// indexSpace is the least time between two times that who talks to whom is put together, for each
	// node, up to longestIndex: it takes all nodes, and changes slowly.
	indexSpace   = 5 * time.Millisecond
	longestIndex = 30 * time.Second
)

// Snapshot is the picture of the cluster at this moment. It takes no lock and no memory.
func (g *Gossip) Snapshot() view.Snapshot {
	s := *g.picture.Load()
	s.At = g.cfg.Now()
	return s
}

// touch is called when something has changed of a node.
func (g *Gossip) touch(id model.NodeID) {
	g.touched[id] = struct{}{}
	g.own = g.own || id == g.cfg.Self.Node
}

// unlock draws the picture when it is time to, tells the subscribers, and has keep look after what
// is under way.
func (g *Gossip) unlock() {
	if g.outdated() {
		if g.drawsOwn() || passed(g.drawn, g.cfg.Now()) >= g.drawSpace(len(g.picture.Load().Nodes)) {
			g.draw()
		}
	}
	if g.calm && (g.owed || g.outdated() || g.spread.Busy()) {
		g.calm = false
		select {
		case g.stirred <- struct{}{}:
		default: // it has not heard of the last time yet
		}
	}
	g.mu.Unlock()
}

func (g *Gossip) outdated() bool { return g.own || g.anew || len(g.touched) > 0 }

// index puts together who talks to whom, when that has changed and it is time to. Among many nodes
// it takes a while, in which it holds up nobody: it is for keepIndex alone.
func (g *Gossip) index() {
	g.mu.Lock()
	now, s := g.cfg.Now(), g.picture.Load()
	if !g.retold || passed(g.indexed, now) < min(indexSpace*time.Duration(len(s.Nodes)), longestIndex) {
		g.mu.Unlock()
		return
	}
	g.retold, g.indexed = false, now
	g.mu.Unlock()
	talk := s.Indexed().Talk
	g.mu.Lock()
	defer g.mu.Unlock()
	next := *g.picture.Load()
	next.Talk = talk
	g.hang(&next)
}

func (g *Gossip) draw() {
	old := g.picture.Load()
	s := &view.Snapshot{Self: g.cfg.Self.Node, Locations: old.Locations, Talk: old.Talk}
	if g.anew {
		s.Nodes = make(map[model.NodeID]view.Node, len(g.members))
		for _, m := range g.members {
			if m.Node != "" {
				g.touch(m.Node)
			}
		}
		for id := range g.store.nodes {
			g.touch(id)
		}
		for id := range old.Nodes {
			g.touch(id)
		}
	} else {
		s.Nodes = maps.Clone(old.Nodes)
	}
	for id := range g.touched {
		n, known := g.look(id)
		g.retold = g.retold || !sameTalk(old.Nodes[id].State, n.State)
		if known {
			s.Nodes[id] = n
		} else {
			delete(s.Nodes, id)
		}
	}
	g.judge(s)
	if g.store.placesChanged {
		s.Locations = g.store.confirmedPlaces()
	}
	clear(g.touched)
	g.own, g.anew, g.drawn = false, false, g.cfg.Now()
	g.hang(s)
}

// hang hands a picture out.
func (g *Gossip) hang(s *view.Snapshot) {
	g.picture.Store(s)
	for ch := range g.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// look gives what is known of a node: of this one all that it published, also what was not
// worth telling the others.
func (g *Gossip) look(id model.NodeID) (n view.Node, known bool) {
	m, member := g.members[memberName(id)]
	self := id == g.cfg.Self.Node
	n = view.Node{State: model.NodeState{Node: id}, Alive: member && m.Alive || self, Phase: g.standings[id].phase}
	if !n.Alive && member {
		n.Missing = m.Since
	}
	if self && g.state != nil {
		n.State, n.Received, n.Recent = *g.state, g.published, g.recent
		return n, true
	}
	if e := g.store.nodes[id]; e != nil {
		if state, ok := e.whole(); ok {
			n.State, n.Received = state, e.received()
			if e.load != nil {
				n.Recent = e.load.recent
			}
			if !n.Alive && !member {
				n.Missing = n.Received
			}
			return n, true
		}
	}
	return n, member
}
