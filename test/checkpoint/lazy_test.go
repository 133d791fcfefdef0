package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/inspect"
)

// lazily has the agents of a test let copies run before their memory is loaded.
func lazily(t *testing.T) {
	t.Helper()
	if why := checkpoint.CannotLoadLater(within(t), "/usr/sbin/runc"); why != "" {
		t.Fatalf("copies cannot be loaded later on this kernel: %s", why)
	}
	lazyFrom = 4 * model.MiB
	t.Cleanup(func() { lazyFrom = 0 })
}

// loader is CRIU's lazy-pages daemon of a container, in a control group of its own, where it can
// be stopped: with the container's memory still missing.
type loader struct {
	process.Process
	group cgroup.Group
}

// stopLoader stops the daemon that was started for a container. It has to be called before CRIU
// has come to the restore.
func stopLoader(t *testing.T, c *container) loader {
	t.Helper()
	for _, p := range find("criu") {
		line, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID), "cmdline"))
		if !strings.Contains(string(line), "lazy-pages") || !strings.Contains(string(line), c.id) {
			continue
		}
		groups, err := cgroup.Host()
		if err != nil {
			t.Fatal(err)
		}
		path := os.Getenv("NODE_GROUP") + "/loader-" + c.id
		if err := groups.Join(path, p.PID); err != nil {
			t.Fatal(err)
		}
		l := loader{Process: p}
		if l.group, err = groups.At(path); err == nil {
			err = l.group.Freeze(within(t))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.group.Kill(context.Background()) })
		return l
	}
	t.Fatal("nothing loads the copy's memory")
	return loader{}
}

func (l loader) goOn(t *testing.T) {
	t.Helper()
	if err := l.group.Thaw(); err != nil {
		t.Fatal(err)
	}
}

// die kills it. What is frozen dies when it is thawed.
func (l loader) die(t *testing.T) {
	t.Helper()
	if err := l.Kill(); err != nil {
		t.Fatal(err)
	}
	l.goOn(t)
}

// lazyRestored is an attempt whose copy is held, with its memory still missing.
func lazyRestored(t *testing.T) (*attempt, loader) {
	t.Helper()
	return lazyRestoredOf(t, 64)
}

// lazyRestoredOf is lazyRestored with a heap of so many MiB.
func lazyRestoredOf(t *testing.T, mib int) (*attempt, loader) {
	t.Helper()
	lazily(t)
	t.Setenv("HEAP_MIB", itoa(mib))
	at := begin(t)
	return at, at.restoreStopped(t)
}

// let lets the copy run, as Resume does, but looks at nothing: it has no memory yet.
func (at *attempt) let(t *testing.T) {
	t.Helper()
	at.goOn(t)
	if err := at.a.dumps.End(within(t), at.m); err != nil {
		t.Fatal(err)
	}
}

// mustBeLoaded waits until all memory is there, and fails if anything is left of what loaded it,
// or if the memory is not what it was.
func (at *attempt) mustBeLoaded(t *testing.T) {
	t.Helper()
	if err := at.a.copies.Loaded(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(at.images); err != nil { // nothing needs them any more
		t.Fatal(err)
	}
	for range 110 { // over two looks at the heap
		at.target.next()
	}
	at.mustBeCleared(t)
}

// mustBeCleared fails if anything is left of what loaded a copy's memory.
func (at *attempt) mustBeCleared(t *testing.T) {
	t.Helper()
	l := layout.Default
	for _, left := range []string{l.Loader(at.target.id), l.LazySocket(at.target.id)} {
		until(t, "the end of "+left, func() bool { _, err := os.Stat(left); return os.IsNotExist(err) })
	}
	until(t, "the end of CRIU", func() bool { return len(find("criu")) == 0 })
}

// TestLazyMove: the copy runs before its memory is there, goes on where the source stopped, and
// finds all of its memory as it was while that is loaded and afterwards.
func TestLazyMove(t *testing.T) {
	at, l := lazyRestored(t)
	at.let(t)
	if now := at.target.drain(count{}); now.n != 0 {
		t.Errorf("the copy counted to %d without its memory", now.n)
	}
	l.goOn(t)
	if first := at.target.next(); first.n != at.last.n+1 {
		t.Errorf("the copy went on with %d after %d", first.n, at.last.n)
	}
	at.mustBeLoaded(t)
	again := move(at.target, nil)
	d, err := at.a.dumps.Dump(within(t), again)
	if err != nil {
		t.Fatalf("dump the copy: %v", err)
	}
	if m, err := inspect.MemoryOf(filepath.Join(d.Dir, "main"), model.GiB); err != nil || m.Processes != 1 || m.Lazy < 64*model.MiB {
		t.Errorf("the images of the copy hold %+v, %v; want one process with its heap", m, err)
	}
	if err := at.a.dumps.Release(within(t), again); err != nil {
		t.Fatal(err)
	}
	at.target.next()
}

// TestLazyDumpedByAnother: whoever dumps a copy whose memory was loaded while it ran, by runc alone, gets
// all of that; and nothing where CRIU's options would leave it to a page server.
func TestLazyDumpedByAnother(t *testing.T) {
	at, l := lazyRestored(t)
	at.let(t)
	l.goOn(t)
	at.mustBeLoaded(t)
	options := layout.Default.CriuConfig(at.target.id)
	before, err := os.ReadFile(options)
	if err != nil || strings.Contains(string(before), layout.Lazily) {
		t.Fatalf("CRIU would wait for somebody to fetch the memory (%v): %s", err, before)
	}
	dump := func() (images, out string, err error) {
		images = t.TempDir()
		said, err := at.target.runtime("checkpoint", "--leave-running", "--image-path", images, "--work-path", t.TempDir(), at.target.id).CombinedOutput()
		return images, string(said), err
	}
	images, out, err := dump()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if m, err := inspect.MemoryOf(images, model.GiB); err != nil || m.Processes != 1 || m.Lazy < 64*model.MiB {
		t.Errorf("the images hold %+v, %v; want one process with its heap", m, err)
	}
	at.target.next()
	if err := os.WriteFile(options, append(before, layout.Lazily+"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, out, err := dump(); err == nil {
		t.Errorf("it was dumped without its memory: %s", out)
	}
	at.target.next()
}

// TestLazyLoadsWhileHeld: a copy that is held gets its memory meanwhile.
func TestLazyLoadsWhileHeld(t *testing.T) {
	at, l := lazyRestored(t)
	l.goOn(t)
	if err := at.a.copies.Loaded(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	at.mustBeHeld(t)
	at.resume(t)
	at.mustBeCleared(t)
}

// TestLazyMovedOnAtOnce: a copy is dumped only when its memory is there, by whomever.
func TestLazyMovedOnAtOnce(t *testing.T) {
	at, l := lazyRestored(t)
	at.let(t)
	again := move(at.target, nil)
	short, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := at.a.dumps.Dump(short, again); err == nil || !strings.Contains(err.Error(), "until its memory is loaded") {
		t.Errorf("the dump of a copy without memory: %v", err)
	}
	out, err := at.target.runtime("checkpoint", "--leave-running", "--image-path", t.TempDir(), "--work-path", t.TempDir(), at.target.id).CombinedOutput()
	if err == nil {
		t.Errorf("somebody else has dumped a copy without memory: %s", out)
	}
	l.goOn(t)
	if _, err := at.a.dumps.Dump(within(t), again); err != nil {
		t.Fatal(err)
	}
	if err := at.a.dumps.Release(within(t), again); err != nil {
		t.Fatal(err)
	}
	at.mustBeLoaded(t)
}

// lazyDeaths are ways in which what loads a copy's memory can die.
var lazyDeaths = map[string]func(*testing.T, *attempt, loader){
	"daemon": func(t *testing.T, _ *attempt, l loader) { l.die(t) },
	// Its keeper alone is left to see to the copy.
	"daemon-while-the-agent-is-away": func(t *testing.T, at *attempt, l loader) {
		at.a.stop()
		l.die(t)
		until(t, "the copy's end", func() bool { return at.target.alive() == 0 })
		at.a = startAgent(t)
	},
	"keeper": func(t *testing.T, at *attempt, l loader) {
		keeper, err := parent(l.Process)
		if err == nil {
			err = keeper.Kill()
		}
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the copy's end", func() bool { return at.target.alive() == 0 })
		l.goOn(t)
	},
	"keeper-while-the-agent-is-away": func(t *testing.T, at *attempt, l loader) {
		keeper, err := parent(l.Process)
		at.a.stop()
		if err == nil {
			err = keeper.Kill()
		}
		if err != nil {
			t.Fatal(err)
		}
		at.a = startAgent(t)
		until(t, "the copy's end", func() bool { return at.target.alive() == 0 })
		l.goOn(t)
	},
}

func parent(p process.Process) (process.Process, error) {
	data, err := os.ReadFile(filepath.Join("/proc", itoa(p.PID), "stat"))
	if err != nil {
		return process.Process{}, err
	}
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	return process.Of(atoi(f[1]))
}

// TestLazyDeathBeforeCommit: a copy that is held and whose memory cannot be loaded any more is
// killed, cannot be let run, and the source goes on.
func TestLazyDeathBeforeCommit(t *testing.T) {
	for who, die := range lazyDeaths {
		t.Run(who, func(t *testing.T) {
			at, l := lazyRestored(t)
			die(t, at, l)
			at.a.expect("failed " + at.target.id)
			marked := func() error { t.Error("a copy was let run without its memory"); return nil }
			if err := at.a.copies.Resume(within(t), at.m, at.target.id, marked); err == nil {
				t.Error("it was resumed")
			}
			if err := at.a.copies.Kill(within(t), at.m); err != nil {
				t.Fatal(err)
			}
			at.mustBeGone(t)
			released(t, at.a, at.source, move(at.source, nil), at.last)
			at.mustBeCleared(t)
		})
	}
}

// TestLazyDeathAfterCommit: a copy that runs and whose memory cannot be loaded any more is killed
// before it can read anything else in its place.
func TestLazyDeathAfterCommit(t *testing.T) {
	for who, die := range lazyDeaths {
		t.Run(who, func(t *testing.T) {
			t.Setenv("COUNTER", "TELL=1")
			at, l := lazyRestored(t)
			at.let(t)
			die(t, at, l)
			at.a.expect("lost " + at.target.podUID)
			until(t, "the copy's end", func() bool { return at.target.alive() == 0 })
			// Its end closes what it writes to. It says what it reads before it does anything else.
			for line := range at.target.lines {
				t.Errorf("the copy said without its memory: %s", line)
			}
			at.mustBeCleared(t)
		})
	}
}

// TestLazyAskedToEnd: loading goes on when all processes are asked to end, as they are when the
// node is shut down: the pods then have time to end well, and run with what they find in memory.
func TestLazyAskedToEnd(t *testing.T) {
	at, l := lazyRestored(t)
	at.let(t)
	keeper, err := parent(l.Process)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []process.Process{keeper, l.Process} {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			if err := syscall.Kill(p.PID, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.goOn(t)
	at.mustBeLoaded(t)
}

// TestLazyAgentReturns: loading goes on without the agent, and the one that comes back clears
// away after it.
func TestLazyAgentReturns(t *testing.T) {
	at, l := lazyRestored(t)
	at.let(t)
	at.a.stop()
	l.goOn(t)
	for range 60 {
		at.target.next()
	}
	at.a = startAgent(t)
	at.mustBeLoaded(t)
}

// TestLazyAbort: a move that is aborted while memory is loaded leaves nothing.
func TestLazyAbort(t *testing.T) {
	at, l := lazyRestored(t)
	killed := make(chan error, 1)
	go func() { killed <- at.a.copies.Kill(within(t), at.m) }()
	until(t, "the copy's end", func() bool { return at.target.alive() == 0 })
	l.goOn(t)
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	at.mustBeGone(t)
	released(t, at.a, at.source, move(at.source, nil), at.last)
	at.mustBeCleared(t)
}

// TestLazyCrash: a copy that ends while its memory is loaded leaves nothing either.
func TestLazyCrash(t *testing.T) {
	at, l := lazyRestored(t)
	at.let(t)
	if out, err := at.target.runtime("kill", at.target.id, "KILL").CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	l.goOn(t)
	at.a.expect("died " + at.target.id)
	at.mustBeCleared(t)
}

// TestLazyRestless: a program that forks, and that gives back, moves and unmaps memory while
// that is loaded, finds in it what has to be there.
func TestLazyRestless(t *testing.T) {
	t.Setenv("COUNTER", "RESTLESS=1")
	at, l := lazyRestoredOf(t, 256)
	run(t, "touch", filepath.Join(at.target.bundle, "rootfs/go"))
	at.let(t)
	l.goOn(t)
	at.mustBeLoaded(t)
}

// TestSharedMemoryIsNotLazy: processes that share memory move with all of it.
func TestSharedMemoryIsNotLazy(t *testing.T) {
	lazily(t)
	t.Setenv("COUNTER", "SHARED=1")
	at := begin(t)
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	at.a.expect("held " + at.target.id)
	if _, err := os.Stat(layout.Default.Loader(at.target.id)); err == nil {
		t.Error("it is loaded later")
	}
	m, err := inspect.MemoryOf(filepath.Join(at.images, "main"), model.GiB)
	if why := m.Eager(lazyFrom); err != nil || !strings.Contains(why, "2 processes") {
		t.Errorf("found %+v, %v: %s", m, err, why)
	}
	at.let(t)
	for range 110 {
		at.target.next()
	}
	if n := at.target.alive(); n != 2 {
		t.Errorf("%d processes, want 2", n)
	}
}
