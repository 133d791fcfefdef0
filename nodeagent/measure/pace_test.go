package measure

import (
	"testing"
	"time"
)

// Two that share a pace are soon due at the same times, which stay uneven.
func TestPace(t *testing.T) {
	const pause = 200 * time.Millisecond
	var p Pace
	begin := time.Now()
	due := [2]time.Duration{0, 130 * time.Millisecond}
	alone, waits := 0, map[time.Duration]int{}
	for range 1000 {
		first := 0
		if due[1] < due[0] {
			first = 1
		}
		if due[0] != due[1] {
			alone++
		}
		wait := p.wait(begin.Add(due[first]), pause)
		if wait < pause/2 || wait >= pause/2+pause {
			t.Fatalf("a wait of %v, with a pause of %v", wait, pause)
		}
		waits[wait]++
		due[first] += wait
	}
	if alone > 520 { // one of two, since they take turns, and a few until they have met
		t.Errorf("%d of 1000 times they were not due together", alone)
	}
	if len(waits) < 100 {
		t.Errorf("%d waits are different, of about 500", len(waits))
	}
}
