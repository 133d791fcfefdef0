package contention

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// starve gives two groups on one CPU, of which the second has hardly a share of it. A process of the
// first computes there, and one of the second does so once it is let go.
func starve(t *testing.T, at layout) (heavy, light group, starved spinner) {
	t.Helper()
	heavy, light = newGroup(t, at.root, "heavy"), newGroup(t, at.root, "light")
	at.weigh(t, heavy, 100)
	light.set(t, at.weight, map[Hierarchy]string{V1CPU: "2", V2: "1"}[at.hierarchy])
	starved = light.spinner(t, lastCPU(t)) // first: the other one ends before it, or it never would
	hog := heavy.spinner(t, lastCPU(t))
	ran := hog.ran(t)
	hog.release()
	eventually(t, "the heavy one running", func() (bool, string) {
		more := hog.ran(t) - ran
		return more > 10*time.Millisecond, fmt.Sprintf("it ran %v", more)
	})
	return heavy, light, starved
}

// interval is between two readings in which a starved task has no turn, more often than not.
const interval = 200 * time.Millisecond

// A task that does not get the CPU waits nevertheless, no longer than time goes by.
func TestAWaitThatGoesOn(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	heavy, light, starved := starve(t, at)
	m := attach(t, at.hierarchy)
	starved.release()
	// Who runs on a CPU is known from its first switch on.
	until(t, m, "the light one waiting for the heavy one", func(u map[uint64]Usage) bool {
		return u[light.id].Wait > 0 && u[heavy.id].Switches > 0
	})
	var before Reading
	var asked, answered time.Time // it was read in between
	eventuallyEvery(t, interval, "two readings between which it has no turn", func() (bool, string) {
		began := time.Now()
		now := read(t, m)
		ended := time.Now()
		grew, least, most := now.Groups[light.id].since(before.Groups[light.id]), began.Sub(answered), ended.Sub(asked)
		first := asked.IsZero()
		before, asked, answered = now, began, ended
		if first || grew.Switches > 0 || grew.Run > 0 {
			return false, fmt.Sprintf("%+v", grew)
		}
		if grew.Wait < least || grew.Wait > most {
			t.Errorf("waited %v of %v to %v in which it did not have the CPU", grew.Wait, least, most)
		}
		if owed := now.Owed[Pair{light.id, heavy.id}]; owed < grew.Wait/2 || owed > most {
			t.Errorf("%v of %v are owed to the one that ran all the while", owed, grew.Wait)
		}
		return true, fmt.Sprintf("%+v", grew)
	})
}

// One that waited already when the programs were attached is found.
func TestAWaitThatBeganBefore(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	heavy, light, starved := starve(t, at)
	starved.release()
	eventuallyEvery(t, interval, "it waiting without a turn since the programs were attached", func() (bool, string) {
		if sleeps(t, starved.pid) {
			return false, "it sleeps"
		}
		m, err := Attach(at.hierarchy, "")
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		read(t, m)
		began := time.Now()
		for r := read(t, m); ; r = read(t, m) {
			u, owed := r.Groups[light.id], r.Owed[Pair{light.id, heavy.id}]
			switch {
			case u.Switches > 0:
				return false, "it had a turn"
			case owed > 0:
				return true, fmt.Sprintf("%+v", u)
			case time.Since(began) > patience/3:
				t.Fatalf("not seen to wait, %+v, though it has had no turn in %v", u, time.Since(began))
			}
		}
	})
}

// Readings and switches that meet charge nothing twice.
func TestReadingChargesOnce(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	a, b := newGroup(t, at.root, "a"), newGroup(t, at.root, "b")
	for _, g := range []group{a, b} {
		at.weigh(t, g, 100)
	}
	one, two := a.spinner(t, lastCPU(t)), b.spinner(t, lastCPU(t))
	m := attach(t, at.hierarchy)
	one.release()
	two.release()
	until(t, m, "both run", func(u map[uint64]Usage) bool { return u[a.id].Run > 0 && u[b.id].Run > 0 })
	// Whoever reads may be kept from the CPU in the midst of it: what is read first and last is of
	// some moment between the beginning and the end of that reading.
	began := time.Now()
	before, first := read(t, m), time.Now()
	reads := 0
	var now Reading
	var last time.Time
	for ; time.Since(first) < 2*time.Second || reads < 1000; reads++ {
		last = time.Now()
		now = read(t, m)
	}
	most, least := time.Since(began), last.Sub(first)
	for name, g := range map[string]group{"a": a, "b": b} {
		grew := now.Groups[g.id].since(before.Groups[g.id])
		// What runs when it is read is charged when it leaves the CPU: a time slice, at either end.
		const slice = 50 * time.Millisecond
		if sum := grew.Run + grew.Wait; sum > most+slice || sum < least-slice-least/10 {
			t.Errorf("%s: ran %v and waited %v in %v to %v of %d readings", name, grew.Run, grew.Wait, least, most, reads)
		}
	}
}

// BenchmarkRead is the time of one reading, which visits every task, with and without 500 more that
// sleep.
func BenchmarkRead(b *testing.B) {
	m, err := Attach(V2, "")
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	reading := func(b *testing.B) {
		for b.Loop() {
			if _, err := m.Read(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("as it is", reading)
	end := make(chan struct{})
	var started, ended sync.WaitGroup
	for range 500 {
		started.Add(1)
		ended.Go(func() {
			runtime.LockOSThread()
			started.Done()
			<-end
		})
	}
	started.Wait()
	b.Run("500 tasks more", reading)
	close(end)
	ended.Wait()
}
