package linkstate

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Route is a route time that was measured, or computed from others that were.
type Route struct {
	// RouteTime of a computed route has the links' round trips, less what is counted twice at
	// the nodes between them (see access); their spreads, added as those of independent
	// figures are; the fewest samples and the oldest time. It is stamped in user space when
	// one of them is.
	model.RouteTime
	// Hops is over how many measured links it leads: 1 when it was measured itself.
	Hops int
}

// Graph holds the links that both their ends have measured.
//
// A link is as long as the end says that says more, and what only one end says does not
// count. A route is at least as long as the longest of its links. So a node that lies
// brings nobody nearer to an honest neighbour than that one has measured itself; at most
// it seems to lie right on the way between two of them. Two that lie together can make
// the link between them look short, and with it the ways over both.
//
// A Graph is made by NewGraph and then only read.
type Graph struct {
	ids   []model.NodeID // by name
	index map[model.NodeID]int32
	links [][]link // of each node, by their other end
	said  [][]link // what others say of each node, by who says it, both ends' agreement or not
	heard []model.RouteTime
	// access is how much of a way through each node is the way to it and back to where a
	// way past it would lead.
	access []time.Duration
}

// link is one end's view of a link; its measurement is heard[route].
type link struct {
	to, route int32
	rtt       time.Duration
}

// NewGraph makes a graph of what the nodes of a picture that are alive have measured of one
// path, and takes now for the present. Links do not count that are older than stale or of negative
// length, nor what a node says of the way to itself.
func NewGraph(s view.Snapshot, by model.Path, now time.Time, stale time.Duration) *Graph {
	alive := s.Alive()
	g := &Graph{ids: alive, index: make(map[model.NodeID]int32, len(alive)), links: make([][]link, len(alive)), said: make([][]link, len(alive))}
	for i, id := range alive {
		g.index[id] = int32(i)
	}
	// The nodes are gone through in order, so every list comes to be in order, too.
	said, total := g.said, 0
	for i, id := range alive {
		n := s.Nodes[id]
		routes := len(n.State.RoutesBy(by))
		said[i], g.links[i] = make([]link, 0, routes), make([]link, 0, routes)
		total += routes
	}
	g.heard = make([]model.RouteTime, 0, total)
	for i, id := range alive {
		n := s.Nodes[id]
		age, received := n.Age(now)
		if !received {
			continue
		}
		for to, r := range n.State.RoutesBy(by) {
			j, known := g.index[to]
			age := age + view.Behind(&n.State, r)
			if !known || int(j) == i || r.RTT < 0 || age > stale {
				continue
			}
			r.At, r.Spread = now.Add(-age), max(0, r.Spread)
			said[j] = append(said[j], link{int32(i), int32(len(g.heard)), r.RTT})
			g.heard = append(g.heard, r)
		}
	}
	for i := range alive {
		for _, l := range said[i] {
			if int(l.to) > i {
				break
			}
			there, both := find(said[l.to], int32(i))
			if !both {
				continue
			}
			r := agreed(g.heard[l.route], g.heard[there.route])
			g.heard[l.route] = r
			g.links[i] = append(g.links[i], link{l.to, l.route, r.RTT})
			g.links[l.to] = append(g.links[l.to], link{int32(i), l.route, r.RTT})
		}
	}
	g.measureAccess()
	return g
}

// Has tells whether a node is in the graph.
func (g *Graph) Has(id model.NodeID) bool {
	_, known := g.index[id]
	return known
}

// Of gives the nodes that say how long the way to this one is, whatever it says itself.
func (g *Graph) Of(id model.NodeID) iter.Seq[model.NodeID] {
	return func(yield func(model.NodeID) bool) {
		i, known := g.index[id]
		if !known {
			return
		}
		for _, l := range g.said[i] {
			if !yield(g.ids[l.to]) {
				return
			}
		}
	}
}

// accessQuantile is where among the triangles at a node its access lies, from the least.
// The least itself would rest on the one that noise, or a way between its neighbours that
// is longer than the one through it, has made least.
const accessQuantile = 0.1

// measureAccess finds what a way through k takes that one past it does not: of two
// neighbours that have a link, too, (ik + kj - ij), twice the Gromov product. Every triangle
// gives a bound from above. It is never more than the shortest link of k, so that no route
// gets shorter than one of its links.
func (g *Graph) measureAccess() {
	g.access = make([]time.Duration, len(g.links))
	to := make([]time.Duration, len(g.links)) // from k to its neighbours, -1 to all others
	for i := range to {
		to[i] = -1
	}
	var bounds []time.Duration
	for k, links := range g.links {
		least := time.Duration(math.MaxInt64)
		for _, l := range links {
			to[l.to], least = l.rtt, min(least, l.rtt)
		}
		bounds = bounds[:0]
		for _, ki := range links {
			for _, ij := range g.links[ki.to] {
				if ij.to >= ki.to {
					break
				}
				if kj := to[ij.to]; kj >= 0 {
					bounds = append(bounds, min(least, max(0, plus(ki.rtt, kj)-ij.rtt)))
				}
			}
		}
		for _, l := range links {
			to[l.to] = -1
		}
		if len(bounds) > 0 {
			slices.Sort(bounds)
			g.access[k] = bounds[int(accessQuantile*float64(len(bounds)-1))]
		}
	}
}

// find gives the link to a node among links in order.
func find(links []link, to int32) (link, bool) {
	i, found := slices.BinarySearchFunc(links, to, func(l link, to int32) int { return cmp.Compare(l.to, to) })
	if !found {
		return link{}, false
	}
	return links[i], true
}

// agreed is a link by what its two ends measured.
func agreed(a, b model.RouteTime) model.RouteTime {
	r := a
	if b.RTT > a.RTT || b.RTT == a.RTT && b.Spread > a.Spread {
		r = b
	}
	return along(r, a, b)
}

// along gives r the samples, time and stamp of the weakest of what it was made from.
func along(r, a, b model.RouteTime) model.RouteTime {
	r.Samples, r.Stamp, r.At = min(a.Samples, b.Samples), model.StampKernel, a.At
	if a.Stamp != model.StampKernel || b.Stamp != model.StampKernel {
		r.Stamp = model.StampUser
	}
	if b.At.Before(r.At) {
		r.At = b.At
	}
	return r
}

// Routes holds the shortest routes from one node.
type Routes struct {
	graph  *Graph
	source int32
	steps  []step
}

// step is how a node is reached: over so many hops, the last of them a link from another.
type step struct {
	rtt   time.Duration
	hops  int32 // 0: not reached
	from  int32
	route int32
}

// From computes the routes from a node to all others (Dijkstra 1959), each node between two
// links shortening the way by its access. There is none to the node itself, and none from
// a node that is not in the graph.
func (g *Graph) From(id model.NodeID) Routes {
	source, known := g.index[id]
	if !known {
		return Routes{}
	}
	steps, done := make([]step, len(g.links)), make([]bool, len(g.links))
	for q := (queue{{0, source}}); len(q) > 0; {
		near := q.pop().node
		if done[near] {
			continue
		}
		done[near] = true
		at, access := steps[near], g.access[near]
		if near == source {
			access = 0
		}
		for _, l := range g.links[near] {
			next := step{plus(at.rtt, l.rtt-access), at.hops + 1, near, l.route}
			if l.to != source && !done[l.to] && next.shorter(steps[l.to]) {
				steps[l.to] = next
				q.push(next.rtt, l.to)
			}
		}
	}
	return Routes{g, source, steps}
}

// shorter tells whether a way is shorter than another, or as short over fewer links.
func (s step) shorter(than step) bool {
	return than.hops == 0 || s.rtt < than.rtt || s.rtt == than.rtt && s.hops < than.hops
}

// To gives the route to a node; false: there is none. What was measured stands, even where
// a way round is shorter: that is not the way that packets take.
func (r Routes) To(id model.NodeID) (Route, bool) {
	if r.graph == nil {
		return Route{}, false
	}
	i, known := r.graph.index[id]
	if !known {
		return Route{}, false
	}
	return r.to(i)
}

// All gives the routes to all nodes to which there is one, by name.
func (r Routes) All() iter.Seq2[model.NodeID, Route] {
	return func(yield func(model.NodeID, Route) bool) {
		for i := range r.steps {
			if route, ok := r.to(int32(i)); ok && !yield(r.graph.ids[i], route) {
				return
			}
		}
	}
}

func (r Routes) to(i int32) (Route, bool) {
	if r.steps[i].hops == 0 {
		return Route{}, false
	}
	if direct, measured := find(r.graph.links[r.source], i); measured {
		return Route{r.graph.heard[direct.route], 1}, true
	}
	route := Route{r.graph.heard[r.steps[i].route], int(r.steps[i].hops)}
	for at := r.steps[i].from; at != r.source; at = r.steps[at].from {
		route.RouteTime = join(route.RouteTime, r.graph.heard[r.steps[at].route])
	}
	route.RTT = r.steps[i].rtt
	return route, true
}

// join is one way followed by another, but for its length.
func join(a, b model.RouteTime) model.RouteTime {
	sum := model.RouteTime{Spread: math.MaxInt64}
	if spread := math.Hypot(float64(a.Spread), float64(b.Spread)); spread < math.MaxInt64 {
		sum.Spread = time.Duration(spread)
	}
	return along(sum, a, b)
}

// plus adds without overflow what is not negative.
func plus(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
