package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/test/beat"
)

// figures are what is measured of one move.
type figures struct {
	// gap is the time between two beats of the process, or of it and of its successor; lost is how
	// many beats of it nobody remembers.
	gap  time.Duration
	lost int
	// first is the beat at the end of the gap, slow for how long in all the process fell behind in
	// the afterwards that follow.
	first beat.Heard
	slow  time.Duration
	// frozen is the time for which the source stood still for the copy; 0 where that is the gap.
	frozen time.Duration
	// total is from the order until nothing is left to do.
	total time.Duration
	sent  int64 // bytes
	// cpu is what both nodes used, all their programs together, beyond what they used before.
	cpu time.Duration
	// steps are those of the move's timeline, each with the time since the one before. The clocks are those of
	// several nodes, in the lab one.
	steps []step
}

type step struct {
	name string
	took time.Duration
}

func (f figures) String() string {
	s := fmt.Sprintf("gap %.0f ms", millis(f.gap))
	if f.frozen > 0 {
		s += fmt.Sprintf(", frozen %.0f ms", millis(f.frozen))
	}
	s += fmt.Sprintf(", total %.1f s, %.1f MiB sent, %.2f s of CPU", f.total.Seconds(), mebibytes(f.sent), f.cpu.Seconds())
	if f.slow > 0 {
		s += fmt.Sprintf(", behind by %.0f ms after it", millis(f.slow))
	}
	if f.lost > 0 {
		s += fmt.Sprintf(", %d beats lost", f.lost)
	}
	return s
}

func millis(d time.Duration) float64  { return float64(d) / float64(time.Millisecond) }
func mebibytes(bytes int64) float64   { return float64(bytes) / (1 << 20) }
func seconds(d time.Duration) float64 { return d.Seconds() }

const (
	// every is the time between beats.
	every = time.Millisecond
	// restingBeats is how long a process is let be before it is moved, twice.
	restingBeats = 1000
	// afterwards is how long a process is looked at after its gap.
	afterwards = 2 * time.Second
)

// timed moves a process and measures how long it takes and what it costs; move gives the rest.
func (l *labor) timed(ctx context.Context, process uint64, w workload, move func() (figures, error)) (figures, error) {
	if err := l.ear.More(ctx, process, restingBeats); err != nil { // what started it comes to rest
		return figures{}, err
	}
	before, began, err := l.usedNow()
	if err != nil {
		return figures{}, err
	}
	if err := l.ear.More(ctx, process, restingBeats); err != nil {
		return figures{}, err
	}
	after, ended, err := l.usedNow()
	if err != nil {
		return figures{}, err
	}
	rate, pace := float64(after-before)/float64(ended.Sub(began)), ended.Sub(began)/restingBeats
	// Twice in images, once restored, and then some.
	if err := warm(int64(w.mib)*3<<20 + 256<<20); err != nil {
		return figures{}, err
	}
	if before, began, err = l.usedNow(); err != nil {
		return figures{}, err
	}
	f, err := move()
	if err != nil {
		return f, err
	}
	if after, ended, err = l.usedNow(); err != nil {
		return f, err
	}
	f.total = ended.Sub(began)
	f.cpu = after - before - time.Duration(rate*float64(f.total-f.gap))
	if _, err := l.ear.Await(ctx, f.first.Name, "a beat some time after the first", func(h beat.Heard) bool {
		return h.Start == f.first.Start && h.At.Sub(f.first.At) > afterwards
	}); err != nil {
		return f, err
	}
	f.slow = beat.Slow(l.ear.Of(f.first.Name), f.first, afterwards, pace)
	return f, nil
}

func (l *labor) usedNow() (time.Duration, time.Time, error) {
	d, err := l.used()
	return d, time.Now(), err
}

// warm touches so much memory and gives it back: on a virtual machine, memory that was not used
// lately is slow to touch.
func warm(size int64) error {
	data, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("touch %d MiB: %w", size>>20, err)
	}
	return unix.Munmap(data)
}

// passed waits until a process beats from another address than at first, and gives the change. A
// process that began anew there is an error.
func (l *labor) passed(ctx context.Context, process uint64) (beat.Change, error) {
	first := l.ear.Of(process)[0]
	to, err := l.ear.Await(ctx, process, "a beat from another address than "+first.From.Addr().String(), func(h beat.Heard) bool {
		return h.From.Addr() != first.From.Addr()
	})
	if err != nil {
		return beat.Change{}, err
	}
	if to.Start != first.Start {
		return beat.Change{}, fmt.Errorf("process %d at %s began anew: its memory is lost", process, to.From)
	}
	change, ok := beat.Passed(l.ear.Of(process))
	if !ok {
		return change, fmt.Errorf("process %d at %s is at beat %d, and no beat before that was heard from %s", process, to.From, to.Seq, first.From)
	}
	return change, nil
}

// intact has a process check its memory.
func (l *labor) intact(ctx context.Context, process uint64) error {
	damaged, err := l.ear.Check(ctx, process)
	if err == nil && damaged > 0 {
		err = fmt.Errorf("process %d: %d pages of its memory are not as they were", process, damaged)
	}
	return err
}
