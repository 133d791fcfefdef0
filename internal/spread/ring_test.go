package spread

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func ringOf(n int) ring {
	var r ring
	for i := range n {
		r.add(simPeer(i))
	}
	return r
}

// reach passes on from who, each with a view of its own, and counts who gets it, and how
// many each passes on to.
func reach(view func(Peer) ring, from Peer, t int) (got, sent map[Peer]int) {
	got, sent = map[Peer]int{from: 1}, map[Peer]int{}
	type task struct {
		at  Peer
		arc arc
	}
	for todo := []task{{from, around(from)}}; len(todo) > 0; todo = todo[1:] {
		at := todo[0]
		for _, b := range view(at.at).branches(at.arc, t) {
			got[b.peer]++
			sent[at.at]++
			if !b.leaf() {
				todo = append(todo, task{b.peer, b.arc})
			}
		}
	}
	return got, sent
}

func TestEveryMemberIsReachedOnce(t *testing.T) {
	for n := range 130 {
		if n == 0 {
			continue
		}
		r := ringOf(n)
		for tree := range trees {
			root := r.root(tree)
			got, sent := reach(func(Peer) ring { return r }, root, tree)
			for _, p := range r {
				if got[p] != 1 {
					t.Fatalf("of %d members one is reached %d times in tree %d", n, got[p], tree)
				}
			}
			for p, k := range sent {
				rank, _ := r.find(p)
				if n > 2*trees && rank%trees != tree {
					t.Fatalf("of %d members, one of rank %d passes on in tree %d", n, rank, tree)
				}
				if k > fanout+2*trees {
					t.Fatalf("of %d members one passes on to %d", n, k)
				}
			}
		}
	}
}

// TestLoadIsEven: over all trees each member passes on about as much as it gets.
func TestLoadIsEven(t *testing.T) {
	const n = 3000
	r := ringOf(n)
	sum := map[Peer]int{}
	for tree := range trees {
		_, sent := reach(func(Peer) ring { return r }, r.root(tree), tree)
		for p, k := range sent {
			sum[p] += k
		}
	}
	for p, k := range sum {
		// trees-1 leaves, and fanout heads at most; where the ring ends, some leaves more.
		if k > 2*(trees-1)+fanout {
			t.Errorf("%x passes on to %d", p, k)
		}
	}
	if len(sum) < n-trees {
		t.Errorf("%d of %d pass anything on", len(sum), n)
	}
}

// TestWhoDiffers: members that take different ones for members reach all that everybody
// knows, and nobody twice.
func TestMembersThatDiffer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		all := ringOf(1 + rng.IntN(200))
		known := map[Peer]bool{}
		for _, p := range all {
			known[p] = rng.IntN(10) > 0
		}
		views := map[Peer]ring{}
		view := func(p Peer) ring {
			if views[p] == nil {
				views[p] = slices.DeleteFunc(slices.Clone(all), func(q Peer) bool { return q != p && !known[q] && rng.IntN(2) == 0 })
			}
			return views[p]
		}
		from := all[rng.IntN(len(all))]
		got, _ := reach(view, from, rng.IntN(trees))
		for _, p := range all {
			if got[p] > 1 || got[p] == 0 && known[p] {
				t.Fatalf("of %d members one (known to all: %v) is reached %d times", len(all), known[p], got[p])
			}
		}
	}
}

func TestRing(t *testing.T) {
	var r ring
	if r.branches(around(1), 0) != nil {
		t.Error("nobody has branches")
	}
	a, b := PeerOf("a"), PeerOf("b")
	if !r.add(a) || r.add(a) || !r.add(b) || len(r) != 2 {
		t.Error("a member is added once")
	}
	if !r.remove(a) || r.remove(a) || len(r) != 1 || r[0] != b {
		t.Error("a member is removed once")
	}
	if fmt.Sprintf("%x", uint64(PeerOf("agent"))) != "d4f0bc5a29de0000" {
		t.Errorf("%x: members of other versions put this one elsewhere", uint64(PeerOf("agent")))
	}
}
