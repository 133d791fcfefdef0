package placement

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// routesBy answers for one path from one survey's picture, and never from another path's
// figures.
type routesBy struct {
	path  model.Path
	v     *Survey
	means func() map[model.NodeID]Route
	// computed holds the routes that nobody measured; nil where everybody probes everybody.
	computed *computed
}

func newRoutesBy(path model.Path, v *Survey, sparse bool) *routesBy {
	w := &routesBy{path: path, v: v}
	w.means = sync.OnceValue(w.meanToAll)
	if sparse {
		w.computed = &computed{of: w}
	}
	return w
}

// route is the route between two nodes: as i measured it, else as j did, else computed.
func (w *routesBy) route(i, j model.NodeID) Route {
	r := w.direct(i, j)
	if !r.Known && w.computed != nil {
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
	n := w.v.view.Nodes[i]
	if !n.Alive {
		return Route{}
	}
	age, ok := n.RouteAge(w.path, j, w.v.now)
	r := n.State.RoutesBy(w.path)[j]
	if !ok || age > w.v.params.StaleAfter || r.RTT < 0 {
		return Route{}
	}
	return Route{Time: max(w.v.params.Floor, r.RTT), Spread: max(0, r.Spread), Known: true, Path: w.path}
}

// meanToAll is every node's mean route time to the others it has one to, in one pass over
// all measurements; where those are too few, see meanToSample.
func (w *routesBy) meanToAll() map[model.NodeID]Route {
	if w.computed != nil {
		return w.computed.meanToSample()
	}
	sums := make(map[model.NodeID]*mean, len(w.v.view.Nodes))
	for id := range w.v.view.Nodes {
		sums[id] = &mean{}
	}
	// In order: sums of floats depend on it, and equal pictures must give equal scores.
	for _, i := range w.v.view.IDs() {
		n := w.v.view.Nodes[i]
		for _, j := range slices.Sorted(maps.Keys(n.State.RoutesBy(w.path))) {
			r := w.measured(i, j)
			if i == j || !r.Known || sums[j] == nil {
				continue
			}
			sums[i].add(r, 1)
			if !w.measured(j, i).Known {
				sums[j].add(r, 1)
			}
		}
	}
	means := make(map[model.NodeID]Route, len(sums))
	for id, m := range sums {
		means[id] = m.route()
	}
	return means
}

// alike gives what of finds for every candidate, all by one path, so that none looks nearer
// because a shorter kind of way was measured to it: by the pod path when that is known of
// more than half of the candidates with any, else by the node path.
//
// A candidate that then is known by the node path alone counts with that, but as no nearer
// than the median of the others: it gains nothing by what was not measured, and takes from
// the others nothing that was. peer names in its reason where the way leads; empty: to all.
func (v *Survey) alike(cs []Candidate, peer model.NodeID, of func(*routesBy, model.NodeID) Route) []Route {
	pod := make([]Route, len(cs))
	var known []time.Duration
	short := false
	for i, c := range cs {
		pod[i] = of(v.pod, c.Node)
		short = short || !pod[i].Known
		if pod[i].Path == model.PathPod {
			known = append(known, pod[i].Time)
		}
	}
	if !short {
		return pod
	}
	node, without := make([]Route, len(cs)), 0
	for i, c := range cs {
		if node[i] = of(v.node, c.Node); node[i].Known && !pod[i].Known {
			without++
		}
	}
	if len(known) <= without {
		return node
	}
	middle := median(known)
	for i, r := range node {
		if !r.Known || pod[i].Known {
			continue
		}
		pod[i] = r
		pod[i].Time = max(r.Time, middle)
		cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindNodePath, Node: peer, Value: r.Time, Limit: middle})
	}
	return pod
}
