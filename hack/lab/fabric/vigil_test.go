package fabric

import (
	"testing"
	"time"
)

// play waits for frames that are due every interval until end, each look taking a microsecond and
// each sleep being late, and gives how late the frames were at most and how long it was awake.
func play(interval, late, end time.Duration) (worst, awake time.Duration) {
	var v vigil
	for now, next := time.Duration(0), interval; now < end; {
		if now >= next {
			worst = max(worst, now-next)
			next += interval
			continue
		}
		if rest := v.rest(now, next); rest > 0 {
			now += rest + late
		} else {
			now, awake = now+time.Microsecond, awake+time.Microsecond
		}
	}
	return worst, awake
}

func TestVigil(t *testing.T) {
	const late, end = 90 * time.Microsecond, 10 * time.Second
	worst, awake := play(time.Millisecond, late, end)
	if worst > 2*time.Microsecond {
		t.Errorf("a frame a millisecond: one was %v late", worst)
	}
	if most := end / 1000 * early / time.Microsecond; awake > most {
		t.Errorf("a frame a millisecond: awake for %v, want %v at most", awake, most)
	}
	// No more than half of its time, whatever there is to wait for; and then as late as its sleep.
	worst, awake = play(50*time.Microsecond, late, end)
	if awake > end/2+end/100 || awake < end/4 {
		t.Errorf("a frame every 50 µs: awake for %v of %v", awake, end)
	}
	if worst > late+100*time.Microsecond {
		t.Errorf("a frame every 50 µs: one was %v late", worst)
	}
}

func TestVigilWithoutFrames(t *testing.T) {
	var v vigil
	if got := v.rest(time.Second, time.Second+time.Hour); got != time.Hour-early {
		t.Errorf("sleeps for %v", got)
	}
	if got := v.rest(time.Second, 0); got != 0 {
		t.Errorf("sleeps for %v with a frame that is overdue", got)
	}
}
