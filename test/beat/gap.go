package beat

import "time"

// Change is where a process passed from one address to another.
type Change struct {
	// Last is the newest beat from the old address that the process at the new one has in its
	// memory, First the first one from there.
	Last, First Heard
	// Lost is how many beats were sent from the old address that the process at the new one
	// knows nothing of: it was copied before.
	Lost int
}

// Gap is for how long the process that lives on was silent: what it did and then forgot does
// not count.
func (c Change) Gap() time.Duration { return c.First.At.Sub(c.Last.At) }

// Passed finds the first change of address; ok is false if there was none, or if the process
// there has no beat from the old address in its memory.
func Passed(all []Heard) (c Change, ok bool) {
	for _, h := range all {
		if h.From.Addr() != all[0].From.Addr() {
			c.First, ok = h, true
			break
		}
	}
	if !ok {
		return c, false
	}
	for _, h := range all {
		switch {
		case h.From.Addr() != all[0].From.Addr():
		case h.Seq < c.First.Seq:
			c.Last = h
		default:
			c.Lost++
		}
	}
	return c, !c.Last.At.IsZero()
}

// Silence is the longest time between two beats from the first one's address, of which the later
// came after since, and that later one.
func Silence(all []Heard, since time.Time) (longest time.Duration, end Heard) {
	var last time.Time
	for _, h := range all {
		if h.From.Addr() != all[0].From.Addr() {
			continue
		}
		if gap := h.At.Sub(last); !last.IsZero() && h.At.After(since) && gap > longest {
			longest, end = gap, h
		}
		last = h.At
	}
	return longest, end
}

// Slow is for how long in all a process that beats once in every fell behind, in the time so long
// after its first beat at a new place: there its memory may still be on its way.
func Slow(all []Heard, first Heard, long, every time.Duration) time.Duration {
	beats := 0
	for _, h := range all {
		if after := h.At.Sub(first.At); h.Seq > first.Seq && h.Start == first.Start && after > 0 && after <= long {
			beats++
		}
	}
	return max(0, long-time.Duration(beats)*every)
}
