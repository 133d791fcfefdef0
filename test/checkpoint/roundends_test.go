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

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/migrate"
)

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
	for _, when := range []string{whileStopped, whileRunning} {
		err := error(nil)
		for try := 0; err == nil; try++ {
			if try == 10 {
				t.Fatalf("%q: rounds end before they can be killed", when)
			}
			m.Epoch++
			a = a.restart() // one that remembers does not try again
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
			err = <-done
			t.Logf("%q: %v", when, err)
			c.counts(roundsPages/64 + 10) // over a look at all pages
			d, derr := a.dumps.Dump(within(t), m)
			if derr != nil {
				t.Fatal(derr)
			}
			if err != nil && there(filepath.Join(d.Dir, "main", "parent")) {
				t.Error("the dump builds on a round that failed")
			}
			if err := a.dumps.Release(within(t), m); err != nil {
				t.Fatal(err)
			}
			c.counts(10)
		}
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
	begun := func(t *testing.T) {
		until(t, "CRIU", func() bool { return len(find("sleep")) > 0 })
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
		begun(t)
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
		begun(t)
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
		limit(t, 20*time.Second)
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
