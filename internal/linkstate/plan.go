package linkstate

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/drover-project/drover/internal/model"
)

// FullMesh is up to how many nodes everybody probes everybody.
const FullMesh = 64

// Plan gives the nodes that self probes, by name. zones holds all members with their zones,
// "" where none is known; self may be left out of it.
//
// Up to FullMesh members that is everybody. Beyond, members lie on 1+log2(n) rings, each in an
// order of its own that hashes of their names give, and a node probes its two neighbours on
// each; likewise those of its own zone, or all of that as long as it is no larger than what
// the rings give. So
//   - a probes b if and only if b probes a: each link is measured from both ends;
//   - nobody probes, or is probed by, more than 4*(1+log2(n)) others;
//   - the links always connect all members, and the union of random rings has a diameter of
//     O(log n) (Law and Siu, Distributed Construction of Random Expander Networks, 2003);
//   - who comes or goes changes no more than one link a ring, but where their number does.
func Plan(self model.NodeID, zones map[model.NodeID]string) []model.NodeID {
	all := make([]member, 0, len(zones))
	for id := range zones {
		if id != self {
			all = append(all, member{id: id})
		}
	}
	if len(all) < FullMesh {
		return sorted(all)
	}
	me := member{self, seed(self)}
	var near []member
	for i := range all {
		all[i].seed = seed(all[i].id)
		if zone := zones[self]; zone != "" && zones[all[i].id] == zone {
			near = append(near, all[i])
		}
	}
	peers := neighbours(me, all, 0)
	if len(near) <= 2*rings(len(all)+1) {
		peers = append(peers, near...)
	} else {
		peers = append(peers, neighbours(me, near, zoneRings)...)
	}
	return sorted(peers)
}

// Sample gives up to count of the nodes, drawn by their names' hashes: it stays nearly the
// same when nodes come and go.
func Sample(ids []model.NodeID, count int) []model.NodeID {
	all := make([]member, len(ids))
	for i, id := range ids {
		all[i] = member{id, seed(id)}
	}
	slices.SortFunc(all, func(a, b member) int { return cmp.Or(cmp.Compare(a.seed, b.seed), cmp.Compare(a.id, b.id)) })
	return sorted(all[:min(count, len(all))])
}

// zoneRings is the number of the first ring inside a zone, so that its orders are others
// than those of the cluster.
const zoneRings = 1 << 16

// rings is on how many rings n members lie.
func rings(n int) int { return bits.Len(uint(n)) }

type member struct {
	id   model.NodeID
	seed uint64
}

// neighbours are the next and the previous of the others on each ring.
func neighbours(me member, others []member, first int) []member {
	found := make([]member, 0, 2*rings(len(others)+1))
	for r := range rings(len(others) + 1) {
		ring := uint64(first + r)
		own := place(me.seed, ring)
		next, previous := others[0], others[0]
		after, before := place(next.seed, ring)-own, own-place(next.seed, ring)
		for _, m := range others[1:] {
			// Round the ring: subtraction wraps.
			p := place(m.seed, ring)
			if d := p - own; d < after || d == after && m.id < next.id {
				next, after = m, d
			}
			if d := own - p; d < before || d == before && m.id > previous.id {
				previous, before = m, d
			}
		}
		found = append(found, next, previous)
	}
	return found
}

// seed is what a name's places on all rings derive from.
func seed(id model.NodeID) uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.BigEndian.Uint64(sum[:])
}

// place is where a seed lies on a ring: the finaliser of SplitMix64 (Steele, Lea and Flood,
// Fast Splittable Pseudorandom Number Generators, 2014).
func place(seed, ring uint64) uint64 {
	z := seed + (ring+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// sorted gives each name once.
func sorted(members []member) []model.NodeID {
	ids := make([]model.NodeID, len(members))
	for i, m := range members {
		ids[i] = m.id
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
