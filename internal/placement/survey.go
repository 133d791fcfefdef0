package placement

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Viewpoint is from where route times count, and what the pod needs wherever it comes.
type Viewpoint struct {
	// Peers are the nodes that the pod's peers are on, with the weight of its traffic to
	// each. Weights that are not greater than 0 or not finite are left out.
	Peers map[model.NodeID]float64
	// Source is, of a move, the node that the pod leaves. It counts where there are no
	// peers. With neither, a node's route time is its mean to all others.
	Source model.NodeID
	// Needs is what the pod is held to use; zero: not known.
	Needs model.Resources
}

// Survey is one picture of the cluster made ready for many questions. It may be used by
// several at once.
type Survey struct {
	view   view.Snapshot
	params Params
	now    time.Time
	alive  int
	// node and pod are what it knows of the two paths.
	node, pod *routesBy
	podUse    *podUse
	// roll and loads are made when they are first asked for.
	roll  func() *roll
	loads func() *loads
}

// NewSurvey prepares a picture. now is by the clock that took it: on another machine, its
// At. What is older than p.StaleAfter at now does not count.
func NewSurvey(s view.Snapshot, p Params, now time.Time) *Survey {
	v := &Survey{view: s, params: p, now: now}
	v.alive = living(s)
	many := sparse(v.alive)
	v.roll = sync.OnceValue(func() *roll { return newRoll(s) })
	v.loads = sync.OnceValue(v.loadAll)
	v.podUse = newPodUse(v)
	v.node, v.pod = newRoutesBy(model.PathNode, v, many), newRoutesBy(model.PathPod, v, many)
	return v
}

// View is the picture that the survey was made from.
func (v *Survey) View() view.Snapshot { return v.view }

// Alive is how many nodes of the picture are alive.
func (v *Survey) Alive() int { return v.alive }

// Candidates gathers what the formula needs for the given nodes, in their order; without
// any, for all nodes that are alive, by name. Of a move the caller leaves the source out:
// the formula ranks where to go, not whether.
func (v *Survey) Candidates(from Viewpoint, nodes ...model.NodeID) []Candidate {
	if len(nodes) == 0 {
		nodes = v.view.Alive()
	}
	return new(Buffer).Candidates(v, from, nodes)
}

// Candidates is Survey.Candidates, of the given nodes alone, without memory of its own.
func (b *Buffer) Candidates(v *Survey, from Viewpoint, nodes []model.NodeID) []Candidate {
	b.candidates, b.numbers = sized(b.candidates, len(nodes)), sized(b.numbers, len(nodes))
	peers := b.from(from)
	if b.many {
		b.told.make(len(nodes), most+min(len(peers), 4))
	}
	// Numbers first: what then is read of each node does not wait for the one before.
	r, loads := v.roll(), v.loads()
	b.strangers = false
	for i, id := range nodes {
		number, listed := r.numbers[id]
		if !listed {
			number, b.strangers = -1, true
		}
		b.numbers[i] = number
	}
	for i, id := range nodes {
		c, l := &b.candidates[i], &unheard
		if number := b.numbers[i]; number >= 0 {
			l = &loads.of[number]
		}
		*c = Candidate{Node: id, Load: l.load, LoadKnown: l.why == nil, Needs: from.Needs, Reasons: b.told.of(i)}
		if !c.LoadKnown {
			c.Reasons = append(c.Reasons, *l.why)
		}
	}
	if len(peers) > 0 {
		b.routeToPeers(v, peers)
		return b.candidates
	}
	for i, r := range b.alike(v, b.candidates, "") {
		c := &b.candidates[i]
		if c.Route = r; !r.Known {
			c.Reasons = append(c.Reasons, Reason{Kind: KindNoRoute, Text: " from any other"})
		}
	}
	return b.candidates
}

// Numbers gives the numbers of the candidates, by Survey.Number; -1 of those that are not in the picture.
func (b *Buffer) Numbers() []int32 { return b.numbers }

// unheard is the load of a node that is not in the picture.
var unheard = loaded{why: &Reason{Kind: KindNoState}}

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
func (b *Buffer) routeToPeers(v *Survey, peers []peer) {
	cs := b.candidates
	if len(peers) == 1 {
		b.routeToPeer(v, peers[0].node)
		return
	}
	b.sums, b.measured = sized(b.sums, len(cs)), sized(b.measured, len(cs))
	clear(b.sums)
	clear(b.measured)
	for _, p := range peers {
		routes, known, all := b.alike(v, cs, p.node), 0, 0
		for i := range cs {
			if routes[i].Known {
				all++
				if cs[i].Node != p.node {
					known++
				}
			}
		}
		if known == 0 && len(cs) > 1 {
			for i := range cs {
				cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindLeftOut, Node: p.node})
			}
			continue
		}
		tellComputed(cs, routes, p.node)
		var middle time.Duration
		if all < len(cs) {
			middle = b.middle(routes, p.node)
		}
		for i := range cs {
			if !routes[i].Known {
				b.sums[i].add(&Route{Time: middle}, p.weight)
				cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindAssumedRoute, Node: p.node, Value: middle})
				continue
			}
			b.sums[i].add(&routes[i], p.weight)
			b.measured[i] = true
		}
	}
	for i := range cs {
		if b.measured[i] {
			cs[i].Route = b.sums[i].route()
			continue
		}
		// Nothing was measured to this node: no assumption stands in for all of it.
		cs[i].Reasons = slices.DeleteFunc(cs[i].Reasons, func(r Reason) bool {
			return r.Kind == KindAssumedRoute || r.Kind == KindLeftOut
		})
		cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindNoRoute, Text: " from any node with a peer"})
	}
}

// routeToPeer is routeToPeers where there is one, as most often: there is nothing to add up, and
// nothing stands in for a route that is missing.
func (b *Buffer) routeToPeer(v *Survey, peer model.NodeID) {
	cs := b.candidates
	routes := b.alike(v, cs, peer)
	others := 0
	for i := range cs {
		if routes[i].Known && cs[i].Node != peer {
			others++
		}
	}
	none := others == 0 && len(cs) > 1
	if !none {
		tellComputed(cs, routes, peer)
	}
	for i := range cs {
		if none || !routes[i].Known {
			cs[i].Reasons = append(cs[i].Reasons, Reason{Kind: KindNoRoute, Text: " from " + string(peer)})
			continue
		}
		cs[i].Route = routes[i]
		cs[i].Route.Hops = 0 // of a mean, which this is: of one
	}
}

// middle is the median of the candidates' known routes to a peer's node, but that of the node itself.
func (b *Buffer) middle(routes []Route, peer model.NodeID) time.Duration {
	times := b.times[:0]
	for i := range routes {
		if routes[i].Known && b.candidates[i].Node != peer {
			times = append(times, routes[i].Time)
		}
	}
	b.times = times
	return median(times)
}

// mean adds up weighted route times.
type mean struct {
	time, spread, weight float64
	path                 model.Path
	mixed                bool
}

func (m *mean) add(r *Route, weight float64) {
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
