package decision

import (
	"maps"
	"slices"
	"time"
	"unsafe"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// Packed is a decision as it is kept: most are never asked for, and as structures hundreds of nodes with
// their reasons take twice the memory, which the garbage collector would look through again and again.
type Packed struct {
	// Decision is all of it but Nodes.
	Decision
	// Chosen and Best are as Decision's methods of those names give them.
	Chosen, Best *Node

	columns
	takes int // bytes, once it is kept
}

// columns are what there is of nodes; but for names, what has pointers is in few places.
type columns struct {
	rows    []row // one a node, like names
	names   []model.NodeID
	reasons []brief // those of one node after those of another, like said
	said    []int64
	labels  []label
	paths   []model.Path
}

type row struct {
	idle                 model.Resources
	time, spread, t, age time.Duration
	hops, path           int
	a, points            float64
	total                int64
	reasons, said        int32
	known, routeKnown    bool
}

type brief struct {
	label        int
	value, limit time.Duration
	hops, pods   int
	use          model.Resources
}

// label is what many reasons have in common.
type label struct {
	kind placement.Kind
	node model.NodeID
	text string
}

// pack takes nothing over but the strings and the map of d. It uses the memory of spare, which may be empty.
func pack(d *Decision, spare columns) *Packed {
	p := &Packed{Decision: *d, Chosen: d.Chosen().clone(), Best: d.Best().clone()}
	p.Plugins, p.Nodes = slices.Clone(d.Plugins), nil
	reasons, said := 0, 0
	for i := range d.Nodes {
		reasons += len(d.Nodes[i].Reasons)
		said += len(d.Nodes[i].Said)
	}
	c := columns{
		slices.Grow(spare.rows[:0], len(d.Nodes)), slices.Grow(spare.names[:0], len(d.Nodes)),
		slices.Grow(spare.reasons[:0], reasons), slices.Grow(spare.said[:0], said), spare.labels[:0], spare.paths[:0],
	}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		c.names = append(c.names, n.Node)
		c.rows = append(c.rows, row{
			idle: n.Idle, time: n.Route.Time, spread: n.Route.Spread, t: n.T, age: n.Age, hops: n.Route.Hops, path: number(&c.paths, n.Route.Path),
			a: n.A, points: n.Points, total: n.Total, reasons: int32(len(n.Reasons)), said: int32(len(n.Said)), known: n.Known, routeKnown: n.Route.Known,
		})
		for j := range n.Reasons {
			r := &n.Reasons[j]
			c.reasons = append(c.reasons, brief{number(&c.labels, label{r.Kind, r.Node, r.Text}), r.Value, r.Limit, r.Hops, r.Pods, r.Use})
		}
		c.said = append(c.said, n.Said...)
	}
	p.columns = c
	return p
}

// number is where a value is among others; it is added where it is none of the last few.
func number[T comparable](all *[]T, value T) int {
	const few = 8
	for i := len(*all) - 1; i >= max(0, len(*all)-few); i-- {
		if (*all)[i] == value {
			return i
		}
	}
	*all = append(*all, value)
	return len(*all) - 1
}

// clone is the node in memory of its own.
func (n *Node) clone() *Node {
	if n == nil {
		return nil
	}
	c := *n
	c.Said, c.Reasons = slices.Clone(n.Said), slices.Clone(n.Reasons)
	return &c
}

// Unpack gives the decision as it was, in memory of its own.
func (p *Packed) Unpack() *Decision {
	d, c := p.Decision, p.columns
	d.Plugins, d.Peers = slices.Clone(p.Plugins), maps.Clone(p.Peers)
	d.Nodes = make([]Node, len(c.rows))
	for i, r := range c.rows {
		n := &d.Nodes[i]
		n.Score = placement.Score{
			Node: c.names[i], Idle: r.idle, T: r.t, A: r.a, Points: r.points, Known: r.known,
			Route: placement.Route{Time: r.time, Spread: r.spread, Known: r.routeKnown, Path: c.paths[r.path], Hops: r.hops},
		}
		n.Age, n.Total = r.age, r.total
		for _, b := range c.reasons[:r.reasons] {
			l := c.labels[b.label]
			n.Reasons = append(n.Reasons, placement.Reason{Kind: l.kind, Node: l.node, Text: l.text, Value: b.value, Limit: b.limit, Hops: b.hops, Pods: b.pods, Use: b.use})
		}
		if r.said > 0 {
			n.Said = slices.Clone(c.said[:r.said])
		}
		c.reasons, c.said = c.reasons[r.reasons:], c.said[r.said:]
	}
	return &d
}

// size is about what it takes in memory, in bytes, and rather more: names that it shares with others count in full.
func (p *Packed) size() int {
	n := int(unsafe.Sizeof(*p)) + len(p.Namespace) + len(p.Name) + len(p.UID) + len(p.Profile) + len(p.Winner) + len(p.Source) + len(p.PeersBy) + len(p.PeersWhy)
	for peer := range p.Peers {
		n += int(unsafe.Sizeof(peer)) + len(peer) + 2*int(unsafe.Sizeof(float64(0)))
	}
	for _, name := range p.Plugins {
		n += int(unsafe.Sizeof(name)) + len(name)
	}
	for _, name := range p.names {
		n += len(name)
	}
	for _, l := range p.labels {
		n += len(l.node) + len(l.text)
	}
	n += taken(p.rows) + taken(p.names) + taken(p.reasons) + taken(p.said) + taken(p.labels) + taken(p.paths)
	return n + p.Chosen.size() + p.Best.size()
}

// size is that of a node in memory of its own, whose strings are others' too.
func (n *Node) size() int {
	if n == nil {
		return 0
	}
	return int(unsafe.Sizeof(*n)) + taken(n.Said) + taken(n.Reasons)
}

func taken[T any](s []T) int { return cap(s) * int(unsafe.Sizeof(*new(T))) }
