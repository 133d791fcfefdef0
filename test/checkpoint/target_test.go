package checkpoint

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/inspect"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// attempt is a move whose images are complete and whose create waits.
type attempt struct {
	a              *agent
	source, target *container
	m              migrate.Move
	images         string
	last           count
	frozenAt       time.Time
	create         *exec.Cmd
	created        chan error
}

func begin(t *testing.T) *attempt {
	t.Helper()
	a, source, m, d, last := dumped(t)
	target := newContainer(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	at := &attempt{a: a, source: source, target: target, m: move(source, target), last: last, frozenAt: d.FrozenAt}
	at.images = filepath.Join(layout.Default.Images(), m.UID+"-1")
	if err := os.CopyFS(at.images, os.DirFS(d.Dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(at.images) })
	at.wait(t)
	return at
}

// wait starts the create, which waits.
func (at *attempt) wait(t *testing.T) {
	t.Helper()
	cmd, wait := at.target.create()
	at.create, at.created = cmd, make(chan error, 1)
	go func() { at.created <- wait() }()
	at.a.expect("waits " + at.target.id)
}

// restored is an attempt whose copy is held.
func restored(t *testing.T) *attempt {
	t.Helper()
	at := begin(t)
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	at.a.expect("held " + at.target.id)
	at.mustBeHeld(t)
	return at
}

func (at *attempt) mustBeHeld(t *testing.T) {
	t.Helper()
	c, err := at.a.copies.Inspect(within(t), at.m)
	if err != nil || c.ID != at.target.id || !c.Alive || !c.Frozen {
		t.Errorf("found %+v, %v; want a frozen copy", c, err)
	}
	if now := at.target.drain(count{}); now.n != 0 {
		t.Errorf("the copy counts while it is held: %d", now.n)
	}
}

// mustBeGone fails if anything of the copy is left, and if a next create would stumble.
func (at *attempt) mustBeGone(t *testing.T) {
	t.Helper()
	if err := <-at.created; err == nil {
		t.Error("the create succeeded")
	}
	if n := at.target.alive(); n != 0 {
		t.Errorf("%d processes of the copy are left", n)
	}
	if now := at.target.drain(count{}); now.n != 0 {
		t.Errorf("the copy counted: %d", now.n)
	}
	if c, err := at.a.copies.Inspect(within(t), at.m); err != nil || c.ID != "" || c.Alive {
		t.Errorf("found %+v, %v; want nothing", c, err)
	}
	if err := at.a.copies.Kill(within(t), at.m); err != nil {
		t.Errorf("kill again: %v", err)
	}
}

func (at *attempt) resume(t *testing.T) {
	t.Helper()
	marked := 0
	err := at.a.copies.Resume(within(t), at.m, at.target.id, func() error { marked++; return nil })
	if err != nil || marked != 1 {
		t.Fatalf("resume: %v, marked %d times", err, marked)
	}
	if err := <-at.created; err != nil {
		t.Fatalf("create: %v: %s", err, at.target.log())
	}
	at.target.start()
	first := at.target.next()
	if first.n != at.last.n+1 {
		t.Errorf("the copy went on with %d after %d", first.n, at.last.n)
	}
	t.Logf("gap %s, frozen until resumed %s", first.at.Sub(at.last.at).Round(time.Millisecond),
		first.at.Sub(at.frozenAt).Round(time.Millisecond))
	for range 60 { // over a look at the heap
		at.target.next()
	}
	if err := at.a.dumps.End(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	if now := at.source.drain(at.last); now != at.last {
		t.Errorf("the source ran: %d, then %d", at.last.n, now.n)
	}
	if at.target.pid() == 0 || at.target.alive() != 1 {
		t.Errorf("pid %d, %d processes", at.target.pid(), at.target.alive())
	}
}

// TestMove is the good end: the copy goes on where the source stopped, which never runs
// again; and the copy can be moved again.
func TestMove(t *testing.T) {
	at := restored(t)
	at.resume(t)
	if out, err := at.source.runtime("delete", at.source.id).CombinedOutput(); err != nil {
		t.Errorf("delete the source: %v: %s", err, out)
	}
	at.source.started = false
	again := move(at.target, nil)
	d, err := at.a.dumps.Dump(within(t), again)
	if err != nil {
		t.Fatalf("dump the copy: %v", err)
	}
	if files, err := os.ReadDir(d.Dir); err != nil || len(files) == 0 {
		t.Errorf("images of the copy: %v, %v", files, err)
	}
	if err := inspect.Copy(filepath.Join(d.Dir, "main"), "/", at.target.bundle); err != nil {
		t.Errorf("a second move: %v", err)
	}
	if err := at.a.dumps.Release(within(t), again); err != nil {
		t.Fatal(err)
	}
	at.target.next()
	kill(t, "counter")
	at.a.expect("died " + at.target.id)
}

// TestTargetDeaths: whoever dies while the copy is held, nothing of it runs, and it can be
// ended; where the agent alone died the move can also be finished.
func TestTargetDeaths(t *testing.T) {
	deaths := map[string]func(*testing.T, *attempt){
		"nobody": func(*testing.T, *attempt) {},
		"script": func(t *testing.T, at *attempt) {
			killTarget(t, at, "drover-criu-hoo")
			at.a.expect("failed " + at.target.id)
		},
		"criu": func(t *testing.T, at *attempt) {
			killTarget(t, at, "criu")
			// cgroup v2 lets what is frozen die at once, v1 when it is thawed.
			if c, err := at.a.copies.Inspect(within(t), at.m); err != nil || c.Held && !c.Orphaned {
				t.Errorf("found %+v, %v; want that CRIU's death is seen", c, err)
			}
			marked := func() error { t.Error("a copy was let run that CRIU cannot let go"); return nil }
			if err := at.a.copies.Resume(within(t), at.m, at.target.id, marked); err == nil {
				t.Error("it was resumed")
			}
		},
		"wrapper": func(t *testing.T, at *attempt) {
			if err := at.create.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			at.a.expect("ended " + at.target.id)
		},
		"agent": func(_ *testing.T, at *attempt) { at.a = at.a.restart() },
		"agent-and-wrapper": func(t *testing.T, at *attempt) {
			at.a.stop()
			if err := at.create.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			at.a = startAgent(t)
		},
	}
	for who, die := range deaths {
		t.Run(who, func(t *testing.T) {
			at := restored(t)
			die(t, at)
			at.mustBeHeld(t)
			if err := at.a.copies.Kill(within(t), at.m); err != nil {
				t.Fatal(err)
			}
			at.mustBeGone(t)
			released(t, at.a, at.source, move(at.source, nil), at.last)
		})
	}
}

// killTarget kills the target's one: the source's has the container's ID in no group.
func killTarget(t *testing.T, at *attempt, comm string) {
	t.Helper()
	killed := false
	for _, p := range find(comm) {
		work, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID), "environ"))
		cgroup, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID), "cgroup"))
		if strings.Contains(string(work), "=pre-resume") || strings.Contains(string(cgroup), at.target.id) {
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			killed = true
		}
	}
	if !killed {
		t.Fatalf("no %s of the target", comm)
	}
}

// TestAgentReturns: an agent that dies while the copy is held can still resume it.
func TestAgentReturns(t *testing.T) {
	at := restored(t)
	at.a = at.a.restart()
	at.a.expect("held " + at.target.id)
	at.resume(t)
}

// TestMarkFails: without the mark nothing runs.
func TestMarkFails(t *testing.T) {
	at := restored(t)
	if err := at.a.copies.Resume(within(t), at.m, at.target.id, func() error { return errors.New("no space") }); err == nil {
		t.Fatal("resumed without a mark")
	}
	at.mustBeHeld(t)
	at.resume(t)
}

// TestRestoreFails: damaged images fail the create with CRIU's reason where containerd
// looks for it, and the same container can be tried again.
func TestRestoreFails(t *testing.T) {
	at := begin(t)
	good := at.images + ".good"
	run(t, "cp", "-r", at.images, good)
	defer os.RemoveAll(good)
	if err := os.Remove(filepath.Join(at.images, at.m.Containers[0].Name, "mm-1.img")); err != nil {
		t.Fatal(err)
	}
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	at.a.expect("failed " + at.target.id)
	if err := at.a.copies.Kill(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	at.mustBeGone(t)
	var last struct{ Level, Msg string }
	lines := strings.Split(strings.TrimSpace(at.target.log()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Level != "error" || !strings.Contains(last.Msg, "Error (") {
		t.Errorf("the last line of the log is %q (%v)", lines[len(lines)-1], err)
	}
	t.Log(last.Msg)
	at.target.lines = make(chan string, 10000)
	run(t, "rm", "-r", at.images)
	run(t, "cp", "-r", good, at.images)
	at.wait(t)
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	at.a.expect("held " + at.target.id)
	at.resume(t)
}

// TestRefused: a replacement whose move is off is not created.
func TestRefused(t *testing.T) {
	at := begin(t)
	if err := at.a.copies.Refuse(within(t), at.m, at.target.id, "the move was aborted"); err != nil {
		t.Fatal(err)
	}
	defer released(t, at.a, at.source, at.m, at.last)
	at.mustBeGone(t)
	if !strings.Contains(at.target.log(), "the move was aborted") {
		t.Errorf("log: %s", at.target.log())
	}
}

// TestAgentAway: a create that finds no agent waits for it.
func TestAgentAway(t *testing.T) {
	at := begin(t)
	at.a.stop()
	at.a = startAgent(t)
	at.a.expect("waits " + at.target.id)
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	at.a.expect("held " + at.target.id)
	at.resume(t)
}

// TestCrashAfterMove: a container that crashes after its move starts fresh, without the agent.
func TestCrashAfterMove(t *testing.T) {
	at := restored(t)
	at.resume(t)
	r := fence.Restored{PodUID: at.target.podUID, Migration: at.m.Name, Epoch: 1}
	if err := layout.Default.Restored().Write(r); err != nil {
		t.Fatal(err)
	}
	defer layout.Default.Restored().Remove(r.PodUID)
	kill(t, "counter")
	at.a.expect("died " + at.target.id)
	at.a.stop()
	next := newContainer(t, "dst2", map[string]string{"drover.dev/migration": at.m.Name, "io.kubernetes.cri.sandbox-uid": at.target.podUID})
	next.run()
	if first := next.next(); first.n != 0 {
		t.Errorf("it went on with %d", first.n)
	}
}

// TestFenced: neither create nor start brings a fenced pod back.
func TestFenced(t *testing.T) {
	if err := layout.Default.Prepare(); err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, "src", nil)
	f := fence.Fence{PodUID: c.podUID, Epoch: 3, Migration: "default/m"}
	if _, wait := c.create(); wait() != nil {
		t.Fatal(c.log())
	}
	if err := layout.Default.Fences().Write(f); err != nil {
		t.Fatal(err)
	}
	if out, err := c.runtime("start", c.id).CombinedOutput(); err == nil || !strings.Contains(string(out), "fenced") {
		t.Errorf("start: %v: %s", err, out)
	}
	if out, err := c.runtime("delete", "--force", c.id).CombinedOutput(); err != nil {
		t.Fatalf("delete: %v: %s", err, out)
	}
	c.lines = make(chan string, 10)
	if _, wait := c.create(); wait() == nil {
		t.Error("created a fenced pod's container")
	}
	t.Log(c.log())
	if err := layout.Default.Fences().Lift(c.podUID, 3); err != nil {
		t.Fatal(err)
	}
	c.lines = make(chan string, 1000)
	c.run()
	c.next()
}
