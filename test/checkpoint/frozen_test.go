package checkpoint

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkFrozen times for how long a container that writes to little of its memory stands still for
// a dump of all, and for one after rounds: in turn, the least of all passes, to which what else runs
// only adds. pause is the longest time in which it did not count during a round.
func BenchmarkFrozen(b *testing.B) {
	tracks(b)
	for _, mib := range []int{256, 1024} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			b.Setenv("HEAP_MIB", fmt.Sprint(mib))
			b.Setenv("COUNTER", "LEDGER=10")
			took := times{}
			ok := false
			t := testing.InternalTest{Name: b.Name(), F: func(t *testing.T) { frozen(t, b, took); ok = true }}
			testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{t})
			if !ok {
				b.Fatal("a dump failed")
			}
			for name, all := range took {
				b.ReportMetric(float64(slices.Min(all).Microseconds())/1000, name+"-ms")
			}
			b.ReportMetric(float64(slices.Min(took["rounds"]))/float64(slices.Min(took["full"])), "rounds/full")
		})
	}
}

func frozen(t *testing.T, b *testing.B, took times) {
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	c.counts(5)
	epoch := int64(0)
	dump := func(name string, rounds int) {
		epoch++
		m := move(c, nil)
		m.Epoch = epoch
		for i := range rounds {
			before := c.counts(1)
			preDump(t, a, c, m)
			if i == 0 {
				took.add("pause", c.silence(before, 10))
			}
		}
		d, err := a.dumps.Dump(within(t), m)
		if err != nil {
			t.Fatal(err)
		}
		took.add(name, time.Since(d.FrozenAt))
		if err := a.dumps.Release(within(t), m); err != nil {
			t.Fatal(err)
		}
		c.counts(5)
	}
	dump("warm", 0) // the first dump reads memory and programs for the first time
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			dump("full", 0)
			dump("rounds", 2)
		} else {
			dump("rounds", 2)
			dump("full", 0)
		}
	}
}

// silence is the longest time between counts, from last on until so many have come after what was
// written already.
func (c *container) silence(last count, more int) (longest time.Duration) {
	c.t.Helper()
	for more > 0 || len(c.lines) > 0 {
		if len(c.lines) == 0 {
			more--
		}
		now := c.next()
		if !last.at.IsZero() {
			longest = max(longest, now.at.Sub(last.at))
		}
		last = now
	}
	return longest
}
