// Package witness stands outside the pods and hears every tick that they send. From the
// order in which ticks arrive it proves what a pod cannot prove of itself: that no tick
// came twice, that none is missing, and that no two copies ran at once.
package witness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tick is one datagram of the ticker.
type Tick struct {
	// Instance is random at the process's start.
	Instance string `json:"instance"`
	// Seq counts from 1.
	Seq uint64 `json:"seq"`
	// Start is the checksum of the heap at start, Now the newest one.
	Start uint64 `json:"start"`
	Now   uint64 `json:"now"`
}

// Talk is what a ticker says of its talk with another one.
type Talk struct {
	// Last is the newest number that it heard.
	Last uint64 `json:"last"`
	// Odd is the first number that it must not have heard, in words; empty: none.
	Odd string `json:"odd"`
}

// Heard is a tick with where and when it came from.
type Heard struct {
	Tick
	From string
	At   time.Time
}

// Witness records ticks by instance. Safe for concurrent use.
type Witness struct {
	mu    sync.Mutex
	heard map[string][]Heard
	order []string      // of the instances, as each was first heard
	news  chan struct{} // closed and replaced at every tick
}

// New makes a witness that has heard nothing.
func New() *Witness {
	return &Witness{heard: map[string][]Heard{}, news: make(chan struct{})}
}

// Run hears ticks on conn until it is closed.
func (w *Witness) Run(conn net.PacketConn) error {
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("witness: read: %w", err)
		}
		var t Tick
		if err := json.Unmarshal(buf[:n], &t); err != nil {
			continue // not a tick
		}
		host, _, err := net.SplitHostPort(from.String())
		if err != nil {
			return fmt.Errorf("witness: sender %q: %w", from, err)
		}
		w.Record(Heard{Tick: t, From: host, At: time.Now()})
	}
}

// Record adds one tick.
func (w *Witness) Record(h Heard) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.heard[h.Instance]) == 0 {
		w.order = append(w.order, h.Instance)
	}
	w.heard[h.Instance] = append(w.heard[h.Instance], h)
	close(w.news)
	w.news = make(chan struct{})
}

// Await waits until tick seq of an instance, or a later one, was heard.
func (w *Witness) Await(ctx context.Context, instance string, seq uint64) error {
	for {
		w.mu.Lock()
		news := w.news
		w.mu.Unlock()
		h, ok := w.Last(instance)
		if ok && h.Seq >= seq {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("instance %s: tick %d was never heard, the last was %d", instance, seq, h.Seq)
		}
	}
}

// Last is the newest tick of an instance; ok is false if it was never heard.
func (w *Witness) Last(instance string) (h Heard, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.heard[instance]
	if len(all) == 0 {
		return Heard{}, false
	}
	return all[len(all)-1], true
}

// Since lists the instances that were first heard after the one given, in that order.
func (w *Witness) Since(instance string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.order[slices.Index(w.order, instance)+1:])
}

// First is the first tick that was heard of an instance; ok is false if it was never heard.
func (w *Witness) First(instance string) (h Heard, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if all := w.heard[instance]; len(all) > 0 {
		return all[0], true
	}
	return Heard{}, false
}

// Named gives the instances whose names begin with prefix, sorted.
func (w *Witness) Named(prefix string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for n := range w.heard {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// Account is what was heard of one instance.
type Account struct {
	Instance string
	Ticks    int
	// Froms are the senders' addresses, in the order in which each was first heard.
	Froms []string
	// Doubled ticks came more than once, Missing ones never, between the first and the last.
	Doubled, Missing []uint64
	// Overlap: an address was heard again after another had taken over.
	Overlap bool
	// Turns is how often a tick came from another address than the one before.
	Turns int
	// Intact: the heap's checksum was never other than at start.
	Intact bool
	// Gap is the longest time between two ticks, GapAfter the tick before it.
	Gap      time.Duration
	GapAfter uint64
}

// Account adds up what was heard of an instance.
func (w *Witness) Account(instance string) Account {
	w.mu.Lock()
	all := append([]Heard(nil), w.heard[instance]...)
	w.mu.Unlock()
	a := Account{Instance: instance, Ticks: len(all), Intact: true}
	seen := make(map[uint64]int, len(all))
	var first, last uint64
	before := ""
	for i, h := range all {
		seen[h.Seq]++
		if seen[h.Seq] == 2 {
			a.Doubled = append(a.Doubled, h.Seq)
		}
		if i == 0 || h.Seq < first {
			first = h.Seq
		}
		last = max(last, h.Seq)
		a.Intact = a.Intact && h.Now == h.Start && h.Start == all[0].Start
		a.sender(h.From)
		if i > 0 && h.From != before {
			a.Turns++
		}
		before = h.From
		if i > 0 {
			if gap := h.At.Sub(all[i-1].At); gap > a.Gap {
				a.Gap, a.GapAfter = gap, all[i-1].Seq
			}
		}
	}
	for s := first; len(all) > 0 && s <= last; s++ {
		if seen[s] == 0 {
			a.Missing = append(a.Missing, s)
		}
	}
	return a
}

func (a *Account) sender(from string) {
	n := len(a.Froms)
	if n > 0 && a.Froms[n-1] == from {
		return
	}
	for _, f := range a.Froms {
		if f == from {
			a.Overlap = true
			return
		}
	}
	a.Froms = append(a.Froms, from)
}

// FaultAfter is Fault for an instance that was moved so many times. Its addresses may come
// again, as a node's do after some hundred pods; two copies at once show in more turns than
// there were moves.
func (a Account) FaultAfter(moves int) string {
	a.Overlap = false
	fault := a.Fault()
	if fault == "" && a.Turns != moves {
		fault = fmt.Sprintf("instance %s: its ticks changed their sender %d times in %d moves", a.Instance, a.Turns, moves)
	}
	return fault
}

// Fault says in one line what proves a lost, doubled or damaged process; empty if nothing.
func (a Account) Fault() string {
	switch {
	case a.Ticks == 0:
		return fmt.Sprintf("instance %s was never heard", a.Instance)
	case len(a.Doubled) > 0:
		return fmt.Sprintf("instance %s: ticks %v came twice", a.Instance, a.Doubled)
	case a.Overlap:
		return fmt.Sprintf("instance %s: two copies at once, senders %v", a.Instance, a.Froms)
	case len(a.Missing) > 0:
		return fmt.Sprintf("instance %s: ticks %v are missing", a.Instance, a.Missing)
	case !a.Intact:
		return fmt.Sprintf("instance %s: its heap's checksum has changed", a.Instance)
	}
	return ""
}
