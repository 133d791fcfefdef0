// Package clients is many clients of one server, each with a connection that it keeps as long as
// the server lets it. They tell whatever they saw fail, and how long requests took.
package clients

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Service is what the clients talk to.
type Service interface {
	// Connect gives client i a connection; it and what is done on it gives up at the deadline.
	Connect(i int, deadline time.Time) (Conn, error)
	// Lost looks for what was acknowledged and is not there: done[i] requests of client i were. It
	// gives how many are lost, and a message about the first.
	Lost(done []int, patience time.Duration) (int, string, error)
}

// Conn is one client's connection.
type Conn interface {
	// Do does request n. last: the server has said that it will close the connection after this.
	Do(n int, deadline time.Time) (last bool, err error)
	Close() error
}

// Config says how the clients work.
type Config struct {
	Clients  int
	Every    time.Duration // between two requests of a client
	Patience time.Duration // of a client with one request
	// Answered counts the requests that were answered well; nil: nobody asks before the end.
	Answered *atomic.Int64
}

// Dial connects; nil: as any program does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

func (d Dial) to(address string, deadline time.Time) (net.Conn, error) {
	if d == nil {
		d = (&net.Dialer{}).DialContext
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	return d(ctx, "tcp", address)
}

// Report is what the clients saw.
type Report struct {
	// Done is how many requests were answered well.
	Done int `json:"done"`
	// Failed is how many attempts were not, a connection that could not be made included; each
	// request is tried until it is answered.
	Failed int `json:"failed"`
	// Failures are the first few of them in words, by phase.
	Failures []string `json:"failures,omitempty"`
	// Reconnected is how often a client had to connect again without the server having said so.
	Reconnected int `json:"reconnected"`
	// Lost is how many acknowledged requests have left no trace, FirstLost the first in words.
	Lost      int     `json:"lost"`
	FirstLost string  `json:"firstLost,omitempty"`
	Phases    []Phase `json:"phases"`
}

// Phase is a stretch of time. A request counts to the one in which it began, for as long as it
// took with all its attempts.
type Phase struct {
	Name     string  `json:"name"`
	Requests int     `json:"requests"`
	P50      float64 `json:"p50Ms"`
	P99      float64 `json:"p99Ms"`
	Max      float64 `json:"maxMs"`
}

// maxFailures is how many are told in words.
const maxFailures = 20

// crew is all clients at work.
type crew struct {
	Config
	service Service
	end     chan struct{}

	mu     sync.Mutex
	report Report
	phase  string   // now
	names  []string // of all phases, in the order in which they first began
	took   map[string][]time.Duration
	done   []int // of each client
}

// Run has the clients work until the input ends; each line of it begins a phase.
func Run(c Config, s Service, input io.Reader) (Report, error) {
	w := &crew{Config: c, service: s, end: make(chan struct{}), took: map[string][]time.Duration{}, done: make([]int, c.Clients)}
	w.begin("begin")
	var all sync.WaitGroup
	for i := range c.Clients {
		all.Go(func() { w.work(i) })
	}
	lines := bufio.NewScanner(input)
	for lines.Scan() {
		w.begin(strings.TrimSpace(lines.Text()))
	}
	close(w.end)
	all.Wait()
	if err := lines.Err(); err != nil {
		return Report{}, fmt.Errorf("read the phases: %w", err)
	}
	return w.tell()
}

func (w *crew) tell() (Report, error) {
	r := w.report
	for _, name := range w.names {
		if p := phase(name, w.took[name]); p.Requests > 0 {
			r.Phases = append(r.Phases, p)
		}
	}
	for _, n := range w.done {
		r.Done += n
	}
	var err error
	r.Lost, r.FirstLost, err = w.service.Lost(w.done, w.Patience)
	return r, err
}

func phase(name string, took []time.Duration) Phase {
	p := Phase{Name: name, Requests: len(took)}
	if len(took) == 0 {
		return p
	}
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[max(0, int(math.Ceil(q*float64(len(took))))-1)]) / float64(time.Millisecond)
	}
	p.P50, p.P99, p.Max = at(.5), at(.99), at(1)
	return p
}

func (w *crew) begin(phase string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase = phase
	if !slices.Contains(w.names, phase) {
		w.names = append(w.names, phase)
	}
}

func (w *crew) now() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.phase
}

func (w *crew) failed(i, n int, phase string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.Failed++
	if len(w.report.Failures) < maxFailures {
		w.report.Failures = append(w.report.Failures, fmt.Sprintf("%s: client %d, request %d: %v", phase, i, n, err))
	}
}

func (w *crew) answered(i int, phase string, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[i]++
	w.took[phase] = append(w.took[phase], took)
	if w.Answered != nil {
		w.Answered.Add(1)
	}
}

// work is the life of client i.
func (w *crew) work(i int) {
	var conn Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	connected := false // ever
	expected := true   // that a connection has to be made
	tick := time.NewTicker(w.Every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-w.end:
			return
		}
		phase, began := w.now(), time.Now()
		for done := false; !done; {
			deadline := time.Now().Add(w.Patience)
			if conn == nil {
				c, err := w.service.Connect(i, deadline)
				if err != nil {
					w.failed(i, n, phase, fmt.Errorf("connect: %w", err))
					if w.ended(tick.C) {
						return
					}
					continue
				}
				conn = c
				if connected && !expected {
					w.mu.Lock()
					w.report.Reconnected++
					w.mu.Unlock()
				}
				connected, expected = true, false
			}
			last, err := conn.Do(n, deadline)
			if err != nil {
				w.failed(i, n, phase, err)
			}
			if err != nil || last {
				conn.Close()
				conn, expected = nil, err == nil
			}
			if done = err == nil; !done && w.ended(tick.C) {
				return
			}
		}
		w.answered(i, phase, time.Since(began))
	}
}

// ended waits for the next tick, or the end.
func (w *crew) ended(tick <-chan time.Time) bool {
	select {
	case <-tick:
		return false
	case <-w.end:
		return true
	}
}
