package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/chain"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/transfer"
)

// tracks skips where the kernel does not track which pages are written to. "make test-kernels" has
// kernels that do.
func tracks(t testing.TB) {
	t.Helper()
	if why := checkpoint.CannotTrack(context.Background()); why != "" {
		t.Skip(why)
	}
}

// The heap of the counter in these tests, in MiB and in pages. Some of them run in an emulated processor.
const (
	roundsHeap  = "24"
	roundsPages = 24 * 256
)

// preDump writes a round, and fails if the container is not running afterwards.
func preDump(t testing.TB, a *agent, c *container, m migrate.Move) model.Bytes {
	t.Helper()
	n, err := a.dumps.PreDump(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	if frozen, err := c.group.Frozen(); err != nil || frozen {
		t.Fatalf("after a round the container is frozen: %v, %v", frozen, err)
	}
	return n
}

// counts reads what the counter has written, and then so many counts more.
func (c *container) counts(n int) (last count) {
	c.t.Helper()
	for n > 0 {
		if len(c.lines) == 0 {
			n--
		}
		last = c.next()
	}
	return last
}

// Whatever a container does between the rounds, its copy goes on with the memory that it had in the
// end: of it the last dump holds what had changed, and the target has the rest from the rounds.
func TestRounds(t *testing.T) {
	tracks(t)
	touch := func(name string) func(*testing.T, *container) {
		return func(t *testing.T, c *container) { run(t, "touch", filepath.Join(c.bundle, "rootfs", name)) }
	}
	for name, test := range map[string]struct {
		counter string
		lazy    bool
		between func(*testing.T, *container) // the first round and the second
	}{
		"written":  {counter: "LEDGER=10"},
		"later":    {counter: "LEDGER=10", lazy: true},
		"restless": {counter: "LEDGER=5 RESTLESS=1 PART_KIB=256", between: touch("go")},
		"shared":   {counter: "LEDGER=5 SHARED=1"},
		"forked":   {counter: "LEDGER=5 LATE=1", between: touch("fork")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HEAP_MIB", roundsHeap)
			t.Setenv("COUNTER", test.counter)
			if test.lazy {
				lazily(t)
			}
			inRounds(t, test.between).goesOn(t)
		})
	}
}

// goesOn has the copy go on with the memory that the source had in the end.
func (at *attempt) goesOn(t *testing.T) {
	t.Helper()
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	at.a.expect("held " + at.target.id)
	at.mustBeHeld(t)
	at.let(t)
	at.target.start()
	if first := at.target.next(); first.n != at.last.n+1 {
		t.Errorf("the copy went on with %d after %d", first.n, at.last.n)
	}
	at.target.counts(2*roundsPages/64 + 10) // over two looks at all pages
	if err := at.a.copies.Loaded(within(t), at.m); err != nil {
		t.Error(err)
	}
	if err := at.a.dumps.End(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	if now := at.source.drain(at.last); now != at.last {
		t.Errorf("the source ran: %d, then %d", at.last.n, now.n)
	}
}

// inRounds is an attempt whose images were written and sent in two rounds and a dump, and joined.
func inRounds(t *testing.T, between func(*testing.T, *container)) *attempt {
	t.Helper()
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	c.counts(5)
	m := move(c, nil)
	m.Source.Node, m.Target.Node = "a", "b"
	sender, store := receiving(t, m)
	store.Join = chain.Join
	dir, err := a.dumps.Images(m)
	if err != nil {
		t.Fatal(err)
	}
	var rounds []model.Bytes
	for i := range 2 {
		rounds = append(rounds, preDump(t, a, c, m))
		if err := sender.Push(within(t), m, dir); err != nil {
			t.Fatal(err)
		}
		if i == 0 && between != nil {
			between(t, c)
		}
		c.counts(8)
	}
	at, rest := dumpedAfter(t, a, c, m, sender, store, rounds)
	if rest > rounds[0]*3/4 {
		t.Errorf("%d bytes were dumped after a first round of %d: what had not changed, too", rest, rounds[0])
	}
	return at
}

// dumpedAfter is an attempt whose images were sent in rounds, and joined with the dump, which has rest bytes
// of memory.
func dumpedAfter(t *testing.T, a *agent, c *container, m migrate.Move, sender *transfer.Sender, store *transfer.Store, rounds []model.Bytes) (at *attempt, rest model.Bytes) {
	t.Helper()
	dir, err := a.dumps.Images(m)
	if err != nil {
		t.Fatal(err)
	}
	before := sender.Progress(m).Wire
	sender.Follow(m, dir, rounds[0])
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	last := c.mustRest(count{})
	t.Cleanup(func() { _ = a.dumps.Release(context.Background(), m) }) // of a test that failed
	rest = pagesOf(t, filepath.Join(d.Dir, "main"), layout.RoundDir(filepath.Join(d.Dir, "main"), 1))
	sent, err := sender.Send(within(t), m, d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("rounds of %d bytes, then a dump of %d; %d bytes on the link before the freeze and %d after it", rounds, rest, before, sent.Wire-before)
	images, err := store.Complete(within(t), m)
	if err != nil || images == "" {
		t.Fatal(images, err)
	}
	t.Cleanup(func() { _ = store.Discard(context.Background(), m) })
	target := newContainer(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	at = &attempt{a: a, source: c, target: target, m: move(c, target), images: images, last: last, frozenAt: d.FrozenAt}
	at.wait(t)
	return at, rest
}

// pagesOf is how much there is in images of the memory that others are of, too; if these are not there, of
// all. What a child has that was started meanwhile is dumped whole.
func pagesOf(t *testing.T, dir, others string) (sum model.Bytes) {
	t.Helper()
	if _, err := os.Stat(others); err != nil {
		return pagesIn(t, dir)
	}
	found, _ := filepath.Glob(filepath.Join(others, "pagemap-*.img"))
	for _, file := range found {
		if file = filepath.Join(dir, filepath.Base(file)); !there(file) {
			continue
		}
		sum += model.Bytes(len(readMemory(t, file).content))
	}
	return sum
}

func there(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// pagesIn is how much memory there is in images.
func pagesIn(t *testing.T, dir string) (sum model.Bytes) {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(dir, "pages-*.img"))
	for _, file := range found {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		sum += model.Bytes(info.Size())
	}
	return sum
}
