// Package arrivals knows the pods that have come to nodes, and that the nodes' loads do not tell
// yet. What they request is in the scheduler's books from the moment they are placed. What they
// will use is not, and many request less or nothing: without it, all that are placed
// by one picture come to the node that it shows as the best. (Trimaran's TargetLoadPacking
// does likewise between two readings of its metrics.)
package arrivals

import (
	"iter"
	"maps"
	"time"

	"github.com/drover-project/drover/internal/model"
)

const (
	// Settle is how long a pod must have run before a load that is heard tells of it: a load is the
	// mean of a second, and is told up to 4 s later.
	Settle = 5 * time.Second
	// Patience is how long a pod counts at most: one that does not run by then waits for something
	// that need not come, as an image that nobody has.
	Patience = 10 * time.Minute
)

// Least is what a pod is held to use at least, the scheduler's own figure for pods that request
// nothing (DefaultMilliCPURequest and DefaultMemoryRequest of k8s.io/kubernetes/pkg/scheduler/util).
var Least = model.Resources{CPU: 0.1, Memory: 200 * model.MiB}

// Expected is what a pod is held to use that nothing was measured of: what it requests, or more
// where pods usually use more.
func Expected(requests, usual model.Resources) model.Resources {
	return model.Resources{CPU: max(requests.CPU, usual.CPU, Least.CPU), Memory: max(requests.Memory, usual.Memory, Least.Memory)}
}

// Sum is what comes to one node.
type Sum struct {
	Pods int
	Use  model.Resources
}

type pod struct {
	use  model.Resources
	came time.Time
	runs time.Time // since when; zero: not yet
}

type node struct {
	pods map[string]pod // by UID
	sum  Sum
}

// Book is a thread-unsafe list of the pods that come. Times are by the clock of who keeps it, which
// must be the one that stamps what is heard.
type Book struct {
	nodes map[model.NodeID]*node
	where map[string]model.NodeID // by UID
}

// NewBook gives an empty one.
func NewBook() *Book { return &Book{nodes: map[model.NodeID]*node{}, where: map[string]model.NodeID{}} }

// Knows tells whether a pod comes to a node.
func (b *Book) Knows(uid string, to model.NodeID) bool {
	at, known := b.where[uid]
	return known && at == to
}

// Come notes that a pod was placed on a node, and what it is held to use there. What was noted
// first stays, unless it is on another node: that is given, else it is empty.
func (b *Book) Come(uid string, to model.NodeID, use model.Resources, now time.Time) (before model.NodeID) {
	if b.Knows(uid, to) {
		return ""
	}
	before = b.Drop(uid)
	n := b.nodes[to]
	if n == nil {
		n = &node{pods: map[string]pod{}}
		b.nodes[to] = n
	}
	n.pods[uid] = pod{use: use, came: now}
	b.where[uid] = to
	n.count()
	return before
}

// Run notes that a pod runs. It may be said again.
func (b *Book) Run(uid string, now time.Time) {
	if n := b.nodes[b.where[uid]]; n != nil {
		if p := n.pods[uid]; p.runs.IsZero() {
			p.runs = now
			n.pods[uid] = p
		}
	}
}

// Drop forgets a pod: it is gone, or was not placed after all. It gives the node that it was on; empty: it was not known.
func (b *Book) Drop(uid string) (at model.NodeID) {
	at, known := b.where[uid]
	if !known {
		return ""
	}
	delete(b.where, uid)
	n := b.nodes[at]
	delete(n.pods, uid)
	if n.count(); n.sum.Pods == 0 {
		delete(b.nodes, at)
	}
	return at
}

// Hear forgets the pods that loads tell of at now, and those that nobody waits for. heard is when the last load of a node came;
// zero: none did.
func (b *Book) Hear(heard func(model.NodeID) time.Time, now time.Time) {
	for id, n := range b.nodes {
		at := heard(id)
		for uid, p := range n.pods {
			told := !p.runs.IsZero() && !at.Before(p.runs.Add(Settle))
			if told || now.Sub(p.came) >= Patience {
				b.Drop(uid)
			}
		}
	}
}

// On is what comes to a node.
func (b *Book) On(id model.NodeID) Sum {
	if n := b.nodes[id]; n != nil {
		return n.sum
	}
	return Sum{}
}

// Nodes are those that pods come to.
func (b *Book) Nodes() iter.Seq[model.NodeID] { return maps.Keys(b.nodes) }

// Pods is how many pods come, to all nodes together.
func (b *Book) Pods() int { return len(b.where) }

// count adds up anew: what is added to and taken from a float does not come out even.
func (n *node) count() {
	n.sum = Sum{Pods: len(n.pods)}
	for _, p := range n.pods {
		n.sum.Use = n.sum.Use.Plus(p.use)
	}
}
