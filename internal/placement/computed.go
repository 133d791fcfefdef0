package placement

import (
	"maps"
	"math"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

const (
	// keepComputed is for how long, among more nodes than can all probe each other, what was
	// made from a picture's route times serves after it: they are taken over windows that are
	// longer, and making a graph of thousands of nodes takes longer than ranking them. Among many nodes it is
	// keepEach for each of them, up to longestComputed, so that what it costs a second stays the same.
	keepComputed    = 10 * time.Second
	keepEach        = 4 * time.Millisecond
	longestComputed = 20 * time.Second
	// keepSources bounds from how many nodes the routes to all others are kept.
	keepSources = 64
	// sampleSize is to how many nodes the mean to all others is taken where not every
	// way is measured.
	sampleSize = 16
)

// computed holds what follows from one picture's measurements of one path, made when it is
// first asked for. It may be used by several at once.
type computed struct {
	of     *routesBy // the first that asked; its picture counts
	sparse bool      // too many nodes for everybody to probe everybody

	mu      sync.Mutex
	graph   *linkstate.Graph // of a sparse picture; nil: not made yet
	from    map[model.NodeID]linkstate.Routes
	roll    *roll // of the columns; nil: there are none yet
	columns map[model.NodeID]*column
	means   *column
}

// keeps is for how long what was made from a picture of so many nodes serves.
func keeps(alive int) time.Duration {
	return max(keepComputed, min(longestComputed, keepEach*time.Duration(alive)))
}

// renews is the age at which it is time to make it anew.
func renews(alive int) time.Duration { return keeps(alive) * 4 / 5 }

// column is the routes of all nodes of a roll to one of them, or their means to all.
type column struct {
	routes []Route
	ways   []float32 // T in ms, infinite where it is not known
	known  int
	byPath int  // those of them that lead by the path
	used   bool // since it was made
}

func newColumn(n int) *column { return &column{routes: make([]Route, n), ways: make([]float32, n)} }

// done fills in what follows from the routes.
func (c *column) done() *column {
	for i := range c.routes {
		c.ways[i] = float32(math.Inf(1))
		if c.routes[i].Known {
			c.ways[i] = float32(milliseconds(c.routes[i].Time))
			c.known++
			if c.routes[i].Path != "" {
				c.byPath++
			}
		}
	}
	return c
}

// sparse tells whether a picture has too many nodes for everybody to probe everybody.
func sparse(alive int) bool { return alive > linkstate.FullMesh }

// living counts the nodes that are alive.
func living(s view.Snapshot) (alive int) {
	for id := range s.Nodes {
		if s.Nodes[id].Alive {
			alive++
		}
	}
	return alive
}

// After lets v use what an earlier survey with the same parameters has computed, while that
// is young enough, and returns v.
func (v *Survey) After(earlier *Survey) *Survey {
	if earlier == nil {
		return v
	}
	if age := v.now.Sub(earlier.podUse.at); age >= 0 && age < keepPodUse {
		v.podUse = earlier.podUse
	}
	if r := earlier.roll(); r.lists(v.view) {
		v.roll = func() *roll { return r }
	}
	v.node.after(earlier.node)
	v.pod.after(earlier.pod)
	return v
}

func (w *routesBy) after(earlier *routesBy) {
	c := earlier.computed
	if !w.computed.sparse || !c.sparse {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := w.v.now.Sub(c.of.v.now); c.graph == nil || age < 0 || age >= keeps(w.v.alive) {
		return
	}
	if c.roll == w.v.roll() {
		w.computed = c
		return
	}
	// Other numbers: columns are made anew.
	w.computed = &computed{of: c.of, sparse: true, graph: c.graph, from: maps.Clone(c.from)}
}

// Ageing tells whether it is time to prepare another survey in the place of v.
func (v *Survey) Ageing(now time.Time) bool { return v.node.ageing(now) || v.pod.ageing(now) }

func (w *routesBy) ageing(now time.Time) bool {
	c := w.computed
	if !c.sparse {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.graph != nil && now.Sub(c.of.v.now) >= renews(w.v.alive)
}

// Like computes what an earlier survey was asked for, so that it need not be waited for when v
// is, and returns v.
func (v *Survey) Like(earlier *Survey) *Survey {
	if r := earlier.roll(); r.lists(v.view) {
		v.roll = func() *roll { return r }
	}
	v.node.like(earlier.node)
	v.pod.like(earlier.pod)
	return v
}

func (w *routesBy) like(earlier *routesBy) {
	c := earlier.computed
	c.mu.Lock()
	var asked []model.NodeID
	for to, column := range c.columns {
		if column.used {
			asked = append(asked, to)
		}
	}
	means := c.means != nil && c.means.used
	c.mu.Unlock()
	w.computed.mu.Lock()
	defer w.computed.mu.Unlock()
	for _, to := range asked {
		w.computed.columnLocked(w.v.roll(), to)
	}
	if means {
		w.computed.meansLocked(w.v.roll())
	}
}

// route is the route between two nodes that nobody measured.
func (c *computed) route(i, j model.NodeID) Route {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.routeLocked(i, j)
}

func (c *computed) routeLocked(i, j model.NodeID) Route {
	// From j: many candidates are asked about, and few peers.
	r, ok := c.fromLocked(j).To(i)
	if !ok {
		return Route{}
	}
	return c.routed(r)
}

func (c *computed) graphLocked() *linkstate.Graph {
	if c.graph == nil {
		c.graph = linkstate.NewGraph(c.of.v.view, c.of.path, c.of.v.now, c.of.v.params.StaleAfter)
		c.from = map[model.NodeID]linkstate.Routes{}
	}
	return c.graph
}

func (c *computed) fromLocked(j model.NodeID) linkstate.Routes {
	g := c.graphLocked()
	from, ok := c.from[j]
	if !ok {
		from = g.From(j)
		keep(c.from, j, from)
	}
	return from
}

func (c *computed) routed(r linkstate.Route) Route {
	return Route{Time: max(c.of.v.params.Floor, r.RTT), Spread: r.Spread, Known: true, Path: c.of.path, Hops: r.Hops}
}

// keep adds to a map, and drops any one where it has keepSources.
func keep[T any](m map[model.NodeID]T, id model.NodeID, value T) {
	if len(m) >= keepSources {
		for other := range m {
			delete(m, other)
			break
		}
	}
	m[id] = value
}

// column is the routes of all nodes of the roll to one.
func (w *routesBy) column(to model.NodeID) *column {
	c := w.computed
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.columnLocked(w.v.roll(), to)
	found.used = true
	return found
}

// columnLocked is given the same roll by all that share c.
func (c *computed) columnLocked(r *roll, to model.NodeID) *column {
	found, ok := c.columns[to]
	if ok {
		return found
	}
	c.roll = r
	found = newColumn(len(r.ids))
	if c.sparse && c.graphLocked().Has(to) {
		c.fillLocked(r, found.routes, to)
	} else {
		for i, id := range r.ids {
			found.routes[i] = c.of.direct(id, to)
		}
	}
	if c.columns == nil {
		c.columns = map[model.NodeID]*column{}
	}
	keep(c.columns, to, found.done())
	return found
}

// fillLocked gives all routes to a node of the graph. Most ways nobody has measured: those that somebody has are
// looked for where they are, and not by asking for every pair.
func (c *computed) fillLocked(r *roll, routes []Route, to model.NodeID) {
	n := 0
	for id, route := range c.fromLocked(to).All() { // by name, as the roll is
		for n < len(r.ids) && r.ids[n] < id {
			n++
		}
		if n < len(r.ids) && r.ids[n] == id {
			routes[n] = c.routed(route)
		}
	}
	direct := func(id model.NodeID) {
		if i, listed := r.numbers[id]; listed {
			if route := c.of.direct(id, to); route.Known {
				routes[i] = route
			}
		}
	}
	own := c.of.v.view.Nodes[to].State
	for id := range own.RoutesBy(c.of.path) {
		direct(id)
	}
	for id := range c.graph.Of(to) {
		direct(id)
	}
	direct(to)
}

// means is every node's mean route time to the others it has one to; where not every way is
// measured, to the same few others, drawn by the hashes of their names. A mean over the ways
// that a node measures itself would make one of a large zone look nearer than one of a small
// zone.
func (w *routesBy) means() *column {
	w.computed.mu.Lock()
	defer w.computed.mu.Unlock()
	found := w.computed.meansLocked(w.v.roll())
	found.used = true
	return found
}

func (c *computed) meansLocked(r *roll) *column {
	if c.means != nil {
		return c.means
	}
	c.roll = r
	sums := make([]mean, len(r.ids))
	if !c.sparse {
		c.of.addAll(r, sums)
	} else {
		alive := c.of.v.view.Alive()
		lives := make([]bool, len(r.ids))
		for _, id := range alive {
			if i, listed := r.numbers[id]; listed {
				lives[i] = true
			}
		}
		for _, to := range linkstate.Sample(alive, sampleSize) {
			routes := c.columnLocked(r, to).routes
			for i := range routes {
				if lives[i] && routes[i].Known && r.ids[i] != to {
					sums[i].add(&routes[i], 1)
				}
			}
		}
	}
	all := newColumn(len(r.ids))
	for i := range sums {
		all.routes[i] = sums[i].route()
	}
	c.means = all.done()
	return c.means
}

// tellComputed adds to the candidates' reasons which of their routes to a peer's node were
// computed.
func tellComputed(cs []Candidate, routes []Route, peer model.NodeID) {
	for i := range routes {
		if r := &routes[i]; r.Hops > 1 {
			cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindComputedRoute, Node: peer, Value: r.Time, Hops: r.Hops})
		}
	}
}
