package measure

import (
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
)

const (
	// silentAfter is for how long, and silentProbes for how many probes, a peer has not to have
	// answered for it to be silent: more than what is lost on a bad network, or while an agent
	// takes over the programs of another.
	silentAfter  = 5 * time.Second
	silentProbes = 10
)

// quiet is since when, and since which of its probes, a peer has not answered.
type quiet struct {
	since time.Time
	turn  int
}

// Silent lists the peers that have answered none of the last probes, in order.
func (r *Routes) Silent(now time.Time) []model.NodeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var silent []model.NodeID
	for id, address := range r.peers {
		if way := r.routes[address]; now.Sub(way.quiet.since) >= silentAfter && way.turn-way.quiet.turn >= silentProbes {
			silent = append(silent, id)
		}
	}
	slices.Sort(silent)
	return silent
}
