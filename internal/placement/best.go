package placement

import (
	"math"
	"slices"

	"github.com/drover-project/drover/internal/model"
)

// top is a node and how much it is worth over T.
type top struct {
	number int32
	value  float32
}

// Best gives up to n nodes, among all of a picture, that have the greatest A by the picture alone,
// as it is seen from peers or from the source; the greatest first. It is quick rather than exact: what is
// not known of one way counts as not known of the node, spreads do not count, and of each peer's
// node one path counts for all, the pod path where it is known of more than half. From neither
// peers nor a source there are none, and none where route times do not count.
func (b *Buffer) Best(v *Survey, from Viewpoint, n int) []model.NodeID {
	peers := b.from(from)
	if len(peers) == 0 || n < 1 || v.params.Exponent == 0 || v.params.Problem() != "" {
		return nil
	}
	r := v.roll()
	b.ways = sized(b.ways, len(r.ids))
	clear(b.ways)
	for _, p := range peers {
		to := v.pod.column(p.node)
		if 2*to.known <= len(r.ids) {
			to = v.node.column(p.node)
		}
		weight := float32(p.weight)
		for i, way := range to.ways {
			b.ways[i] += weight * way
		}
	}
	tops, least := b.tops[:0], float32(0)
	loads, needs := v.loads(), needed(from.Needs)
	for i, worth := range loads.worth {
		value := worth / b.ways[i]
		if !(value > least) {
			continue
		}
		if part := room(loads.idle[i], needs); part < 1 {
			if value *= float32(math.Pow(part, 1/v.params.Exponent)); !(value > least) {
				continue
			}
		}
		at, _ := slices.BinarySearchFunc(tops, value, func(t top, value float32) int {
			if t.value > value {
				return -1
			}
			return 1
		})
		if len(tops) == n {
			tops = tops[:n-1]
		}
		tops = slices.Insert(tops, at, top{int32(i), value})
		if len(tops) == n {
			least = tops[n-1].value
		}
	}
	b.tops = tops
	ids := b.ids[:0]
	for _, t := range tops {
		ids = append(ids, r.ids[t.number])
	}
	b.ids = ids
	return ids
}
