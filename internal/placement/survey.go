package placement

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Viewpoint is from where route times count.
type Viewpoint struct {
	// Peers are the nodes that the pod's peers are on, with the weight of its traffic to
	// each. Weights that are not greater than 0 or not finite are left out.
	Peers map[model.NodeID]float64
	// Source is, of a move, the node that the pod leaves. It counts where there are no
	// peers. With neither, a node's route time is its mean to all others.
	Source model.NodeID
}

// Survey is one picture of the cluster made ready for many questions. It may be used by
// several at once.
type Survey struct {
	view   view.Snapshot
	params Params
	now    time.Time
	// node and pod are what it knows of the two paths.
	node, pod *routesBy
	podUse    *podUse
}

// NewSurvey prepares a picture. now is by the clock that took it: on another machine, its
// At. What is older than p.StaleAfter at now does not count.
func NewSurvey(s view.Snapshot, p Params, now time.Time) *Survey {
	v := &Survey{view: s, params: p, now: now}
	few := sparse(s)
	v.podUse = newPodUse(v)
	v.node, v.pod = newRoutesBy(model.PathNode, v, few), newRoutesBy(model.PathPod, v, few)
	return v
}

// View is the picture that the survey was made from.
func (v *Survey) View() view.Snapshot { return v.view }

// Candidates gathers what the formula needs for the given nodes, in their order; without
// any, for all nodes that are alive, by name. Of a move the caller leaves the source out:
// the formula ranks where to go, not whether.
func (v *Survey) Candidates(from Viewpoint, nodes ...model.NodeID) []Candidate {
	if len(nodes) == 0 {
		nodes = v.view.Alive()
	}
	cs := make([]Candidate, len(nodes))
	for i, id := range nodes {
		cs[i] = v.candidate(id)
	}
	peers := from.peers()
	if len(peers) == 0 {
		means := v.alike(cs, "", func(w *routesBy, id model.NodeID) Route { return w.means()[id] })
		for i := range cs {
			cs[i].Route = means[i]
			if !cs[i].Route.Known {
				cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindNoRoute, Text: " from any other"})
			}
		}
		return cs
	}
	v.routeToPeers(cs, peers)
	return cs
}

// peers gives clean weights, scaled so that sums of them stay finite.
func (f Viewpoint) peers() map[model.NodeID]float64 {
	clean := map[model.NodeID]float64{}
	greatest := 0.0
	for id, w := range f.Peers {
		if w > 0 && !math.IsInf(w, 0) {
			clean[id] = w
			greatest = max(greatest, w)
		}
	}
	for id := range clean {
		clean[id] /= greatest
	}
	if len(clean) == 0 && f.Source != "" {
		clean[f.Source] = 1
	}
	return clean
}

// candidate is one node with its load, without a route yet.
func (v *Survey) candidate(id model.NodeID) Candidate {
	c := Candidate{Node: id}
	n, ok := v.view.Nodes[id]
	c.Load = n.State.Load
	c.Load.Used = n.Used(v.now)
	age, heard := n.Age(v.now)
	switch {
	case !ok || !heard:
		c.Reasons = append(c.Reasons, Reason{Kind: KindNoState})
	case !n.Alive:
		c.Reasons = append(c.Reasons, Reason{Kind: KindNotAlive})
	case age > v.params.StaleAfter:
		c.Reasons = append(c.Reasons, Reason{Kind: KindStaleState, Value: age, Limit: v.params.StaleAfter})
	case n.State.Load.At.IsZero():
		c.Reasons = append(c.Reasons, Reason{Kind: KindNoLoad})
	default:
		c.LoadKnown = true
	}
	return c
}

// Route is the route time between two nodes, by the pod path or else by the node path: as i
// measured it, else as j did, else, among more nodes than can all probe each other, as it
// follows from what others measured. It is not Known when there is nothing fresh. The way
// from a node to itself is the floor. Routes to be compared are those of Candidates.
func (v *Survey) Route(i, j model.NodeID) Route {
	if r := v.pod.route(i, j); r.Known {
		return r
	}
	return v.node.route(i, j)
}

// routeToPeers sets every candidate's route to the weighted mean of those to the peers'
// nodes. Where one is missing, the other candidates' median takes its place: left out, a
// long way that nobody measured would make a node look near. A peer's node that nobody
// has a route to is left out for all.
func (v *Survey) routeToPeers(cs []Candidate, peers map[model.NodeID]float64) {
	sums := make([]mean, len(cs))
	measured := make([]bool, len(cs))
	for _, peer := range slices.Sorted(maps.Keys(peers)) {
		var known []time.Duration
		column := v.alike(cs, peer, func(w *routesBy, id model.NodeID) Route { return w.route(id, peer) })
		for i := range cs {
			if column[i].Known && cs[i].Node != peer {
				known = append(known, column[i].Time)
			}
		}
		if len(known) == 0 && len(cs) > 1 {
			for i := range cs {
				cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindLeftOut, Node: peer})
			}
			continue
		}
		tellComputed(cs, column, peer)
		middle := median(known)
		for i := range cs {
			if !column[i].Known {
				sums[i].add(Route{Time: middle}, peers[peer])
				cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindAssumedRoute, Node: peer, Value: middle})
				continue
			}
			sums[i].add(column[i], peers[peer])
			measured[i] = true
		}
	}
	for i := range cs {
		if measured[i] {
			cs[i].Route = sums[i].route()
			continue
		}
		// Nothing was measured to this node: no assumption stands in for all of it.
		cs[i].Reasons = slices.DeleteFunc(cs[i].Reasons, func(r Reason) bool {
			return r.Kind == KindAssumedRoute || r.Kind == KindLeftOut
		})
		cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindNoRoute, Text: whence(peers)})
	}
}

// whence completes the reason for a missing route.
func whence(peers map[model.NodeID]float64) string {
	if len(peers) == 1 {
		for id := range peers {
			return " from " + string(id)
		}
	}
	return " from any node with a peer"
}

// mean adds up weighted route times.
type mean struct {
	time, spread, weight float64
	path                 model.Path
	mixed                bool
}

func (m *mean) add(r Route, weight float64) {
	if r.Path != "" {
		m.mixed = m.mixed || m.path != "" && m.path != r.Path
		m.path = r.Path
	}
	m.time += weight * float64(r.Time)
	m.spread += weight * float64(r.Spread)
	m.weight += weight
}

func (m *mean) route() Route {
	if !(m.weight > 0) {
		return Route{}
	}
	r := Route{Time: duration(m.time / m.weight), Spread: duration(m.spread / m.weight), Known: true}
	if !m.mixed {
		r.Path = m.path
	}
	return r
}

// duration converts without overflow: the greatest duration is not a float64.
func duration(ns float64) time.Duration {
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(math.Round(ns))
}

// median of durations, the mean of the middle two where their number is even; 0 of none.
func median(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	a, b := ds[(len(ds)-1)/2], ds[len(ds)/2]
	return a + (b-a)/2
}
