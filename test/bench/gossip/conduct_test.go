package gossip

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

var somePieces = []piece{
	{partSteady, ours, 100, 0.001, 1, time.Minute},
	{partSteady, ours, 1000, 0.001, 1, time.Minute},
	{partBaseline, theirs, 1000, 0.001, 1, time.Minute},
	{partHour, ours, 100, 0.05, 1, time.Hour},
}

// counting measures at once, and counts.
type counting struct {
	mu   sync.Mutex
	did  []piece
	fail map[piece]error
}

func (c *counting) measure(_ context.Context, p piece) (finding, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did = append(c.did, p)
	return finding{Result: &result{Nodes: p.Nodes}}, c.fail[p]
}

// A run goes on where it was interrupted, unless the code has changed or something else is asked for.
func TestRunGoesOn(t *testing.T) {
	dir := t.TempDir()
	run := func(code string, fail map[piece]error, pieces ...piece) (did []piece, err error) {
		c := &counting{fail: fail}
		found, err := (&conductor{dir: dir, code: code, jobs: 2, memory: 12, measure: c.measure, log: io.Discard}).run(t.Context(), pieces)
		for i, p := range pieces {
			if f := found[i]; fail[p] == nil && (f.Piece != p || f.Code != code || f.Result.Nodes != p.Nodes) {
				t.Errorf("of %s there was found %+v", p, f)
			}
		}
		return c.did, err
	}
	broken := errors.New("broken")
	did, err := run("a", map[piece]error{somePieces[1]: broken}, somePieces...)
	if len(did) != 4 || !errors.Is(err, broken) || !strings.Contains(err.Error(), somePieces[1].String()) {
		t.Errorf("measured %v, %v; want all and one error that names %s", did, err, somePieces[1])
	}
	if did, err = run("a", nil, somePieces...); len(did) != 1 || did[0] != somePieces[1] || err != nil {
		t.Errorf("measured %v after an interruption, %v; want %s alone", did, err, somePieces[1])
	}
	if did, err = run("a", nil, somePieces...); len(did) != 0 || err != nil {
		t.Errorf("measured %v when all was done, %v", did, err)
	}
	longer := somePieces[0]
	longer.Span *= 2
	if did, err = run("a", nil, longer); len(did) != 1 || err != nil {
		t.Errorf("measured %v for a longer span, %v", did, err)
	}
	if did, err = run("b", nil, somePieces...); len(did) != 4 || err != nil {
		t.Errorf("measured %v by other code, %v", did, err)
	}
	all, err := (&conductor{dir: dir, code: "a"}).all()
	if len(all) != 0 || err != nil {
		t.Errorf("%d findings of code that is no more, %v", len(all), err)
	}
	if all, err = (&conductor{dir: dir, code: "b"}).all(); len(all) != 4 || err != nil {
		t.Errorf("%d findings, %v; want 4", len(all), err)
	}
}

// No more runs at once than there is memory for, and what fits runs at once.
func TestMemoryIsShared(t *testing.T) {
	var mu sync.Mutex
	running, memory := 0, 0.0
	c := &conductor{dir: t.TempDir(), code: "a", jobs: 3, memory: 11, log: io.Discard}
	var small sync.WaitGroup
	small.Add(2)
	c.measure = func(_ context.Context, p piece) (finding, error) {
		mu.Lock()
		running, memory = running+1, memory+p.gigabytes()
		if running > 1 && memory > c.memory {
			t.Errorf("%d at once with %.1f GB", running, memory)
		}
		mu.Unlock()
		if p.Nodes == 100 { // the two of them wait for each other
			small.Done()
			small.Wait()
		}
		mu.Lock()
		defer mu.Unlock()
		running, memory = running-1, memory-p.gigabytes()
		return finding{}, nil
	}
	if _, err := c.run(t.Context(), somePieces); err != nil {
		t.Error(err)
	}
}

func TestInterruptedRunBeginsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &conductor{dir: t.TempDir(), code: "a", jobs: 1, memory: 12, log: io.Discard}
	n := 0
	c.measure = func(context.Context, piece) (finding, error) {
		n++
		cancel()
		return finding{}, context.Canceled
	}
	if _, err := c.run(ctx, somePieces); !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%d pieces begun, %v", n, err)
	}
	if left, _ := os.ReadDir(c.dir); len(left) != 0 {
		t.Errorf("%d files of what was not found", len(left))
	}
}

// Whatever is asked for, no two pieces are kept in one file.
func TestPiecesHaveNames(t *testing.T) {
	s := scope{steady: []int{100, 1000}, faulty: []int{100, 200}, hours: []int{100, 200}, swarms: []int{100, 5000}, seeds: 2, length: time.Minute, hour: time.Hour}
	names, parts := map[string]piece{}, map[string]bool{}
	for _, part := range allParts {
		for _, p := range s.pieces(part) {
			if other, is := names[p.String()]; is {
				t.Errorf("%+v and %+v have one name", p, other)
			}
			names[p.String()], parts[p.Part] = p, true
		}
	}
	// 2 runs of: 2 steady, 2 baseline, 2*2*2 loss, 2 join, 2 partition, 2 hour, 2 swarm
	if len(names) != 2*(2+2+8+2+2+2+2) || len(parts) != len(allParts)-1 {
		t.Errorf("%d pieces of %d parts", len(names), len(parts))
	}
	if a, b, c := s.span(ours, 100), s.span(ours, 1000), s.span(theirs, 1000); a != 3*time.Minute || b != time.Minute || c != time.Minute/2 {
		t.Errorf("100 nodes are measured for %v, 1000 for %v and %v", a, b, c)
	}
}
