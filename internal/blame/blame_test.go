package blame

import (
	"reflect"
	"testing"
	"time"
)

var (
	t0    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	web   = Name{"shop", "web-0", "web"}
	batch = Name{"shop", "batch-0", "batch"}
	noisy = Name{"lab", "noisy-0", "noisy"}
)

func TestShares(t *testing.T) {
	w := NewWindow(5 * time.Second)
	// At 6 s the window begins at 1 s: the first does not count.
	w.Feed(t0, time.Second, Waits{Wait: 90 * time.Second, Neighbours: map[Name]time.Duration{noisy: 90 * time.Second}})
	w.Feed(t0.Add(4*time.Second), 2*time.Second, Waits{Run: time.Second, Wait: 4 * time.Second, Own: time.Second, Quota: 500 * time.Millisecond,
		Neighbours: map[Name]time.Duration{batch: time.Second, noisy: time.Second}})
	w.Feed(t0.Add(6*time.Second), 2*time.Second, Waits{Run: time.Second, Wait: 2 * time.Second, NodeQuota: 200 * time.Millisecond, Node: 300 * time.Millisecond,
		Neighbours: map[Name]time.Duration{noisy: time.Second}})
	sum, wall := w.Sum()
	// 6 s waited in 4 s, of which 5 s are told of: 1 s for itself, .5 and .2 s by quotas, .3 s for the
	// node, 1 s for batch and 2 s for noisy.
	want := Shares{Name: web, Run: .5, Wait: 1.5, Own: .25, Quota: .125, NodeQuota: .05, Node: .075, Idle: .25,
		Neighbours: []Neighbour{{noisy, .5}, {batch, .25}}}
	if got := sum.Per(wall, web); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A tenth of the CPU's time was stolen and two tenths went to soft interrupts: as much of what
// whoever ran owes. What quotas took is theirs alone.
func TestInterrupt(t *testing.T) {
	w := Waits{Wait: 10 * time.Second, Own: time.Second, Quota: 2 * time.Second, Node: 2 * time.Second,
		Neighbours: map[Name]time.Duration{batch: 4 * time.Second, noisy: time.Second}}
	w.Interrupt(.1, .2)
	want := Waits{Wait: 10 * time.Second, Own: 700 * time.Millisecond, Quota: 2 * time.Second, Node: 1400 * time.Millisecond,
		Neighbours: map[Name]time.Duration{batch: 2800 * time.Millisecond, noisy: 700 * time.Millisecond},
		Steal:      800 * time.Millisecond, SoftIRQ: 1600 * time.Millisecond}
	if !reflect.DeepEqual(w, want) || w.Idle() != 0 {
		t.Errorf("got  %+v\nwant %+v", w, want)
	}
	w.Interrupt(.8, .8) // by the error of two clocks: no more than all
	if w.Own != 0 || w.Neighbour() != 0 || (w.Steal+w.SoftIRQ).Round(time.Microsecond) != 8*time.Second {
		t.Errorf("%+v, want all 8 s charged to neither", w)
	}
}

// What is owed is read a moment before what is waited, and may be more by that.
func TestIdleIsNeverNegative(t *testing.T) {
	if got := (Waits{Wait: time.Second, Own: 2 * time.Second}).Idle(); got != 0 {
		t.Errorf("idle for %v", got)
	}
}

// Feeding on leaves what was summed up before as it was.
func TestSumIsACopy(t *testing.T) {
	w := NewWindow(time.Second)
	w.Feed(t0, time.Second, Waits{Neighbours: map[Name]time.Duration{noisy: 1}})
	first, _ := w.Sum()
	first.Owe(noisy, 5)
	if second, _ := w.Sum(); second.Neighbours[noisy] != 1 {
		t.Errorf("%v owed, want 1", second.Neighbours[noisy])
	}
}
