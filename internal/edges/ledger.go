// Package edges sums up who talks to whom by workload: what pods of one have carried to and from
// pods of another. It outlasts pods, so that a new pod of a workload is known by what those before
// it did. A Ledger is one node's, an Index all nodes' together.
//
// It is pure: it is fed figures and times, and keeps no clock.
package edges

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

const (
	// HalfLife is after how long what was carried counts by half: docs/decisions/0028 says why.
	HalfLife = time.Hour
	// Forgotten is after how long in silence an edge is.
	Forgotten = 24 * time.Hour
	// Most and MostEnds are how many edges and ends a node tells of.
	Most, MostEnds = 32, 64
	// MaxVolume is more than any node carries in a HalfLife.
	MaxVolume model.Bytes = 1 << 50

	// MaxNames is how long the names of both workloads of an edge may be together, and the one of an end:
	// tenants choose them. Two of 63 characters each for namespace and name, as most names are bounded to,
	// are shorter.
	MaxNames = 300

	// mostKept bounds the edges that a ledger keeps apart; the lightest go.
	mostKept = 1024
	// constancy is by how much what was told stays before what would take its place, so that
	// equals do not change places with every packet.
	constancy = 1.25
)

// Who says whose pods are at the two ends of a talk; false: nobody's, or it is not known yet.
type Who interface {
	Local(model.PodID) (model.Workload, bool)
	Remote(traffic.Endpoint) (model.Workload, bool)
}

// Tellable tells whether others take an edge between the two.
func Tellable(local, remote model.Workload) bool {
	return local.Valid() && remote.Valid() && len(local)+len(remote) <= MaxNames
}

// Ledger is what the workloads of one node have carried. It is not safe for concurrent use.
type Ledger struct {
	talks   map[ends]*account
	edges   map[pair]*volume
	talkers map[model.PodID]*volume
	// What was told last.
	toldEdges map[pair]bool
	toldEnds  map[model.PodID]bool
}

type ends struct {
	local  model.PodID
	remote traffic.Endpoint
}

type pair struct{ local, remote model.Workload }

// account is what of a talk was taken in: in all, and as an edge.
type account struct {
	local         model.Workload // as known last; empty: not yet
	heard, counts model.Bytes
}

// volume is an amount that decays.
type volume struct {
	bytes float64
	at    time.Time // when it was so much
}

func (v *volume) left(now time.Time) float64 {
	return v.bytes * math.Exp2(-float64(max(0, now.Sub(v.at)))/float64(HalfLife))
}

// NewLedger gives an empty one.
func NewLedger() *Ledger {
	return &Ledger{talks: map[ends]*account{}, edges: map[pair]*volume{}, talkers: map[model.PodID]*volume{}}
}

// Feed takes in all talks of the node as they are at now. What a talk carried before its ends were
// known counts once they are.
func (l *Ledger) Feed(now time.Time, talks []traffic.Talk, who Who) {
	heard := make(map[ends]*account, len(talks))
	for _, t := range talks {
		if t.Local.Pod == (model.PodID{}) || t.Remote.Pod == t.Local.Pod || t.Remote.Pod == (model.PodID{}) && t.Remote.Address == "" {
			continue // one end is a node, or nobody; or both are one pod
		}
		at := ends{t.Local.Pod, t.Remote}
		a := l.talks[at]
		if a == nil {
			a = &account{}
		}
		heard[at] = a
		l.take(now, a, t, who)
	}
	l.talks = heard
	l.forget(now)
}

func (l *Ledger) take(now time.Time, a *account, t traffic.Talk, who Who) {
	all := t.Sent + t.Received
	if all < a.heard { // it was forgotten, and has begun anew
		a.heard, a.counts = 0, 0
	}
	add(l.talkers, t.Local.Pod, now, all-a.heard)
	a.heard = all
	if local, known := who.Local(t.Local.Pod); known { // kept, since a pod that has ended has no owner any more
		a.local = local
	}
	if all == a.counts || a.local == "" {
		return
	}
	if remote, known := who.Remote(t.Remote); known && Tellable(a.local, remote) {
		add(l.edges, pair{a.local, remote}, now, all-a.counts)
		a.counts = all
	}
}

func add[K comparable](all map[K]*volume, k K, now time.Time, more model.Bytes) {
	v := all[k]
	switch {
	case v == nil:
		v = &volume{at: now}
		all[k] = v
	case more == 0:
		return
	}
	v.bytes, v.at = v.left(now)+float64(more), now
}

// forget drops edges that were long silent, and the lightest of too many.
func (l *Ledger) forget(now time.Time) {
	maps.DeleteFunc(l.edges, func(_ pair, v *volume) bool { return now.Sub(v.at) > Forgotten || v.bytes == 0 })
	if len(l.edges) <= mostKept {
		return
	}
	keep := heaviest(l.edges, now, mostKept, nil, comparePairs)
	maps.DeleteFunc(l.edges, func(k pair, _ *volume) bool { return !keep[k] })
}

// heaviest picks so many, those that were told a little rather.
func heaviest[K comparable](all map[K]*volume, now time.Time, most int, told map[K]bool, compare func(a, b K) int) map[K]bool {
	type weighed struct {
		key    K
		weight float64
	}
	keys := make([]weighed, 0, len(all))
	for k, v := range all {
		w := weighed{k, v.left(now)}
		if told[k] {
			w.weight *= constancy
		}
		keys = append(keys, w)
	}
	slices.SortFunc(keys, func(a, b weighed) int { return cmp.Or(cmp.Compare(b.weight, a.weight), compare(a.key, b.key)) })
	picked := make(map[K]bool, min(most, len(keys)))
	for _, w := range keys[:min(most, len(keys))] {
		picked[w.key] = true
	}
	return picked
}

func comparePairs(a, b pair) int {
	return cmp.Or(cmp.Compare(a.local, b.local), cmp.Compare(a.remote, b.remote))
}

// Edges are the node's heaviest at now, the heaviest first.
func (l *Ledger) Edges(now time.Time) []model.Edge {
	l.toldEdges = heaviest(l.edges, now, Most, l.toldEdges, comparePairs)
	told := make([]model.Edge, 0, len(l.toldEdges))
	for k := range l.toldEdges {
		told = append(told, model.Edge{Local: k.local, Remote: k.remote, Volume: bytesOf(l.edges[k].left(now))})
	}
	SortEdges(told)
	return told
}

// SortEdges puts the heaviest first.
func SortEdges(all []model.Edge) {
	slices.SortFunc(all, func(a, b model.Edge) int {
		return cmp.Or(cmp.Compare(b.Volume, a.Volume), comparePairs(pair{a.Local, a.Remote}, pair{b.Local, b.Remote}))
	})
}

// Ends are those of the running pods that have talked, those first by address; of too many those that
// have carried most. Pods that do not run are forgotten.
func (l *Ledger) Ends(now time.Time, running map[model.PodID]model.End) []model.End {
	maps.DeleteFunc(l.talkers, func(p model.PodID, _ *volume) bool { _, runs := running[p]; return !runs })
	l.toldEnds = heaviest(l.talkers, now, MostEnds, l.toldEnds, model.ComparePods)
	told := make([]model.End, 0, len(l.toldEnds))
	for p := range l.toldEnds {
		told = append(told, running[p])
	}
	SortEnds(told)
	return told
}

// SortEnds orders by the first address, which each has.
func SortEnds(all []model.End) {
	slices.SortFunc(all, func(a, b model.End) int { return a.Addresses[0].Compare(b.Addresses[0]) })
}
