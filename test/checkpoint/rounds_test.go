package checkpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/cgroup"
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

// What CRIU says in its log when it has put its code into a process, which then writes its pages into
// pipes; and when all run again, and it writes the pages into files.
const (
	whileStopped = "Dumping pages ("
	whileRunning = "Pre-dumping tasks' memory"
)

// said waits until CRIU has said something about a round; false: the round has ended, and ended is filled again.
func said(t *testing.T, what string, ended chan error) bool {
	t.Helper()
	logs := filepath.Join(layout.Default.Dumps(), "*", "parts", "*", "work.*", "dump.log")
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found, _ := filepath.Glob(logs)
		for _, path := range found {
			if data, _ := os.ReadFile(path); strings.Contains(string(data), what) {
				return true
			}
		}
		select {
		case err := <-ended:
			ended <- err
			return false
		default:
		}
	}
	t.Fatalf("CRIU does not say %q", what)
	return false
}

// A round in the middle of which CRIU dies leaves the container running and unhurt, and the dump after it holds
// all. (Not while CRIU has a process make a system call for it: that ends as the process is then, in CRIU's code.)
func TestRoundIsKilled(t *testing.T) {
	tracks(t)
	t.Setenv("HEAP_MIB", roundsHeap)
	t.Setenv("COUNTER", "LEDGER=20")
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	c.counts(5)
	m := move(c, nil)
	for i, when := range []string{whileStopped, whileRunning, whileStopped, whileRunning} {
		m.Epoch = int64(i + 1)
		if i > 0 { // an agent that remembers does not try again
			a = a.restart()
		}
		done := make(chan error, 1)
		go func() {
			_, err := a.dumps.PreDump(context.Background(), m)
			done <- err
		}()
		if said(t, when, done) {
			for _, p := range find("criu") {
				_ = p.Kill()
			}
		}
		if err := <-done; err == nil {
			t.Errorf("%q: the round came to its end", when)
		} else {
			t.Logf("%q: %v", when, err)
		}
		c.counts(roundsPages/64 + 10) // over a look at all pages
		d, err := a.dumps.Dump(within(t), m)
		if err != nil {
			t.Fatal(err)
		}
		if found, _ := filepath.Glob(filepath.Join(d.Dir, "main", "parent")); len(found) > 0 {
			t.Error("the dump builds on a round that failed")
		}
		if err := a.dumps.Release(within(t), m); err != nil {
			t.Fatal(err)
		}
		c.counts(10)
	}
}

// A round that fails is not tried again for the container, which runs on; its dump needs none.
func TestRoundFails(t *testing.T) {
	tracks(t)
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	c.counts(5)
	m := move(c, nil)
	preDump(t, a, c, m)
	run(t, "mv", "/usr/sbin/criu", "/usr/sbin/criu.away")
	_, err := a.dumps.PreDump(within(t), m)
	run(t, "mv", "/usr/sbin/criu.away", "/usr/sbin/criu")
	if err == nil {
		t.Fatal("a round without CRIU")
	}
	t.Log(err)
	if _, err := a.dumps.PreDump(within(t), m); !errors.Is(err, checkpoint.ErrUntracked) {
		t.Errorf("tried again: %v", err)
	}
	c.counts(60)
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(filepath.Dir(d.Dir), "images", "main*")); len(found) != 1 {
		t.Errorf("a round is left: %q", found)
	}
	released(t, a, c, m, c.mustRest(count{}))
}

// hangs is a round whose CRIU does nothing, and what becomes of it.
func hangs(t *testing.T, a *agent, m migrate.Move) (ended chan error) {
	t.Helper()
	run(t, "mv", "/usr/sbin/criu", "/usr/sbin/criu.away")
	t.Cleanup(func() { run(t, "mv", "/usr/sbin/criu.away", "/usr/sbin/criu") })
	if err := os.WriteFile("/usr/sbin/criu", []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() {
		_, err := a.dumps.PreDump(context.Background(), m)
		ended <- err
	}()
	until(t, "CRIU", func() bool { return len(find("sleep")) > 0 })
	return ended
}

// A round that hangs is cut off: soon when its container is dead, and when it has taken too long if that lives,
// which then goes on, and is not dumped in rounds again.
func TestRoundHangs(t *testing.T) {
	limit := func(t *testing.T, d time.Duration) {
		was := longestRound
		longestRound = d
		t.Cleanup(func() { longestRound = was })
	}
	begin := func(t *testing.T) (*agent, *container, migrate.Move) {
		a, c := startAgent(t), newContainer(t, "src", nil)
		c.run()
		c.counts(5)
		return a, c, move(c, nil)
	}
	nothingLeft := func(t *testing.T) {
		if left, _ := os.ReadDir(layout.Default.Dumps()); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
		if left := find("sleep"); len(left) != 0 {
			t.Errorf("CRIU is left behind: %v", left)
		}
	}
	t.Run("dead", func(t *testing.T) {
		limit(t, time.Hour)
		a, c, m := begin(t)
		ended := hangs(t, a, m)
		if err := c.group.Kill(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Error("a round of a dead container")
		}
		nothingLeft(t)
	})
	t.Run("alive", func(t *testing.T) {
		limit(t, time.Second)
		a, c, m := begin(t)
		if err := <-hangs(t, a, m); err == nil {
			t.Error("a round without CRIU")
		}
		nothingLeft(t)
		if _, err := a.dumps.PreDump(within(t), m); !errors.Is(err, checkpoint.ErrUntracked) {
			t.Errorf("tried again: %v", err)
		}
		c.counts(60) // over a look at the heap
	})
	t.Run("restart", func(t *testing.T) {
		limit(t, time.Hour)
		a, c, m := begin(t)
		ended := hangs(t, a, m)
		limit(t, time.Second)
		a = a.restart()
		if err := <-ended; err == nil {
			t.Error("the agent ended, and not the round")
		}
		if err := a.dumps.Release(within(t), m); err != nil {
			t.Fatal(err)
		}
		nothingLeft(t)
		c.counts(60)
	})
	t.Run("stopped", func(t *testing.T) { // CRIU hangs when it has stopped the container
		tracks(t)
		limit(t, 5*time.Second)
		t.Setenv("HEAP_MIB", roundsHeap)
		t.Setenv("COUNTER", "LEDGER=10")
		a, c, m := begin(t)
		ended := make(chan error, 1)
		go func() {
			_, err := a.dumps.PreDump(context.Background(), m)
			ended <- err
		}()
		if !said(t, whileStopped, ended) {
			t.Fatal(<-ended)
		}
		for _, p := range find("criu") {
			if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-ended; err == nil {
			t.Error("a round whose CRIU was stopped")
		}
		nothingLeft(t)
		c.counts(roundsPages/64 + 10) // over a look at all pages
	})
}

// An agent that comes back in the middle of a move with rounds undoes it, and the container runs on.
func TestRoundsAreReleased(t *testing.T) {
	tracks(t)
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	c.counts(5)
	m := move(c, nil)
	preDump(t, a, c, m)
	preDump(t, a, c, m)
	a = a.restart()
	last := c.counts(1)
	if err := a.dumps.Release(within(t), m); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(layout.Default.Dumps()); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if now := c.counts(60); now.n <= last.n {
		t.Errorf("the counter went on with %d after %d", now.n, last.n)
	}
}

// No rounds are written where that would not be safe: nothing is done to the container.
func TestNoRounds(t *testing.T) {
	for name, test := range map[string]struct {
		counter string
		prepare func(*testing.T, *container, *migrate.Move)
		says    string
	}{
		"itself": {counter: "TRACK=1", says: "clear_refs open"},
		"exec":   {prepare: func(t *testing.T, c *container, _ *migrate.Move) { c.enter("/counter").next() }, says: "was brought into container"},
		"paused": {prepare: func(t *testing.T, c *container, _ *migrate.Move) {
			if err := c.group.Freeze(within(t)); err != nil {
				t.Fatal(err)
			}
		}, says: "is paused"},
		"two": {prepare: func(_ *testing.T, _ *container, m *migrate.Move) {
			m.Containers = append(m.Containers, migrate.Container{Name: "other", ID: "other"})
		}, says: "2 containers"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("COUNTER", test.counter)
			a := startAgent(t)
			c := newContainer(t, "src", nil)
			c.run()
			c.counts(5)
			m := move(c, nil)
			if test.prepare != nil {
				test.prepare(t, c, &m)
			}
			_, err := a.dumps.PreDump(within(t), m)
			if !errors.Is(err, checkpoint.ErrUntracked) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			if left, _ := os.ReadDir(layout.Default.Dumps()); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if err := c.group.Thaw(); err != nil {
				t.Fatal(err)
			}
			c.counts(5)
		})
	}
}

// tracksItself has the program track what it writes to itself, from now on.
func (c *container) tracksItself() {
	c.t.Helper()
	run(c.t, "touch", filepath.Join(c.bundle, "rootfs", "track"))
	c.counts(8)
}

// A program that begins to track itself what it writes to takes the marks away that the rounds need. Whenever
// it does, its copy has the memory that it had in the end: all of it is in the dump.
func TestRoundsOfAProgramThatTracksItself(t *testing.T) {
	tracks(t)
	for name, rounds := range map[string]int{"round": 1, "dump": 2} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HEAP_MIB", roundsHeap)
			t.Setenv("COUNTER", "LEDGER=10 TRACK=later")
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
			var written []model.Bytes
			for range rounds {
				written = append(written, preDump(t, a, c, m))
				if err := sender.Push(within(t), m, dir); err != nil {
					t.Fatal(err)
				}
				c.counts(8)
			}
			c.tracksItself()
			if rounds == 1 {
				if _, err := a.dumps.PreDump(within(t), m); !errors.Is(err, checkpoint.ErrUntracked) {
					t.Errorf("another round: %v", err)
				}
				sender.Unpush(m)
			}
			at, all := dumpedAfter(t, a, c, m, sender, store, written)
			if all < roundsPages*4096 {
				t.Errorf("%d bytes were dumped, of a heap of %d", all, roundsPages*4096)
			}
			at.goesOn(t)
		})
	}
}

// between calls when a container's group is looked for, and so often has been before.
type between struct {
	checkpoint.Groups
	left int
	call func()
}

func (b *between) Container(pid int, path string) (cgroup.Group, error) {
	if b.left--; b.left == -1 {
		b.call()
	}
	return b.Groups.Container(pid, path)
}

// A program that begins to track itself when the dump has been found to be able to build on the rounds makes
// it fail: it is undone, and the next one builds on none.
func TestDumpOfAProgramThatTracksItself(t *testing.T) {
	tracks(t)
	t.Setenv("HEAP_MIB", roundsHeap)
	t.Setenv("COUNTER", "LEDGER=10 TRACK=opens")
	moment := &between{left: -1}
	was := groupsOf
	groupsOf = func(node checkpoint.Groups) checkpoint.Groups { moment.Groups = node; return moment }
	t.Cleanup(func() { groupsOf = was })
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	c.counts(5)
	m := move(c, nil)
	preDump(t, a, c, m)
	moment.left, moment.call = 1, c.tracksItself // after it was looked for once, and before CRIU begins
	if _, err := a.dumps.Dump(within(t), m); !errors.Is(err, checkpoint.ErrUntracked) || !strings.Contains(err.Error(), "clear_refs") {
		t.Errorf("the dump builds on rounds without marks: %v", err)
	}
	released(t, a, c, m, c.mustRest(count{}))
	m.Epoch++
	if _, err := a.dumps.PreDump(within(t), m); !errors.Is(err, checkpoint.ErrUntracked) {
		t.Errorf("tried again: %v", err)
	}
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	if all := pagesIn(t, filepath.Join(d.Dir, "main")); all < roundsPages*4096 {
		t.Errorf("%d bytes were dumped, of a heap of %d", all, roundsPages*4096)
	}
	released(t, a, c, m, c.mustRest(count{}))
}
