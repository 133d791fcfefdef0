package gossip

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/deadband"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// partition remembers what the parts of one kind said last, so that only those are said
// again of which something has changed. There are as many as it takes for each to fit into a
// packet, never fewer than there were.
type partition[V any] struct {
	kind    kind
	differs func(said, now V) bool
	// weight tells what may be left unsaid rather, the lightest, where a part would not fit into a
	// packet; nil: nothing.
	weight func(V) float64
	parts  int
	said   map[int]map[string]V
	at     map[int]time.Time
	owed   map[int]bool // parts that must be said in any case: others hold one of another split
}

func newPartition[V any](k kind, differs func(said, now V) bool) *partition[V] {
	return &partition[V]{kind: k, differs: differs, parts: 1,
		said: map[int]map[string]V{}, at: map[int]time.Time{}, owed: map[int]bool{}}
}

// split is into how many parts it goes from now on: all that was said is to be said again.
func (p *partition[V]) split(parts int) {
	p.parts = parts
	for i := range p.said {
		p.owed[i] = true
	}
	clear(p.said)
	clear(p.at)
}

// due gives what the parts say that are to be said now. waits is true when another has
// changed, but was said less than space ago.
func (p *partition[V]) due(items map[string]V, now time.Time, space time.Duration) (due map[int]map[string]V, waits bool) {
	split := map[int]map[string]V{}
	for i := range p.said {
		split[i] = nil
	}
	for i := range p.owed {
		split[i] = nil
	}
	for name, v := range items {
		i := partOf(name, p.parts)
		if split[i] == nil {
			split[i] = map[string]V{}
		}
		split[i][name] = v
	}
	due = map[int]map[string]V{}
	for i, next := range split {
		said, was := p.said[i]
		at, spoke := p.at[i]
		switch {
		case !p.owed[i] && was && !p.changed(said, next):
		case !p.owed[i] && spoke && passed(at, now) < space:
			waits = true
		default:
			due[i] = next
		}
	}
	return due, waits
}

func (p *partition[V]) changed(said, next map[string]V) bool {
	if len(said) != len(next) {
		return true
	}
	for name, v := range next {
		if before, was := said[name]; !was || p.differs(before, v) {
			return true
		}
	}
	return false
}

// sayParts says those parts of what a node says of many things that are due.
func sayParts[V any](g *Gossip, id *identity.Identity, p *partition[V], items map[string]V, now time.Time, space time.Duration) (waits bool, err error) {
	for {
		due, waits := p.due(items, now, space)
		raws := make(map[int][]byte, len(due))
		largest := 0
		for i, next := range due {
			if raws[i], err = p.seal(g, id, i, next); err != nil {
				return false, err
			}
			largest = max(largest, len(raws[i]))
		}
		if largest > packetRecord {
			if p.parts == maxParts {
				return false, fmt.Errorf("%d things of kind %d do not fit into %d records of %d bytes", len(items), p.kind, maxParts, packetRecord)
			}
			p.split(2 * p.parts)
			continue
		}
		for i, raw := range raws {
			if err := g.take(raw); err != nil {
				return false, err
			}
			p.said[i], p.at[i] = due[i], now
			delete(p.owed, i)
		}
		return waits, nil
	}
}

// seal makes the record of a part, which fits into a packet if it can be split no more and the lightest
// may be left out.
func (p *partition[V]) seal(g *Gossip, id *identity.Identity, i int, items map[string]V) ([]byte, error) {
	for {
		body, err := g.store.codec.encode(partBody[V]{Part: i, Parts: p.parts, Items: items})
		if err != nil {
			return nil, err
		}
		raw, err := seal(id, p.kind, g.nextVersion(), body)
		if err != nil || len(raw) <= packetRecord || p.parts < maxParts || p.weight == nil || len(items) == 0 {
			return raw, err
		}
		items = p.withoutLightest(items)
	}
}

func (p *partition[V]) withoutLightest(items map[string]V) map[string]V {
	lightest := slices.MinFunc(slices.Collect(maps.Keys(items)), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.weight(items[a]), p.weight(items[b])), cmp.Compare(a, b))
	})
	rest := maps.Clone(items)
	delete(rest, lightest)
	return rest
}

// waysOf are the routes of a state as they travel.
func waysOf(s *model.NodeState) map[string]waysTo {
	all := make(map[string]waysTo, len(s.Routes))
	wayOf := func(r model.RouteTime) *way {
		return &way{RTT: r.RTT, Spread: r.Spread, Samples: r.Samples, Stamp: r.Stamp, Behind: view.Behind(s, r).Round(time.Millisecond)}
	}
	for peer, r := range s.Routes {
		all[string(peer)] = waysTo{Node: wayOf(r)}
	}
	for peer, r := range s.PodRoutes {
		w := all[string(peer)]
		w.Pod = wayOf(r)
		all[string(peer)] = w
	}
	return all
}

// otherWays tells whether routes to one node are worth saying again.
func otherWays(said, now waysTo) bool {
	return otherWay(said.Node, now.Node) || otherWay(said.Pod, now.Pod)
}

func otherWay(said, now *way) bool {
	if said == nil || now == nil {
		return said != now
	}
	return deadband.Route(said.measured(time.Time{}), now.measured(time.Time{}))
}
