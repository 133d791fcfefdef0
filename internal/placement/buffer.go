package placement

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
)

// Buffer is memory for many rankings, one after the other: a scheduler ranks some hundred nodes
// for each of some hundred pods a second. What it has given is good until it is asked for the
// same again. It changes no result. It is thread-unsafe.
type Buffer struct {
	many       bool // rankings
	candidates []Candidate
	scores     []Score
	told, kept rooms // for the reasons of candidates, and of scores

	numbers   []int32 // of the candidates in the survey's roll; -1: not in it
	strangers bool    // some are not
	peers     []peer
	pod, node []Route
	times     []time.Duration
	sums      []mean
	measured  []bool
	keys      []uint64
	spare     []uint64
	order     []int32
	spans     []span
	first     []int32 // of each score's group
	logs      []float64
	points    []float64
	ways      []float32
	tops      []top
	ids       []model.NodeID
}

// NewBuffer makes one for many rankings; the zero value serves for one.
func NewBuffer() *Buffer { return &Buffer{many: true} }

// rooms is memory for the first few reasons of each node; of none in the zero value.
type rooms struct {
	all  []Reason
	each int
}

func (r *rooms) make(n, each int) { r.all, r.each = sized(r.all, n*each), each }

// of is the room of one node; append takes other memory beyond it.
func (r *rooms) of(i int) []Reason {
	if r.each == 0 {
		return nil
	}
	return r.all[i*r.each : i*r.each : (i+1)*r.each]
}

// most is how much room for reasons of its own, beside one for each peer, a node has: that its route time
// counts as another's, and that pods have come. More are rare.
const most = 2

// own tells whether candidates are those that b has given. Their reasons need not be copied: what
// scores add to them comes after them, in their room.
func (b *Buffer) own(candidates []Candidate) bool {
	return b.many && len(candidates) > 0 && len(b.candidates) > 0 && &candidates[0] == &b.candidates[0]
}

// sized gives a slice of the length n, with whatever was in it before.
func sized[T any](s []T, n int) []T {
	if s == nil || cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// MostPeers bounds to how many peers' nodes route times are taken: every one costs a pass over all
// candidates. A mean over so many is close to the mean over all.
const MostPeers = 32

// peer is a node with peers of the pod, and their weight.
type peer struct {
	node   model.NodeID
	weight float64
}

// from gives clean weights in the order of the nodes, scaled so that sums of them stay finite.
func (b *Buffer) from(f Viewpoint) []peer {
	all, clean, greatest := f.Peers, b.peers[:0], 0.0
	if len(all) > MostPeers {
		all = edges.Heaviest(all, MostPeers)
	}
	for id, w := range all {
		if w > 0 && !math.IsInf(w, 0) && id != "" {
			clean = append(clean, peer{id, w})
			greatest = max(greatest, w)
		}
	}
	for i := range clean {
		clean[i].weight /= greatest
	}
	if len(clean) == 0 && f.Source != "" {
		clean = append(clean, peer{f.Source, 1})
	}
	slices.SortFunc(clean, func(a, b peer) int { return cmp.Compare(a.node, b.node) })
	b.peers = clean
	return clean
}
