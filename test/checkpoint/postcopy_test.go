package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// postCopied is an attempt by post-copy whose copy is held, and has nothing of its heap yet.
func postCopied(t *testing.T) (*attempt, loader) {
	t.Helper()
	postCopy(t)
	at := begin(t)
	leftBehind(t, at.source, migrate.Dumped{Dir: at.images})
	l := at.restoreStopped(t)
	return at, l
}

// restoreStopped restores the copy, and stops what loads its memory.
func (at *attempt) restoreStopped(t *testing.T) loader {
	t.Helper()
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	l := stopLoader(t, at.target)
	at.a.expect("held " + at.target.id)
	at.mustBeHeld(t)
	return l
}

// goOn lets the copy run; the source is held.
func (at *attempt) goOn(t *testing.T) {
	t.Helper()
	if err := at.a.copies.Resume(within(t), at.m, at.target.id, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := <-at.created; err != nil {
		t.Fatalf("create: %v: %s", err, at.target.log())
	}
	at.target.start()
}

// mustArrive fails if the copy, which runs, does not go on where the source stopped, with all of its memory,
// of which nothing is left to load in the end: then the source is ended.
func (at *attempt) mustArrive(t *testing.T) {
	t.Helper()
	if first := at.target.next(); first.n != at.last.n+1 {
		t.Errorf("the copy went on with %d after %d", first.n, at.last.n)
	}
	if err := at.a.copies.Loaded(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	if err := at.a.copies.Drop(within(t), at.m); err != nil { // what lacks nothing runs on
		t.Fatal(err)
	}
	if err := at.a.dumps.End(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	if now := at.source.drain(at.last); now != at.last {
		t.Errorf("the source ran: %d, then %d", at.last.n, now.n)
	}
	at.mustBeLoaded(t)
}

// TestPostCopyMove: the copy runs before any of its memory has come from the source, which is held, and
// finds all of it. An agent that dies meanwhile is waited for.
func TestPostCopyMove(t *testing.T) {
	for who, die := range map[string]func(*attempt){
		"nobody": func(*attempt) {},
		"agent":  func(at *attempt) { at.a = at.a.restart() },
	} {
		t.Run(who, func(t *testing.T) {
			at, l := postCopied(t)
			at.goOn(t)
			if now := at.target.drain(count{}); now.n != 0 {
				t.Errorf("the copy counted to %d without its memory", now.n)
			}
			die(at)
			l.goOn(t)
			at.mustArrive(t)
		})
	}
}

// TestPostCopySourceDeaths: whoever dies at the source but the processes, their memory comes.
func TestPostCopySourceDeaths(t *testing.T) {
	for _, who := range []string{"drover-criu-hoo", "criu", "runc"} {
		t.Run(who, func(t *testing.T) {
			at, l := postCopied(t)
			killSource(t, at, who)
			at.goOn(t)
			l.goOn(t)
			at.mustArrive(t)
		})
	}
}

// killSource kills the source's process of that name; the target's have its container's ID somewhere.
func killSource(t *testing.T, at *attempt, comm string) {
	t.Helper()
	killed := false
	for _, p := range find(comm) {
		var all string
		for _, file := range []string{"environ", "cgroup", "cmdline"} {
			data, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID), file))
			all += string(data)
		}
		if strings.Contains(all, at.target.id) || strings.Contains(all, "=pre-resume") {
			continue
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		killed = true
		until(t, "the end of "+comm, func() bool { return !p.Alive() })
	}
	if !killed {
		t.Fatalf("no %s of the source", comm)
	}
}

// TestPostCopyAbort: whatever of its memory has come, a copy that is given up leaves nothing, and the source
// goes on as if nothing had been.
func TestPostCopyAbort(t *testing.T) {
	t.Run("nothing", func(t *testing.T) {
		at, l := postCopied(t)
		killed := make(chan error, 1)
		go func() { killed <- at.a.copies.Kill(within(t), at.m) }()
		until(t, "the copy's end", func() bool { return at.target.alive() == 0 })
		l.goOn(t)
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		at.mustBeAborted(t)
	})
	t.Run("some", func(t *testing.T) {
		at := lacking(t)
		if err := at.a.copies.Kill(within(t), at.m); err != nil {
			t.Fatal(err)
		}
		at.mustBeAborted(t)
	})
	t.Run("all", func(t *testing.T) {
		at, l := postCopied(t)
		l.goOn(t)
		if err := at.a.copies.Loaded(within(t), at.m); err != nil {
			t.Fatal(err)
		}
		if err := at.a.copies.Kill(within(t), at.m); err != nil {
			t.Fatal(err)
		}
		at.mustBeAborted(t)
	})
}

func (at *attempt) mustBeAborted(t *testing.T) {
	t.Helper()
	at.mustBeGone(t)
	released(t, at.a, at.source, at.m, at.last)
	at.mustBeCleared(t)
}

// lacking is an attempt whose copy is held and waits for more of its memory.
func lacking(t *testing.T) *attempt {
	t.Helper()
	postCopy(t)
	at := begin(t)
	came := at.some()
	l := at.restoreStopped(t)
	l.goOn(t)
	<-came
	return at
}

// some lets two pieces of memory come, and no more; came is closed when there is a third one to wait for.
func (at *attempt) some() (came <-chan struct{}) {
	third, read := make(chan struct{}), at.a.pages
	var n atomic.Int32
	at.a.pages = func(ctx context.Context, m migrate.Move, container string, r lazypages.Range, b []byte) error {
		switch i := n.Add(1); {
		case i <= 2:
			return read(ctx, m, container, r, b)
		case i == 3:
			close(third)
		}
		<-ctx.Done()
		return ctx.Err()
	}
	return third
}

// killProcesses ends the source's processes, as when they run out of memory.
func (at *attempt) killProcesses(t *testing.T) {
	t.Helper()
	init, err := process.Of(at.source.pid())
	if err == nil {
		err = init.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPostCopyLossBeforeCommit: a copy whose memory is lost while it is held cannot be let run.
func TestPostCopyLossBeforeCommit(t *testing.T) {
	at, l := postCopied(t)
	at.killProcesses(t)
	l.goOn(t)
	at.a.expect("failed " + at.target.id)
	marked := func() error { t.Error("a copy was let run without its memory"); return nil }
	if err := at.a.copies.Resume(within(t), at.m, at.target.id, marked); err == nil {
		t.Error("it was resumed")
	}
	if err := at.a.copies.Kill(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	at.mustBeGone(t)
	if err := at.a.dumps.Release(within(t), at.m); err != nil { // the pod's containers start anew
		t.Fatal(err)
	}
	at.mustBeCleared(t)
}

// TestPostCopyForfeitedWhileHeld: of copies that are held, one that has all of its memory outlives its loss.
func TestPostCopyForfeitedWhileHeld(t *testing.T) {
	drop := func(t *testing.T, at *attempt) {
		t.Helper()
		at.killProcesses(t)
		if err := at.a.copies.Drop(within(t), at.m); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("whole", func(t *testing.T) {
		at, l := postCopied(t)
		l.goOn(t)
		if err := at.a.copies.Loaded(within(t), at.m); err != nil {
			t.Fatal(err)
		}
		drop(t, at)
		at.mustBeHeld(t)
		at.goOn(t)
		at.mustArrive(t)
	})
	t.Run("lacking", func(t *testing.T) {
		at := lacking(t)
		drop(t, at)
		at.a.expect("failed " + at.target.id)
		if err := at.a.copies.Resume(within(t), at.m, at.target.id, func() error { return nil }); err == nil {
			t.Error("it was resumed")
		}
		if err := at.a.copies.Kill(within(t), at.m); err != nil {
			t.Fatal(err)
		}
		at.mustBeGone(t)
		if err := at.a.dumps.Release(within(t), at.m); err != nil {
			t.Fatal(err)
		}
		at.mustBeCleared(t)
	})
}

// TestPostCopyLossAfterCommit: a copy that runs and whose memory is lost is killed before it can read
// anything else in its place.
func TestPostCopyLossAfterCommit(t *testing.T) {
	for what, lose := range map[string]func(*testing.T, *attempt, loader){
		"killed": func(t *testing.T, at *attempt, l loader) { at.killProcesses(t); l.goOn(t) },
		"ran": func(t *testing.T, at *attempt, l loader) {
			if err := at.source.group.Thaw(); err != nil {
				t.Fatal(err)
			}
			l.goOn(t)
		},
		"relay": func(t *testing.T, at *attempt, l loader) {
			killRelay(t, at)
			l.goOn(t)
		},
		"forfeited": func(t *testing.T, at *attempt, l loader) {
			came := at.some()
			l.goOn(t)
			<-came
			if err := at.a.copies.Drop(within(t), at.m); err != nil {
				t.Fatal(err)
			}
			if n := at.target.alive(); n != 0 {
				t.Errorf("%d processes of the copy are left", n)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Setenv("COUNTER", "TELL=1")
			at, l := postCopied(t)
			at.goOn(t)
			lose(t, at, l)
			at.a.expect("lost " + at.target.podUID)
			until(t, "the copy's end", func() bool { return at.target.alive() == 0 })
			// Its end closes what it writes to. It says what it reads before it does anything else.
			for line := range at.target.lines {
				if what != "forfeited" || strings.Contains(line, "false") { // it had some, all right
					t.Errorf("the copy said without its memory: %s", line)
				}
			}
			if err := at.a.copies.Loaded(within(t), at.m); err != nil {
				t.Error(err)
			}
			if err := at.a.dumps.End(within(t), at.m); err != nil {
				t.Fatal(err)
			}
			at.mustBeCleared(t)
		})
	}
}

// TestPostCopyCopyEnds: a copy that ends while its source does not answer asks for nothing any more.
func TestPostCopyCopyEnds(t *testing.T) {
	at, l := postCopied(t)
	at.goOn(t)
	came := at.some()
	l.goOn(t)
	<-came
	if err := at.target.group.KillStuck(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := at.a.copies.Loaded(within(t), at.m); err != nil {
		t.Error(err)
	}
	if err := at.a.dumps.End(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	at.mustBeCleared(t)
}

func killRelay(t *testing.T, at *attempt) {
	t.Helper()
	for _, p := range find("drover-runc") {
		line, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID), "cmdline"))
		if strings.Contains(string(line), lazypages.Verb+"\x00") && strings.Contains(string(line), at.target.id) {
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no relay")
}

// TestPostCopyNotAllowed: images that lack memory are refused where the record does not allow them.
func TestPostCopyNotAllowed(t *testing.T) {
	postCopy(t)
	at := begin(t)
	m := at.m
	m.PostCopy = false
	if err := at.a.copies.Restore(within(t), m, at.target.id, at.images); err == nil || !strings.Contains(err.Error(), "lack memory") {
		t.Errorf("restore: %v", err)
	}
	if err := at.a.copies.Kill(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	at.mustBeAborted(t)
}
