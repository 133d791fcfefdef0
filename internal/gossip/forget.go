package gossip

import (
	"time"

	"github.com/drover-project/drover/internal/model"
)

// oblivion keeps what was forgotten from coming back: others may hold it a while longer, and
// pass it on.
type oblivion struct {
	version uint64 // and all before it
	since   time.Time
}

// holds tells whether a record of that version is one of those. It ends after deadRetention,
// when nobody has any of them, so that a node whose clock has gone back is not silenced.
func (o oblivion) holds(version uint64, now time.Time) bool {
	return version <= o.version && now.Sub(o.since) <= deadRetention
}

// forget drops a node's report. Its certificates stay until they expire, and where its pods
// went for as long as that is of use.
func (s *store) forget(e *nodeEntry, now time.Time) {
	var newest uint64
	for k := range e.report.each {
		newest = max(newest, k.version)
		s.remove(k)
	}
	if newest > 0 {
		e.report, e.forgotten = newReport(), oblivion{newest, now}
	}
}

// forget drops a node that has left.
func (g *Gossip) forget(id model.NodeID, now time.Time) {
	if e := g.store.nodes[id]; e != nil {
		g.store.forget(e, now)
	}
	g.count(g.members[memberName(id)].Alive, false)
	delete(g.members, memberName(id))
	g.touch(id)
}
