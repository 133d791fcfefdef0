package gossip

import (
	"maps"
	"time"

	"github.com/drover-project/drover/internal/lifecycle"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// standing is since when a node is held for what it is.
type standing struct {
	phase model.Phase
	since time.Time
}

// settledAfter is how long another node has to have been a member before what nobody has told
// is not known to anybody: in that time several push/pulls have brought all that there is.
const settledAfter = time.Minute

// judge fills in the phases of a picture that is about to be handed out. Until then its nodes have
// those of before.
func (g *Gossip) judge(s *view.Snapshot) {
	now := g.cfg.Now()
	maps.DeleteFunc(g.standings, func(id model.NodeID, _ standing) bool { _, known := s.Nodes[id]; return !known })
	missing := missingIn(s)
	for id, n := range s.Nodes {
		if n.Alive {
			g.hold(s, id, n, lifecycle.Verdict{Phase: lifecycle.Said(n)}, now)
		}
	}
	if len(missing) == 0 {
		return
	}
	evidence := lifecycle.Weigh(*s, now)
	for _, id := range missing {
		g.hold(s, id, s.Nodes[id], evidence.Judge(id), now)
	}
}

// hold writes a verdict into a picture.
func (g *Gossip) hold(s *view.Snapshot, id model.NodeID, n view.Node, v lifecycle.Verdict, now time.Time) {
	was, known := g.standings[id]
	if was.phase != v.Phase {
		g.standings[id] = standing{v.Phase, now}
		g.metrics.phases.WithLabelValues(string(v.Phase)).Inc()
		if known {
			g.cfg.Log.Info("node", "node", id, "was", was.phase, "is", v.Phase, "why", v.Why)
		}
	}
	if since := g.standings[id].since; n.Phase != v.Phase || n.Since != since || n.Why != v.Why { // most stay as they are, and are large
		n.Phase, n.Since, n.Why = v.Phase, since, v.Why
		s.Nodes[id] = n
	}
}

// missingIn lists the nodes that are not held for alive.
func missingIn(s *view.Snapshot) (missing []model.NodeID) {
	for id, n := range s.Nodes {
		if !n.Alive {
			missing = append(missing, id)
		}
	}
	return missing
}

// settleSpace is the least time between two looks whether time alone has changed a verdict.
const settleSpace = time.Second

// leftSpace is how long a node is held for left before it is forgotten: who has forgotten it does
// not say any more that it is silent, which others have to have heard before.
const leftSpace = 5 * time.Second

// settle looks whether time alone has changed a verdict, and forgets who has left.
func (g *Gossip) settle(now time.Time) {
	if passed(g.settledAt, now) < settleSpace {
		return
	}
	g.settledAt = now
	s := g.picture.Load()
	missing := missingIn(s)
	if len(missing) == 0 {
		return
	}
	evidence := lifecycle.Weigh(*s, now)
	for _, id := range missing {
		n := s.Nodes[id]
		switch v := evidence.Judge(id); {
		case v.Phase == model.Left && n.Phase == model.Left && !g.present(id) && now.Sub(n.Since) >= leftSpace:
			g.cfg.Log.Info("a node has left and is forgotten", "node", id)
			g.forget(id, now)
		case v.Phase != n.Phase || v.Why != n.Why:
			g.touch(id)
		}
	}
}

// present tells whether a node is a member, or this one.
func (g *Gossip) present(id model.NodeID) bool {
	return id == g.cfg.Self.Node || g.members[memberName(id)].Alive
}

// Settled tells whether another node has been a member for long enough for this one to know
// what there is to be known: whoever is not in the picture then is in nobody's. A member counts that
// has signed something since it came: by the gossip's key alone anybody can be made up.
func (g *Gossip) Settled() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.cfg.Now()
	for _, m := range g.members {
		if m.Node == "" || m.Node == g.cfg.Self.Node || !m.Alive || now.Sub(m.Since) < settledAfter {
			continue
		}
		if e := g.store.nodes[m.Node]; e != nil && e.received().After(m.Since) {
			return true
		}
	}
	return false
}
