package spread

import (
	"slices"
	"time"
)

// entry is what is known of a slot's newest record.
type entry struct {
	version  uint64
	heard    int64 // Unix time in nanoseconds
	forwards uint8
}

// forgotten is after which time a slot is forgotten whose record is gone. Until then it is
// not taken from others again that forget later.
const forgotten = 2 * time.Hour

// index is the slots whose records are known. order is all of them, of which the first are sorted and
// those that have come since follow.
type index struct {
	entries map[Slot]entry
	order   []Slot
	sorted  int
	pruned  time.Time
}

// set notes a slot's newest version.
func (x *index) set(at Slot, version uint64, now time.Time) entry {
	e, known := x.entries[at]
	if known && e.version == version {
		return e
	}
	if !known {
		x.order = append(x.order, at)
	}
	e = entry{version: version, heard: now.UnixNano()}
	x.entries[at] = e
	return e
}

// slots is all slots in order.
func (x *index) slots() []Slot {
	late := slices.Sorted(slices.Values(x.order[x.sorted:]))
	for i, to := x.sorted, len(x.order); len(late) > 0; { // merged from the end
		to--
		if last := len(late) - 1; i == 0 || x.order[i-1] < late[last] {
			x.order[to], late = late[last], late[:last]
		} else {
			i--
			x.order[to] = x.order[i]
		}
	}
	x.sorted = len(x.order)
	return x.order
}

// prune forgets slots of which no record is left.
func (x *index) prune(now time.Time, r Records) {
	if now.Sub(x.pruned) < forgotten/8 {
		return
	}
	x.pruned = now
	x.order = slices.DeleteFunc(x.slots(), func(at Slot) bool {
		gone := now.UnixNano()-x.entries[at].heard > int64(forgotten) && r.Get(at) == nil
		if gone {
			delete(x.entries, at)
		}
		return gone
	})
	x.sorted = len(x.order)
}
