package spread

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Peer names a member: the first bytes of its name's hash, which are its place on the ring.
// The others are zero.
type Peer uint64

// peerSize is how many bytes those are.
const peerSize = 6

// PeerOf is the Peer of the member of that name.
func PeerOf(name string) Peer {
	sum := sha256.Sum256([]byte(name))
	return Peer(binary.BigEndian.Uint64(sum[:]) &^ (1<<(64-8*peerSize) - 1))
}

// place is a position on the ring, modulo 1<<32.
type place uint32

func (p Peer) place() place { return place(p >> 32) }

// arc is the part of the ring from one place on until before the other. When they are equal
// it is empty.
type arc struct{ from, to place }

// around is the whole ring but for p, beginning after p.
func around(p Peer) arc { return arc{p.place() + 1, p.place()} }

// ring is the members in the order of their places. The member of rank r is a head in tree
// r modulo trees, and a leaf in all others.
type ring []Peer

func (r ring) find(p Peer) (rank int, in bool) { return slices.BinarySearch(r, p) }

func (r *ring) add(p Peer) bool {
	rank, in := r.find(p)
	if !in {
		*r = slices.Insert(*r, rank, p)
	}
	return !in
}

func (r *ring) remove(p Peer) bool {
	rank, in := r.find(p)
	if in {
		*r = slices.Delete(*r, rank, rank+1)
	}
	return in
}

// rank is that of the first member at or after a place; len(r) when there is none.
func (r ring) rank(p place) int {
	rank, _ := slices.BinarySearchFunc(r, p, func(m Peer, p place) int {
		if m.place() < p {
			return -1
		}
		return 1
	})
	return rank
}

// root is where what enters tree t begins its way.
func (r ring) root(t int) Peer {
	first := r.rank(place(uint64(t) << 32 / trees))
	for i := range min(len(r), 2*trees) {
		if rank := (first + i) % len(r); rank%trees == t {
			return r[rank]
		}
	}
	return r[first%len(r)]
}

// branch is one that gets what is to reach every member of an arc. It is a leaf when nobody
// is left in the arc.
type branch struct {
	peer Peer
	arc  arc
}

func (b branch) leaf() bool { return b.arc.from == b.arc.to }

// branches splits an arc among those that shall pass on in tree t: the members before the
// arc's first head are leaves, the rest is cut into at most fanout arcs, each beginning
// after the head that it is given to. All other members of an arc come after its head, so
// that nobody is in an arc twice, whatever others take the members for.
func (r ring) branches(a arc, t int) []branch {
	if len(r) == 0 {
		return nil
	}
	first, n := r.rank(a.from), r.rank(a.to)-r.rank(a.from)
	if a.to < a.from {
		n += len(r)
	}
	at := func(i int) Peer { return r[(first+i)%len(r)] }
	head := func(i int) int { // the first at or after i
		for ; i < n; i++ {
			if (first+i)%len(r)%trees == t {
				break
			}
		}
		return min(i, n)
	}
	begin := head(0)
	out := make([]branch, 0, begin+fanout)
	for i := range begin {
		out = append(out, branch{peer: at(i)})
	}
	var heads []int
	for j := range fanout {
		if h := head(begin + j*(n-begin)/fanout); h < n && !slices.Contains(heads, h) {
			heads = append(heads, h)
		}
	}
	for j, h := range heads {
		b := branch{at(h), arc{at(h).place() + 1, a.to}}
		end := n
		if j+1 < len(heads) {
			end = heads[j+1]
			b.arc.to = at(end).place()
		}
		if end-h == 1 {
			b.arc = arc{}
		}
		out = append(out, b)
	}
	return out
}
