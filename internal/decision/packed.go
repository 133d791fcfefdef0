package decision

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"unsafe"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// Packed is a decision as it is kept: most are never asked for, and as structures hundreds of nodes with
// their reasons take five times the memory, all of which the garbage collector would look through again and again.
type Packed struct {
	// Decision is all of it but Nodes.
	Decision
	// Chosen and Best are as Decision's methods of those names give them.
	Chosen, Best *Node
	// Scored is how many nodes there are.
	Scored int

	nodes []byte
}

// Pack takes nothing over but the strings and maps of d. room is memory to work in, and is given back,
// perhaps larger.
func Pack(d *Decision, room []byte) (*Packed, []byte) {
	p := &Packed{Decision: *d, Chosen: d.Chosen().clone(), Best: d.Best().clone(), Scored: len(d.Nodes)}
	p.Plugins, p.Nodes = slices.Clone(d.Plugins), nil
	w := codec{b: room[:0]}
	for i := range d.Nodes {
		w.node(&d.Nodes[i])
	}
	p.nodes = bytes.Clone(w.b)
	return p, w.b
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
	d := p.Decision
	d.Plugins, d.Peers = slices.Clone(p.Plugins), maps.Clone(p.Peers)
	d.Nodes = make([]Node, p.Scored)
	r := codec{b: p.nodes, reads: true}
	for i := range d.Nodes {
		r.node(&d.Nodes[i])
	}
	return &d
}

// size is about what it takes in memory, in bytes, and rather more: names that it shares with others count in full.
func (p *Packed) size() int {
	n := int(unsafe.Sizeof(*p)) + len(p.Namespace) + len(p.Name) + len(p.UID) + len(p.Profile) + len(p.Winner) + len(p.Source) + len(p.PeersBy) + len(p.PeersWhy) + len(p.nodes)
	for peer := range p.Peers {
		n += int(unsafe.Sizeof(peer)) + len(peer) + 2*int(unsafe.Sizeof(float64(0)))
	}
	for _, name := range p.Plugins {
		n += int(unsafe.Sizeof(name)) + len(name)
	}
	return n + p.Chosen.size() + p.Best.size()
}

func (n *Node) size() int {
	if n == nil {
		return 0
	}
	size := int(unsafe.Sizeof(*n)) + len(n.Node) + len(n.Said)*int(unsafe.Sizeof(int64(0))) + cap(n.Reasons)*int(unsafe.Sizeof(placement.Reason{}))
	for _, r := range n.Reasons {
		size += len(r.Node) + len(r.Text)
	}
	return size
}

// codec writes nodes to b, or reads them from it: one walk does both, so that they agree. What it reads
// it has written.
type codec struct {
	b     []byte
	reads bool
}

func (c *codec) node(n *Node) {
	text(c, &n.Node)
	c.resources(&n.Idle)
	integer(c, &n.Route.Time)
	integer(c, &n.Route.Spread)
	c.truth(&n.Route.Known)
	text(c, &n.Route.Path)
	integer(c, &n.Route.Hops)
	integer(c, &n.T)
	float(c, &n.A)
	float(c, &n.Points)
	c.truth(&n.Known)
	integer(c, &n.Age)
	integer(c, &n.Total)
	n.Reasons = list(c, n.Reasons)
	for i := range n.Reasons {
		c.reason(&n.Reasons[i])
	}
	n.Said = list(c, n.Said)
	for i := range n.Said {
		integer(c, &n.Said[i])
	}
}

func (c *codec) reason(r *placement.Reason) {
	text(c, &r.Kind)
	text(c, &r.Node)
	integer(c, &r.Value)
	integer(c, &r.Limit)
	integer(c, &r.Hops)
	integer(c, &r.Pods)
	c.resources(&r.Use)
	text(c, &r.Text)
}

func (c *codec) resources(r *model.Resources) {
	float(c, &r.CPU)
	integer(c, &r.Memory)
}

func (c *codec) truth(v *bool) {
	x := 0
	if *v {
		x = 1
	}
	integer(c, &x)
	*v = x != 0
}

func integer[T ~int | ~int64](c *codec, v *T) {
	if !c.reads {
		c.b = binary.AppendVarint(c.b, int64(*v))
		return
	}
	x, n := binary.Varint(c.b)
	*v, c.b = T(x), c.b[n:]
}

func float[T ~float64](c *codec, v *T) {
	if !c.reads {
		c.b = binary.LittleEndian.AppendUint64(c.b, math.Float64bits(float64(*v)))
		return
	}
	*v, c.b = T(math.Float64frombits(binary.LittleEndian.Uint64(c.b))), c.b[8:]
}

func text[T ~string](c *codec, v *T) {
	n := len(*v)
	integer(c, &n)
	if !c.reads {
		c.b = append(c.b, *v...)
		return
	}
	*v, c.b = T(c.b[:n]), c.b[n:]
}

// list gives the elements that are to be gone through.
func list[T any](c *codec, all []T) []T {
	n := len(all)
	integer(c, &n)
	if c.reads && n > 0 {
		return make([]T, n)
	}
	return all
}
