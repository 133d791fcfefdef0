package gossip

import (
	"cmp"
	"fmt"
	"time"

	"github.com/drover-project/drover/internal/location"
	"github.com/drover-project/drover/internal/model"
)

// Confirmer knows the PodMigration records. A location that only one end has announced
// counts when the record says the same.
type Confirmer interface {
	// Confirmed tells whether a committed PodMigration records exactly this move. It is
	// called often and must neither block nor call back.
	Confirmed(model.Location) bool
}

const (
	// locationsPerNode bounds how many announcements of one node are remembered.
	locationsPerNode = 2048
	// lineages bounds the table of confirmed places.
	lineages = 8192
	// locationRetention is how long an announcement counts that nobody repeats.
	locationRetention = 24 * time.Hour
)

// saying is one announcement by one end of a move.
type saying struct {
	kept
	model.Location
	// confirmed stays: a PodMigration may be deleted later.
	confirmed bool
}

func (s *store) ingestLocation(e *nodeEntry, r record, now time.Time) (slot, uint64, result) {
	var l model.Location
	if s.codec.decode(r.body, &l) != nil || !wellFormed(l) {
		return slot{}, 0, malformed
	}
	at := slot{kindLocation, r.origin, fmt.Sprintf("%s@%d", l.Origin, l.Epoch)}
	if l.Node != r.origin && l.From != r.origin {
		return at, 0, notEntitled
	}
	if now.Sub(time.Unix(0, int64(r.version))) > locationRetention {
		return at, 0, stale
	}
	next := &saying{kept: keep(at, r), Location: l}
	if old, ok := e.said[at.name]; ok {
		if r.version <= old.version {
			return at, r.version, versus(r.version, old.version)
		}
		next.confirmed = old.confirmed && same(old.Location, l)
	}
	e.said[at.name] = next
	s.put(&next.kept)
	for len(e.said) > locationsPerNode {
		s.dropOldestSaying(e)
	}
	s.placesChanged = true
	return at, r.version, accepted
}

func wellFormed(l model.Location) bool {
	short := len(l.Origin) <= maxName && len(l.Pod.Namespace) <= maxName && len(l.Pod.Name) <= maxName &&
		len(l.Pod.UID) <= maxName && len(l.Migration) <= maxName
	return short && l.Origin != "" && l.Pod.UID != "" && l.Node != "" && l.From != "" && l.Epoch > 0
}

func (s *store) dropOldestSaying(e *nodeEntry) {
	var oldest string
	for name, l := range e.said {
		if oldest == "" || cmp.Or(cmp.Compare(l.version, e.said[oldest].version), cmp.Compare(name, oldest)) < 0 {
			oldest = name
		}
	}
	s.remove(&e.said[oldest].kept)
	delete(e.said, oldest)
}

func (s *store) sweepLocations(e *nodeEntry, now time.Time) {
	for name, l := range e.said {
		if now.Sub(time.Unix(0, int64(l.version))) > locationRetention {
			s.remove(&l.kept)
			delete(e.said, name)
			s.placesChanged = true
		}
	}
}

// confirmedPlaces gives the newest confirmed place of every lineage, in the order of
// view.SortLocations. The slice is not changed later.
func (s *store) confirmedPlaces() []model.Location {
	table := location.NewTable(lineages)
	for _, node := range s.nodeIDs() {
		for name, l := range s.nodes[node].said {
			if !l.confirmed {
				l.confirmed = s.bothSay(node, name, l.Location) || (s.confirmer != nil && s.confirmer.Confirmed(l.Location))
			}
			if l.confirmed {
				table.Merge(l.Location)
			}
		}
	}
	s.placesChanged = false
	return table.List()
}

// bothSay tells whether the other end of the move has announced the same. A move within one
// node has one end only, which cannot vouch for itself: its record must.
func (s *store) bothSay(said model.NodeID, name string, l model.Location) bool {
	if l.From == l.Node {
		return false
	}
	other := l.From
	if other == said {
		other = l.Node
	}
	e := s.nodes[other]
	if e == nil {
		return false
	}
	o, ok := e.said[name]
	return ok && same(o.Location, l)
}

func same(a, b model.Location) bool { return location.Compare(a, b) == 0 && a.Origin == b.Origin }
