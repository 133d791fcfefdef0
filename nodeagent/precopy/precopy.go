// Package precopy reads the memory of processes that run, and their files, so that most of both is at the
// target before they are frozen. What it reads is a guess at what the dump will hold, and nothing
// depends on it: a page that is written later, or half of which was, is dumped and sent as any
// other; a process that ends, or memory that cannot be read, is left out.
//
// It needs no tracking of dirty pages by the kernel: all memory is read again in each round,
// and the sink knows by its content what is new.
package precopy

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
)

// Sink takes memory; transfer.Ahead fits.
type Sink interface {
	// Add takes whole pages of 4 KiB and gives how many bytes of them are new to it.
	Add(memory []byte) (fresh model.Bytes, err error)
	// Round is told that all memory has been read once more.
	Round()
}

// Limits bound the rounds. All are needed.
type Limits struct {
	// Rounds at most, in so much time at most.
	Rounds int
	Time   time.Duration
	// Little is how much that is new in a round is not worth another one.
	Little model.Bytes
}

// worth is what part of the new bytes of a round the next one may find at most, for one more
// to be made: a program that writes as fast as its memory is read is not caught up with.
const worth = 0.7

// another tells whether to read all memory once more, after rounds that found so much new and
// took so long in all, the last of them last.
func (l Limits) another(fresh []model.Bytes, took, last time.Duration) bool {
	n := len(fresh)
	switch {
	case n == 0:
		return true
	case n >= l.Rounds || took+last > l.Time || fresh[n-1] <= l.Little:
		return false
	}
	return n == 1 || float64(fresh[n-1]) < worth*float64(fresh[n-2])
}

// Stats is what was done.
type Stats struct {
	Read  model.Bytes
	Fresh []model.Bytes // in each round
	Took  time.Duration
}

// Copy reads the memory of the processes that list names, in rounds, at the lowest priority
// that there is. It returns an error of the sink or of list; that the time is over, or ctx, is none.
// A read that does not end then is left alone, with its thread: a page may be of a file system
// that does not answer. The sink is not called any more once Copy has returned.
func Copy(ctx context.Context, list func() ([]int, error), sink Sink, l Limits) (Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Time)
	defer cancel()
	return quietly(ctx, sink, func(s Sink) (Stats, error) { return rounds(ctx, list, s, l) })
}

// Files has read give the content of files, in whole pages, to the sink, as Copy does with memory:
// at the same priority, left alone if it does not end with its time, which is no error.
func Files(ctx context.Context, read func(ctx context.Context, add func(pages []byte) error) error, sink Sink, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	_, err := quietly(ctx, sink, func(s Sink) (struct{}, error) {
		return struct{}{}, read(ctx, func(pages []byte) error { _, err := s.Add(pages); return err })
	})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// quietly calls f on a thread of its own, at the lowest priority, and returns what it does, or an error
// if it goes on for long after ctx has ended.
func quietly[T any](ctx context.Context, sink Sink, f func(Sink) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	g := &guarded{sink: sink}
	go func() {
		// The thread is not given back: it ends with this goroutine, and its priority with it.
		runtime.LockOSThread()
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowest); err != nil {
			done <- result{err: fmt.Errorf("read ahead of the freeze at priority %d: %w", lowest, err)}
			return
		}
		value, err := f(g)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-time.After(patience):
	}
	g.shut()
	var none T
	return none, fmt.Errorf("read ahead of the freeze: a read has not ended %v after the time for it was over; it is left alone", patience)
}

// patience is for how long a read that goes on when the time is over is waited for.
const patience = time.Second

// guarded is a sink that can be shut.
type guarded struct {
	mu   sync.Mutex
	sink Sink
	over bool
}

func (g *guarded) Add(memory []byte) (model.Bytes, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return 0, errOver
	}
	return g.sink.Add(memory)
}

func (g *guarded) Round() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.over {
		g.sink.Round()
	}
}

// shut waits for a call that is under way, and lets no other through.
func (g *guarded) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}

// lowest is the nice value of a thread that takes what nobody wants.
const lowest = 19

func rounds(ctx context.Context, list func() ([]int, error), sink Sink, l Limits) (s Stats, err error) {
	began := time.Now()
	defer func() { s.Took = time.Since(began) }()
	r := reader{sink: sink, buffer: make([]byte, stretch), table: make([]byte, 8*tableSize)}
	var last time.Duration
	for l.another(s.Fresh, time.Since(began), last) {
		start := time.Now()
		r.read, r.fresh = 0, 0
		err := r.round(ctx, list)
		last = time.Since(start)
		s.Read += r.read
		s.Fresh = append(s.Fresh, r.fresh)
		sink.Round()
		if errors.Is(err, errOver) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// errOver: the time is.
var errOver = errors.New("no more time")
