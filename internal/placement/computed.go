package placement

import (
	"slices"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

const (
	// keepComputed is for how long what was computed serves after the picture that it was
	// made from: route times are taken over windows that are longer, and making a graph of
	// thousands of nodes takes longer than ranking them.
	keepComputed = 5 * time.Second
	// keepSources bounds from how many nodes the routes to all others are kept.
	keepSources = 64
	// sampleSize is to how many nodes the mean to all others is taken where not every
	// way is measured.
	sampleSize = 16
)

// computed holds the routes that follow from one picture's measurements of one path, made
// when they are first asked for. It may be used by several at once.
type computed struct {
	of *routesBy // the first that asked; its picture counts

	mu    sync.Mutex
	graph *linkstate.Graph // nil: not made yet
	from  map[model.NodeID]linkstate.Routes
	means map[model.NodeID]Route
}

// sparse tells whether a picture has too many nodes for everybody to probe everybody.
func sparse(s view.Snapshot) bool {
	alive := 0
	for _, n := range s.Nodes {
		if n.Alive {
			alive++
		}
	}
	return alive > linkstate.FullMesh
}

// After lets v use what an earlier survey with the same parameters has computed, while that
// is young enough, and returns v.
func (v *Survey) After(earlier *Survey) *Survey {
	if earlier != nil {
		if age := v.now.Sub(earlier.podUse.at); age >= 0 && age < keepComputed {
			v.podUse = earlier.podUse
		}
		v.node.after(earlier.node)
		v.pod.after(earlier.pod)
	}
	return v
}

func (w *routesBy) after(earlier *routesBy) {
	if w.computed == nil || earlier.computed == nil {
		return
	}
	c := earlier.computed
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := w.v.now.Sub(c.of.v.now); c.graph != nil && age >= 0 && age < keepComputed {
		w.computed = c
	}
}

// route is the computed route between two nodes.
func (c *computed) route(i, j model.NodeID) Route {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.routeLocked(i, j)
}

func (c *computed) routeLocked(i, j model.NodeID) Route {
	if c.graph == nil {
		c.graph = linkstate.NewGraph(c.of.v.view, c.of.path, c.of.v.now, c.of.v.params.StaleAfter)
		c.from = map[model.NodeID]linkstate.Routes{}
	}
	// From j: many candidates are asked about, and few peers.
	from, ok := c.from[j]
	if !ok {
		if len(c.from) >= keepSources {
			clear(c.from)
		}
		from = c.graph.From(j)
		c.from[j] = from
	}
	r, ok := from.To(i)
	if !ok {
		return Route{}
	}
	return Route{Time: max(c.of.v.params.Floor, r.RTT), Spread: r.Spread, Known: true, Path: c.of.path, Hops: r.Hops}
}

// meanToSample is every node's mean route time to the same few others, drawn by the hashes of
// their names. A mean over the ways that a node measures itself would make one of a large
// zone look nearer than one of a small zone.
func (c *computed) meanToSample() map[model.NodeID]Route {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.means != nil {
		return c.means
	}
	alive := c.of.v.view.Alive()
	sums := make([]mean, len(alive))
	for _, to := range linkstate.Sample(alive, sampleSize) {
		for i, id := range alive {
			if id == to {
				continue
			}
			r := c.of.direct(id, to)
			if !r.Known {
				r = c.routeLocked(id, to)
			}
			if r.Known {
				sums[i].add(r, 1)
			}
		}
	}
	c.means = make(map[model.NodeID]Route, len(alive))
	for i, id := range alive {
		c.means[id] = sums[i].route()
	}
	return c.means
}

// tellComputed adds to the candidates' reasons which of their routes to a peer's node were
// computed.
func tellComputed(cs []Candidate, column []Route, peer model.NodeID) {
	for i, r := range column {
		if r.Hops > 1 {
			// Scores copy the reasons; most have no other.
			cs[i].Reasons = append(slices.Grow(cs[i].Reasons, 1), Reason{Kind: KindComputedRoute, Node: peer, Value: r.Time, Hops: r.Hops})
		}
	}
}
