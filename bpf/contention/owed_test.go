package contention

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ledger is what one group has waited, and for whom, since the ledger was opened. The scheduler's
// own count of what others ran (schedstat) is what it is held against: both know nothing of
// wall time, so that a machine with much else to do is no worse a judge.
type ledger struct {
	t      *testing.T
	meter  *Meter
	group  group
	before Usage
	// waited, and the part of it owed to each group, to all of them, and shared out.
	waited           Usage
	owed             map[uint64]time.Duration
	all, forgotten   time.Duration
	forgottenAtFirst time.Duration
}

func open(t *testing.T, m *Meter, g group) *ledger {
	t.Helper()
	l := &ledger{t: t, meter: m, group: g, before: read(t, m).Groups[g.id], owed: map[uint64]time.Duration{}}
	// A reading takes what is owed before what was waited: what is charged between the two would
	// be owed from now on, and waited before.
	read(t, m)
	l.forgottenAtFirst = l.allForgotten()
	return l
}

// update reads the meter once more.
func (l *ledger) update() {
	l.t.Helper()
	r := read(l.t, l.meter)
	l.waited = r.Groups[l.group.id].since(l.before)
	for p, d := range r.Owed {
		if p.Waits == l.group.id {
			l.owed[p.Runs] += d
			l.all += d
		}
	}
	l.forgotten = l.allForgotten() - l.forgottenAtFirst
}

func (l *ledger) allForgotten() (sum time.Duration) {
	for p, ns := range l.meter.owed {
		if p.Waits == l.group.id && p.Runs >= forgotten {
			sum += time.Duration(ns)
		}
	}
	return sum
}

// owes tells whether a group owes a time, give or take a tenth and what was shared out.
func (l *ledger) owes(g group, want time.Duration) bool {
	return (l.owed[g.id] - want).Abs() <= max(l.owed[g.id], want)/10+l.forgotten
}

func (l *ledger) String() string {
	return fmt.Sprintf("waited %+v, owed %v, of which %v were shared out", l.waited, l.all, l.forgotten)
}

// about tells whether two times differ by no more than a tenth of the greater one.
func about(a, b time.Duration) bool { return (a - b).Abs() <= max(a, b)/10 }

// eventually tries until what is wanted holds, and says what was last seen if it never does.
func eventually(t *testing.T, what string, holds func() (bool, string)) {
	t.Helper()
	eventuallyEvery(t, 50*time.Millisecond, what, holds)
}

func eventuallyEvery(t *testing.T, interval time.Duration, what string, holds func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var seen string
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		var ok bool
		ok, seen = holds()
		if ok {
			t.Log(seen)
			return
		}
	}
	t.Fatalf("never seen: %s; last: %s", what, seen)
}

// Whatever one of two computes on the CPU where a third wants to compute too, the third is
// owed; of two threads of that third group, each owes the other.
func TestWaitIsOwedToThoseWhoRun(t *testing.T) {
	for name, threads := range map[string]int{"one thread": 1, "two threads": 2} {
		t.Run(name, func(t *testing.T) {
			alone(t)
			at := cpuLayout(t)
			victim, little, much := newGroup(t, at.root, "victim"), newGroup(t, at.root, "little"), newGroup(t, at.root, "much")
			at.weigh(t, victim, 16)
			at.weigh(t, little, 16)
			at.weigh(t, much, 64)
			cpu := lastCPU(t)
			m := attach(t, at.hierarchy)
			var own []spinner
			for range threads {
				own = append(own, victim.spinner(t, cpu))
			}
			a, b := little.spinner(t, cpu), much.spinner(t, cpu)
			for _, s := range append(own, a, b) {
				s.release()
			}
			ownRan := func() (sum time.Duration) {
				for _, s := range own {
					sum += s.ran(t)
				}
				return sum
			}
			until(t, m, "all of them running", func(u map[uint64]Usage) bool {
				return u[victim.id].Wait > 100*time.Millisecond && u[little.id].Run > 0 && u[much.id].Run > 0
			})

			l := open(t, m, victim)
			ranA, ranB, ranOwn := a.ran(t), b.ran(t), ownRan()
			eventually(t, "what is owed being what they ran, times the threads that waited", func() (bool, string) {
				l.update()
				// Of the victim's threads one runs, and all others wait.
				wantA, wantB := time.Duration(threads)*(a.ran(t)-ranA), time.Duration(threads)*(b.ran(t)-ranB)
				wantOwn := time.Duration(threads-1) * (ownRan() - ranOwn)
				if l.all+l.waited.Throttled > l.waited.Wait {
					t.Fatalf("more is owed than was waited: %v", l)
				}
				return l.waited.Wait > 2*time.Second && l.owes(little, wantA) && l.owes(much, wantB) && l.owes(victim, wantOwn) &&
						l.owed[much.id]+l.forgotten > 2*l.owed[little.id] && about(l.all, l.waited.Wait) && l.waited.Throttled == 0,
					fmt.Sprintf("%v: by little %v, want %v; by much %v, want %v; by itself %v, want %v",
						l, l.owed[little.id], wantA, l.owed[much.id], wantB, l.owed[victim.id], wantOwn)
			})
			if lost := read(t, m).Lost; lost != 0 {
				t.Errorf("lost %d charges", lost)
			}
		})
	}
}

// A group whose quota is a fifth of a CPU is off the CPU most of the time, and others run:
// they owe it none of that.
func TestNobodyOwesWhatTheOwnQuotaTakes(t *testing.T) {
	for name, threads := range map[string]int{"one thread": 1, "two threads": 2} {
		t.Run(name, func(t *testing.T) {
			alone(t)
			at := cpuLayout(t)
			limited, other := newGroup(t, at.root, "limited"), newGroup(t, at.root, "other")
			at.weigh(t, limited, 100)
			at.weigh(t, other, 1)
			if at.hierarchy == V1CPU {
				limited.set(t, "cpu.cfs_quota_us", "20000")
			} else {
				limited.set(t, "cpu.max", "20000 100000")
			}
			cpu := lastCPU(t)
			m := attach(t, at.hierarchy)
			for range threads {
				limited.spinner(t, cpu).release()
			}
			other.spinner(t, cpu).release()
			until(t, m, "some throttling", func(u map[uint64]Usage) bool { return u[limited.id].Throttled > 100*time.Millisecond })

			l, throttled := open(t, m, limited), limited.throttled(t)
			eventually(t, "the throttled time that the scheduler tells, of every thread, and little owed", func() (bool, string) {
				l.update()
				// At least one thread is held at any time that counts as throttled, and at most all are.
				least := limited.throttled(t) - throttled
				most := time.Duration(threads) * least
				return l.waited.Wait > 3*time.Second && l.waited.Throttled > least*9/10 && l.waited.Throttled < most*11/10 && l.waited.Throttled > l.waited.Wait/2 &&
						l.all+l.waited.Throttled <= l.waited.Wait && l.owed[other.id] < l.waited.Wait/10,
					fmt.Sprintf("%v, want throttled %v to %v; by itself %v, by the other %v", l, least, most, l.owed[limited.id], l.owed[other.id])
			})
		})
	}
}

// throttled is what the scheduler says.
func (g group) throttled(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(stat)) {
		var n time.Duration
		if _, err := fmt.Sscanf(line, "throttled_time %d", &n); err == nil {
			return n
		}
		if _, err := fmt.Sscanf(line, "throttled_usec %d", &n); err == nil {
			return n * time.Microsecond
		}
	}
	t.Fatalf("%s tells of no throttling: %q", g.dir, stat)
	return 0
}

// A process waits on one CPU and gets its turn on another: those on the first owe it.
func TestWaitIsOwedWhereItWasWaited(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("there is only one CPU here: no task can change it")
	}
	alone(t)
	at := cpuLayout(t)
	victim, there := newGroup(t, at.root, "victim"), newGroup(t, at.root, "there")
	at.weigh(t, victim, 1)
	at.weigh(t, there, 100)
	cpu := lastCPU(t)
	m := attach(t, at.hierarchy)
	v, a := victim.spinner(t, cpu-1), there.spinner(t, cpu)
	v.release()
	a.release()
	until(t, m, "both running", func(u map[uint64]Usage) bool { return u[victim.id].Run > 0 && u[there.id].Run > 0 })

	l := open(t, m, victim)
	// What the other one ran while the victim was surely in its queue, and while it may have been.
	var least, most time.Duration
	for least < 2*time.Second {
		before := a.ran(t)
		v.pin(t, cpu)
		came := a.ran(t)
		eventually(t, "the other one running", func() (bool, string) {
			ran := a.ran(t) - came
			return ran > 50*time.Millisecond, fmt.Sprintf("it ran %v", ran)
		})
		least += a.ran(t) - came
		v.pin(t, cpu-1)
		most += a.ran(t) - before
		began := v.ran(t)
		eventually(t, "the victim running elsewhere", func() (bool, string) {
			ran := v.ran(t) - began
			return ran > 0, fmt.Sprintf("it ran %v", ran)
		})
	}
	l.update()
	t.Logf("%v, by the other %v, which ran %v to %v meanwhile", l, l.owed[there.id], least, most)
	// On the CPU where the victim gets its turn too much may go on for that to be remembered, but
	// none of that is the other's.
	if owed := l.owed[there.id]; owed+l.forgotten < least*9/10 || owed > most*11/10+l.forgotten || owed < least/2 {
		t.Errorf("the other owes %v, want what it ran while the victim was in its queue, %v to %v", owed, least, most)
	}
}

// Two processes that hand a token to and fro change the CPU more often than is remembered: what
// is forgotten is shared out between them.
func TestForgottenIsSharedOut(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	victim, ping, pong := newGroup(t, at.root, "victim"), newGroup(t, at.root, "ping"), newGroup(t, at.root, "pong")
	at.weigh(t, victim, 1)
	at.weigh(t, ping, 100)
	at.weigh(t, pong, 100)
	there, back := pipe(t), pipe(t)
	const play = "while read -r token; do echo $token; done <&3 >&4"
	cpu := lastCPU(t)
	m := attach(t, at.hierarchy)
	v := victim.spinner(t, cpu)
	a, b := ping.shell(t, cpu, "echo token >&4; "+play, back[0], there[1]), pong.shell(t, cpu, play, there[0], back[1])
	a.release()
	b.release()
	v.release()
	l := open(t, m, victim)
	ranA, ranB := a.ran(t), b.ran(t)
	// As seldom as the agent reads: what is shared out is so by what ran since the reading before,
	// and the victim's one turn in 200 comes more seldom than the other tests read.
	eventuallyEvery(t, time.Second, "some forgotten, and all of it owed", func() (bool, string) {
		l.update()
		wantA, wantB := a.ran(t)-ranA, b.ran(t)-ranB
		return l.waited.Wait > time.Second && l.forgotten > l.waited.Wait/10 && about(l.all, l.waited.Wait) &&
				about(l.owed[ping.id], wantA) && about(l.owed[pong.id], wantB),
			fmt.Sprintf("%v: by ping %v, want %v; by pong %v, want %v", l, l.owed[ping.id], wantA, l.owed[pong.id], wantB)
	})
}

func pipe(t *testing.T) [2]*os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return [2]*os.File{r, w}
}

// What finds no room is counted.
func TestFullTableIsTold(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	m := attach(t, at.hierarchy)
	perCPU := make([]uint64, m.objects.Cpus.MaxEntries())
	const nobody = 1 << 40
	for i := range m.objects.Owed.MaxEntries() {
		// The kernel notes down pairs of its own meanwhile: the last of these may not fit.
		if err := m.objects.Owed.Put(pair(nobody, nobody+uint64(i)), perCPU); err != nil && !errors.Is(err, unix.E2BIG) {
			t.Fatal(err)
		}
	}
	cpu := lastCPU(t)
	newGroup(t, at.root, "late").spinner(t, cpu).release()
	newGroup(t, at.root, "later").spinner(t, cpu).release()
	eventually(t, "a wait that finds no room", func() (bool, string) {
		lost, err := m.lost()
		if err != nil {
			t.Fatal(err)
		}
		return lost > 0, fmt.Sprintf("%d lost", lost)
	})
}

// The table of pairs is finite: those that grow no more make room, and what they owed is told
// once all the same.
func TestPairsMakeRoom(t *testing.T) {
	m := attach(t, V2)
	half := int(m.objects.Owed.MaxEntries()) / 2
	perCPU := make([]uint64, m.objects.Cpus.MaxEntries())
	perCPU[len(perCPU)-1] = 7
	const nobody = 1 << 40
	for i := range half {
		if err := m.objects.Owed.Put(pair(nobody, nobody+uint64(i)), perCPU); err != nil {
			t.Fatal(err)
		}
	}
	if owed := read(t, m).Owed; owed[Pair{nobody, nobody}] != 7 || owed[Pair{nobody, nobody + uint64(half) - 1}] != 7 {
		t.Errorf("at first %v of %d pairs", owed, half)
	}
	for again := range 2 {
		if owed := read(t, m).Owed; owed[Pair{nobody, nobody}] != 0 {
			t.Errorf("told a second time, after %d: %v", again, owed)
		}
	}
	left, err := m.readOwed()
	if err != nil {
		t.Fatal(err)
	}
	for p := range left {
		if p.Waits == nobody {
			t.Fatalf("%d pairs left of %d, %v among them", len(left), half, p)
		}
	}
}

func pair(waits, runs uint64) contentionPair { return contentionPair{Waits: waits, Runs: runs} }

func TestSettle(t *testing.T) {
	const s = uint64(time.Second)
	type pairs = map[contentionPair]uint64
	before := pairs{pair(10, 11): 1 * s, pair(10, 12): 5 * s, pair(10, forgotten+1): 1 * s}
	now := pairs{pair(10, 11): 3 * s, pair(10, 12): 5 * s, pair(10, 13): 1 * s, pair(10, forgotten+1): 5 * s, pair(14, forgotten): 9 * s}
	ran := runs(map[uint64][]uint64{11: {0, 7 * s}, 12: {0, 2 * s}, 15: {0, 1 * s}}, map[uint64][]uint64{11: {0, 4 * s}, 15: {0, 1 * s}})
	// On CPU 1, 11 has run 3 s and 12 2 s: 4 s forgotten are 2.4 s and 1.6 s. On CPU 0
	// nobody has run.
	want := map[Pair]time.Duration{{10, 11}: 2*time.Second + 2400*time.Millisecond, {10, 12}: 1600 * time.Millisecond, {10, 13}: time.Second}
	if got := settle(grown(now, before), ran); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := grown(pairs{pair(10, 11): 2}, pairs{pair(10, 11): 3}); got[pair(10, 11)] != 2 {
		t.Errorf("a pair that began anew has grown by %v, want 2", got)
	}
}
