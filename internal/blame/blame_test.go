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
