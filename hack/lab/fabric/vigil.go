package fabric

import "time"

const (
	// early is how long before a frame is due the loop wakes up, to wait for it awake: a timer alone
	// is up to that late on a virtual machine whose processor has gone to sleep.
	early = 100 * time.Microsecond
	// window is that of which half at most is spent so.
	window = 100 * time.Millisecond
)

// vigil says when to wait asleep, and when awake.
type vigil struct {
	began time.Duration // of the window
	awake time.Duration // of it, waiting so
	asked time.Duration // when rest was called last
	polls bool          // it said not to sleep
}

// rest is how long to sleep at most, at now, for a frame that is due at next; 0: not at all, and ask
// again.
func (v *vigil) rest(now, next time.Duration) time.Duration {
	if v.polls {
		v.awake += now - v.asked
	}
	v.asked, v.polls = now, false
	if now-v.began >= window {
		v.began, v.awake = now, 0
	}
	left := max(0, next-now)
	switch {
	case v.awake >= window/2:
		return left
	case left > early:
		return left - early
	}
	v.polls = true
	return 0
}
