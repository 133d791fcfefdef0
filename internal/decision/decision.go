// Package decision keeps what was decided about pods, with the parts that led to it, so that
// it can be explained later. A Log is bounded in number and in bytes; it lives in memory.
package decision

import (
	"slices"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// NotHeard is the age of a node that nothing was heard from.
const NotHeard time.Duration = -1

// Decision is the placement of one pod that was bound.
type Decision struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Profile is the scheduler's name in the pod.
	Profile string `json:"profile"`
	// Ranked is when the nodes were ranked, Bound when the pod was bound, both by the
	// scheduler's clock. Ranked is zero when nothing was scored, Bound when this is only what
	// would be decided.
	Ranked time.Time `json:"ranked,omitzero"`
	Bound  time.Time `json:"bound,omitzero"`
	// Params are what the formula was computed with, Peers (weight by node) and Source from
	// where route times counted.
	Params placement.Params         `json:"params"`
	Peers  map[model.NodeID]float64 `json:"peers,omitempty"`
	Source model.NodeID             `json:"source,omitempty"`
	// PeersBy says how the peers were known, PeersWhy by what, or why there are none: as package
	// peers has it.
	PeersBy  string `json:"peersBy,omitempty"`
	PeersWhy string `json:"peersWhy,omitempty"`
	// ViewAge is how old the picture of the cluster was.
	ViewAge time.Duration `json:"viewAge"`
	// Cluster is how many nodes the cluster had, and Scored how many of them were scored; the others were
	// not looked at, or were not feasible.
	Cluster int `json:"cluster"`
	Scored  int `json:"scored"`
	// Plugins names those whose points are in every node's Said; none where the scheduler's
	// framework did not tell.
	Plugins []string `json:"plugins,omitempty"`
	// Nodes are some that were scored, the foremost, in the scheduler's order; of few, all. Kube-scheduler
	// scores nothing when one node alone is feasible.
	Nodes  []Node       `json:"nodes"`
	Winner model.NodeID `json:"winner,omitempty"`
}

// Node is one that was scored.
type Node struct {
	placement.Score
	// Age is how long before the ranking the node was last heard; NotHeard: never.
	Age time.Duration `json:"age"`
	// Said are all plugins' points, normalised and weighted, in the order of Plugins. Total is
	// their sum: the scheduler takes a node with the greatest.
	Said  []int64 `json:"said,omitempty"`
	Total int64   `json:"total"`
}

// Chosen is the winner as it was scored; nil when it was not.
func (d *Decision) Chosen() *Node {
	i := slices.IndexFunc(d.Nodes, func(n Node) bool { return n.Node == d.Winner })
	if i < 0 {
		return nil
	}
	return &d.Nodes[i]
}

// Best is the node with the greatest A; nil when none is known.
func (d *Decision) Best() *Node {
	var best *Node
	for i := range d.Nodes {
		if n := &d.Nodes[i]; n.Known && (best == nil || n.A > best.A) {
			best = n
		}
	}
	return best
}

// Log keeps the newest decisions. It may be used by several at once.
type Log struct {
	count, bytes int

	mu    sync.Mutex
	kept  []*Packed // oldest first
	used  int
	spare []columns // of those that were dropped
}

// mostSpare is for how many decisions memory is held ready.
const mostSpare = 4

// NewLog makes a log of at most count decisions that take at most about so many bytes; with
// either 0 it keeps none.
func NewLog(count int, bytes model.Bytes) *Log { return &Log{count: count, bytes: int(bytes)} }

// Pack packs a decision, in the memory of a decision that was dropped, if one was.
func (l *Log) Pack(d *Decision) *Packed {
	var spare columns
	l.mu.Lock()
	if last := len(l.spare) - 1; last >= 0 {
		spare, l.spare = l.spare[last], l.spare[:last]
	}
	l.mu.Unlock()
	return pack(d, spare)
}

// Add keeps a decision and drops the oldest for which there is no room. One that is larger than the log
// is dropped itself. The caller neither changes nor unpacks it any more.
func (l *Log) Add(d *Packed) {
	d.takes = d.size()
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.takes > l.bytes || l.count < 1 {
		l.drop(d)
		return
	}
	for len(l.kept) > 0 && (len(l.kept) >= l.count || l.used+d.takes > l.bytes) {
		l.used -= l.kept[0].takes
		l.drop(l.kept[0])
		l.kept[0] = nil
		l.kept = l.kept[1:]
	}
	l.kept, l.used = append(l.kept, d), l.used+d.takes
}

func (l *Log) drop(d *Packed) {
	if len(l.spare) < mostSpare {
		l.spare = append(l.spare, d.columns)
	}
}

// Of lists what was decided about pods of that name, the newest first.
func (l *Log) Of(namespace, name string) []*Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := []*Decision{}
	for _, d := range slices.Backward(l.kept) {
		if d.Namespace == namespace && d.Name == name {
			found = append(found, d.Unpack())
		}
	}
	return found
}
