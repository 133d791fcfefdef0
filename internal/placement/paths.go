package placement

import (
	"maps"
	"slices"

	"github.com/drover-project/drover/internal/model"
)

// routesBy answers for one path from one survey's picture, and never from another path's
// figures.
type routesBy struct {
	path     model.Path
	v        *Survey
	computed *computed
}

func newRoutesBy(path model.Path, v *Survey, sparse bool) *routesBy {
	w := &routesBy{path: path, v: v}
	w.computed = &computed{of: w, sparse: sparse}
	return w
}

// route is the route between two nodes: as i measured it, else as j did, else computed.
func (w *routesBy) route(i, j model.NodeID) Route {
	r := w.direct(i, j)
	if !r.Known && w.computed.sparse {
		return w.computed.route(i, j)
	}
	return r
}

// direct is the route time that one of two nodes measured.
func (w *routesBy) direct(i, j model.NodeID) Route {
	if i == j {
		return Route{Time: w.v.params.Floor, Known: true}
	}
	if r := w.measured(i, j); r.Known {
		return r
	}
	return w.measured(j, i)
}

// measured is i's own fresh measurement of the way to j.
func (w *routesBy) measured(i, j model.NodeID) Route {
	// Most pairs were not measured: look before a whole node is copied.
	routes := w.v.view.Nodes[i].State.Routes
	if w.path == model.PathPod {
		routes = w.v.view.Nodes[i].State.PodRoutes
	}
	r, ok := routes[j]
	if !ok || r.RTT < 0 {
		return Route{}
	}
	n := w.v.view.Nodes[i]
	if age, ok := n.RouteAge(w.path, j, w.v.now); !ok || !n.Alive || age > w.v.params.StaleAfter {
		return Route{}
	}
	return Route{Time: max(w.v.params.Floor, r.RTT), Spread: max(0, r.Spread), Known: true, Path: w.path}
}

// addAll adds to every node's sum its route times to the others it has one to, in one pass over
// all measurements.
func (w *routesBy) addAll(r *roll, sums []mean) {
	// In order: sums of floats depend on it, and equal pictures must give equal scores.
	for k, i := range r.ids {
		n := w.v.view.Nodes[i]
		for _, j := range slices.Sorted(maps.Keys(n.State.RoutesBy(w.path))) {
			route := w.measured(i, j)
			to, listed := r.numbers[j]
			if i == j || !route.Known || !listed {
				continue
			}
			sums[k].add(&route, 1)
			if !w.measured(j, i).Known {
				sums[to].add(&route, 1)
			}
		}
	}
}

// ways gives the routes by one path that candidates are compared by.
type ways struct {
	by  *routesBy
	to  model.NodeID // empty: the means to all
	all *column
}

func (w *routesBy) ways(to model.NodeID) ways {
	if to == "" {
		return ways{w, to, w.means()}
	}
	return ways{w, to, w.column(to)}
}

// of is the route of a candidate.
func (w *ways) of(c *Candidate, number int32) Route {
	switch {
	case number >= 0:
		return w.all.routes[number]
	case w.to == "":
		return Route{}
	}
	return w.by.route(c.Node, w.to)
}

// routes gives those of the candidates by one path, in the memory of to.
func (b *Buffer) routes(to *[]Route, by ways, cs []Candidate) []Route {
	*to = sized(*to, len(cs))
	for i := range cs {
		(*to)[i] = by.of(&cs[i], b.numbers[i])
	}
	return *to
}

// alike gives every candidate's route, all by one path, so that none looks nearer
// because a shorter kind of way was measured to it: by the pod path when that is known of
// more than half of the candidates with any, else by the node path.
//
// A candidate that then is known by the node path alone counts with that, but as no nearer
// than the median of the others: it gains nothing by what was not measured, and takes from
// the others nothing that was. to is where the way leads; empty: to all.
func (b *Buffer) alike(v *Survey, cs []Candidate, to model.NodeID) []Route {
	byPod := v.pod.ways(to)
	if byPod.all.byPath == 0 && !b.strangers {
		return b.routes(&b.node, v.node.ways(to), cs) // the pod path is known of none
	}
	pod, short, known := b.routes(&b.pod, byPod, cs), false, 0
	for i := range cs {
		short = short || !pod[i].Known
		if pod[i].Path == model.PathPod {
			known++
		}
	}
	if !short {
		return pod
	}
	node, without := b.routes(&b.node, v.node.ways(to), cs), 0
	for i := range cs {
		if node[i].Known && !pod[i].Known {
			without++
		}
	}
	if known <= without {
		return node
	}
	times := b.times[:0]
	for i := range pod {
		if pod[i].Path == model.PathPod {
			times = append(times, pod[i].Time)
		}
	}
	b.times = times
	middle := median(times)
	for i := range node {
		if r := node[i]; r.Known && !pod[i].Known {
			pod[i] = r
			pod[i].Time = max(r.Time, middle)
			cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindNodePath, Node: to, Value: r.Time, Limit: middle})
		}
	}
	return pod
}
