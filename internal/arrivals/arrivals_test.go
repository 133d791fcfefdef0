package arrivals

import (
	"fmt"
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func heardAt(at time.Time) func(model.NodeID) time.Time {
	return func(model.NodeID) time.Time { return at }
}

func TestExpectedIsTheGreatest(t *testing.T) {
	res := func(cpu model.Cores, memory model.Bytes) model.Resources {
		return model.Resources{CPU: cpu, Memory: memory}
	}
	for _, tt := range []struct{ requests, usual, want model.Resources }{
		{res(0, 0), res(0, 0), Least},
		{res(1, model.GiB), res(0, 0), res(1, model.GiB)},
		{res(1, model.MiB), res(.5, model.GiB), res(1, model.GiB)}, // each by itself
		{res(.01, 0), res(.02, model.MiB), Least},
	} {
		if got := Expected(tt.requests, tt.usual); got != tt.want {
			t.Errorf("of %+v and %+v: %+v, want %+v", tt.requests, tt.usual, got, tt.want)
		}
	}
}

func TestUntilWhenAPodCounts(t *testing.T) {
	use := model.Resources{CPU: 1, Memory: model.GiB}
	for _, tt := range []struct {
		name  string
		after func(*Book)
		pods  int
	}{
		{"placed", func(b *Book) {}, 1},
		{"placed twice", func(b *Book) { b.Come("p", "a", use, t0.Add(time.Hour)) }, 1},
		{"not placed after all", func(b *Book) { b.Drop("p") }, 0},
		{"does not run, whatever is heard", func(b *Book) { b.Hear(heardAt(t0.Add(time.Minute)), t0.Add(time.Minute)) }, 1},
		{"does not run for long", func(b *Book) { b.Hear(heardAt(t0), t0.Add(Patience)) }, 0},
		{"runs, and nothing was heard since", func(b *Book) { b.Run("p", t0); b.Hear(heardAt(t0.Add(Settle-1)), t0.Add(time.Minute)) }, 1},
		{"runs, and the node was never heard", func(b *Book) { b.Run("p", t0); b.Hear(heardAt(time.Time{}), t0.Add(Patience-1)) }, 1},
		{"runs, and the node is never heard", func(b *Book) { b.Run("p", t0); b.Hear(heardAt(time.Time{}), t0.Add(Patience)) }, 0},
		{"runs, and is told", func(b *Book) { b.Run("p", t0); b.Hear(heardAt(t0.Add(Settle)), t0.Add(Settle)) }, 0},
		{"runs since it was said first", func(b *Book) {
			b.Run("p", t0)
			b.Run("p", t0.Add(Settle))
			b.Hear(heardAt(t0.Add(Settle)), t0.Add(Settle))
		}, 0},
		{"a stranger runs and goes", func(b *Book) { b.Run("q", t0); b.Drop("q") }, 1},
		{"is elsewhere", func(b *Book) { b.Come("p", "b", use, t0) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := NewBook()
			b.Come("p", "a", use, t0)
			tt.after(b)
			want := Sum{Pods: tt.pods, Use: model.Resources{CPU: model.Cores(tt.pods), Memory: model.Bytes(tt.pods) * model.GiB}}
			if diff := cmp.Diff(want, b.On("a")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// naive looks at all pods for every question.
type naive []struct {
	uid  string
	node model.NodeID
	use  model.Resources
	runs time.Time
}

func TestBookAgreesWithANaiveTwin(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	b, now := NewBook(), t0
	var twin naive
	drop := func(keep func(i int) bool) {
		var left naive
		for i, p := range twin {
			if keep(i) {
				left = append(left, p)
			}
		}
		twin = left
	}
	for range 20000 {
		now = now.Add(time.Duration(r.Intn(int(time.Second))))
		uid, node := fmt.Sprint(r.Intn(60)), model.NodeID(fmt.Sprint(r.Intn(5)))
		switch r.Intn(4) {
		case 0:
			known := false
			for _, p := range twin {
				known = known || p.uid == uid && p.node == node
			}
			if !known {
				drop(func(i int) bool { return twin[i].uid != uid })
				use := model.Resources{CPU: model.Cores(r.Float64()), Memory: model.Bytes(r.Intn(1e9))}
				b.Come(uid, node, use, now)
				twin = append(twin, naive{{uid: uid, node: node, use: use}}...)
			}
		case 1:
			b.Run(uid, now)
			for i := range twin {
				if twin[i].uid == uid && twin[i].runs.IsZero() {
					twin[i].runs = now
				}
			}
		case 2:
			b.Drop(uid)
			drop(func(i int) bool { return twin[i].uid != uid })
		case 3:
			heard := func(id model.NodeID) time.Time { return now.Add(-time.Duration(id[0]) * 100 * time.Millisecond) }
			b.Hear(heard, t0)
			drop(func(i int) bool { return twin[i].runs.IsZero() || heard(twin[i].node).Sub(twin[i].runs) < Settle })
		}
		sum := Sum{}
		for _, p := range twin {
			if p.node == node {
				sum = Sum{sum.Pods + 1, sum.Use.Plus(p.use)}
			}
		}
		got := b.On(node)
		if got.Pods != sum.Pods || got.Use.Memory != sum.Use.Memory || math.Abs(float64(got.Use.CPU-sum.Use.CPU)) > 1e-9 || b.Pods() != len(twin) {
			t.Fatalf("on %s %+v of %d, the twin says %+v of %d", node, got, b.Pods(), sum, len(twin))
		}
	}
}
