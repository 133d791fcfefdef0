package spread

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Slots are in order, each once, whenever they are asked for while others come and go.
func TestSlotsAreInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	now := time.Unix(1e9, 0)
	x := index{entries: map[Slot]entry{}}
	held := held{}
	for range 300 {
		for range rng.IntN(20) {
			at := Slot(rng.IntN(1000))
			held[at] = rng.IntN(3) > 0
			x.set(at, rng.Uint64(), now)
		}
		if rng.IntN(10) == 0 {
			now = now.Add(2 * forgotten)
			x.prune(now, held)
		}
		want := []Slot{}
		for at := range x.entries {
			want = append(want, at)
		}
		slices.Sort(want)
		if got := x.slots(); !slices.Equal(got, want) {
			t.Fatalf("%d slots %v, want %v", len(got), got, want)
		}
	}
}

// held is which slots have records.
type held map[Slot]bool

func (held) Take([]byte) (Slot, uint64, Verdict) { return 0, 0, Refused }

func (h held) Get(at Slot) []byte {
	if h[at] {
		return []byte{1}
	}
	return nil
}
