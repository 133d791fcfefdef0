package peak

import (
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func load(cpu float64, memory model.Bytes) model.Load {
	return model.Load{At: t0, Allocatable: model.Resources{CPU: 8, Memory: 32 * model.GiB},
		Used: model.Resources{CPU: model.Cores(cpu), Memory: memory}}
}

// told is what is said at a time.
type told struct {
	after time.Duration
	load  model.Load
}

// follow gives what counts as used, and the excess, after all was said, at now.
func follow(all []told, now time.Duration) (used model.Resources, e Excess) {
	was := model.Load{}
	for _, s := range all {
		e = e.Follow(was, s.load, t0.Add(s.after))
		was = s.load
	}
	return was.Used.Plus(e.Left(t0.Add(now))), e
}

func TestPeak(t *testing.T) {
	const g, m = model.GiB, time.Minute
	glitch := load(1e9, g)
	unmeasured := load(0, 0)
	unmeasured.At = time.Time{}
	for _, tt := range []struct {
		name string
		told []told
		now  time.Duration
		want model.Resources
	}{
		{"nothing before", []told{{0, load(2, g)}}, 0, model.Resources{CPU: 2, Memory: g}},
		{"a rise counts at once", []told{{0, load(2, g)}, {1, load(6, 3*g)}}, 1, model.Resources{CPU: 6, Memory: 3 * g}},
		{"a fall does not", []told{{0, load(6, 3*g)}, {m, load(2, g)}}, m, model.Resources{CPU: 6, Memory: 3 * g}},
		// 2 + 4/2, 1 + 2/2; then a half of that again.
		{"its excess halves", []told{{0, load(6, 3*g)}, {m, load(2, g)}}, 2 * m, model.Resources{CPU: 4, Memory: 2 * g}},
		{"and again", []told{{0, load(6, 3*g)}, {m, load(2, g)}}, 3 * m, model.Resources{CPU: 3, Memory: 3 * g / 2}},
		// At 2 min 2 + 4/2 = 4 counts; 3 in use of it leave 1, half of it a minute later.
		{"a rise below the peak", []told{{0, load(6, g)}, {m, load(2, g)}, {2 * m, load(3, g)}}, 3 * m, model.Resources{CPU: 3.5, Memory: g}},
		// 4 as above, and the fall to 1 leaves 3.
		{"a fall upon a fall", []told{{0, load(6, g)}, {m, load(2, g)}, {2 * m, load(1, g)}}, 3 * m, model.Resources{CPU: 2.5, Memory: g}},
		{"each by itself", []told{{0, load(6, g)}, {m, load(2, 3*g)}}, m, model.Resources{CPU: 6, Memory: 3 * g}},
		{"a rise above it", []told{{0, load(6, g)}, {m, load(2, g)}, {2 * m, load(7, g)}}, 2 * m, model.Resources{CPU: 7, Memory: g}},
		{"no more than there is", []told{{0, glitch}, {1, load(2, g)}}, m + 1, model.Resources{CPU: 5, Memory: g}},
		{"not measured before", []told{{0, unmeasured}, {1, load(2, g)}}, 1, model.Resources{CPU: 2, Memory: g}},
		{"a clock that goes back", []told{{0, load(6, g)}, {m, load(2, g)}}, 0, model.Resources{CPU: 6, Memory: g}},
		{"no number", []told{{0, load(math.NaN(), g)}, {1, load(2, g)}}, 1, model.Resources{CPU: 2, Memory: g}},
		{"infinite", []told{{0, load(math.Inf(1), g)}, {1, load(2, g)}}, m + 1, model.Resources{CPU: 5, Memory: g}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := follow(tt.told, tt.now)
			if math.Abs(float64(got.CPU-tt.want.CPU)) > 1e-6 || (got.Memory-tt.want.Memory) > 1000 || (tt.want.Memory-got.Memory) > 1000 {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// How often the same is told changes nothing, what counts is never below what is in use nor
// above the highest that was, and no later telling makes it jump down.
func TestPeakOfAnySwing(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 5000 {
		var all, often []told
		at, highest := time.Duration(0), 0.0
		for range 1 + r.Intn(8) {
			l := load(8*r.Float64(), model.GiB)
			highest = max(highest, float64(l.Used.CPU))
			before, _ := follow(all, at)
			all, often = append(all, told{at, l}), append(often, told{at, l})
			after, _ := follow(all, at)
			if after.CPU < before.CPU-1e-9 || after.CPU < l.Used.CPU || float64(after.CPU) > highest+1e-9 {
				t.Fatalf("%v cores count after %v, of %+v", after.CPU, before.CPU, all)
			}
			for range r.Intn(4) {
				at += time.Duration(r.Int63n(int64(time.Minute)))
				often = append(often, told{at, l})
			}
			at += time.Duration(r.Int63n(int64(time.Minute)))
		}
		once, _ := follow(all, at)
		repeated, _ := follow(often, at)
		if math.Abs(float64(once.CPU-repeated.CPU)) > 1e-9 {
			t.Fatalf("%v cores count, %v when the same is told more often: %+v", once.CPU, repeated.CPU, often)
		}
	}
}
