package restore

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

var move = migrate.Move{Target: migrate.Pod{UID: "uid-1"}}

// deaf is told everything and does nothing.
type deaf struct{}

func (deaf) CreateWaits(migrate.Create)         {}
func (deaf) CreateEnded(string, string)         {}
func (deaf) RestoreHeld(string, string)         {}
func (deaf) RestoreEnded(string, string, error) {}
func (deaf) ContainerEnded(string)              {}

// one is a node with a single group, in which every process is.
type one struct{ cgroup.Group }

func (o one) Container(int, string) (cgroup.Group, error) { return o.Group, nil }
func (o one) At(string) (cgroup.Group, error)             { return o.Group, nil }
func (o one) Join(string, int) error                      { return nil }
func (o one) Rouse(int) error                             { return nil }

// bench is an agent that finds container c1 in some stage; the test itself plays the wrapper
// and CRIU's script.
type bench struct {
	*Copies
	group cgroup.Group
	init  *exec.Cmd
	note  note
}

func newBench(t *testing.T, s stage) *bench {
	t.Helper()
	b := &bench{init: exec.Command("sleep", "600"), group: emptyGroup(t)}
	if err := b.init.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.die)
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	self, err := process.Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	init, err := process.Of(b.init.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	b.note = note{PodUID: move.Target.UID, ID: "c1", Images: filepath.Join(l.Images(), "m-2"),
		CgroupsPath: "/x", Wrapper: self, Init: init, Script: self, Stage: s}
	b.Copies = New(Config{Layout: l, Groups: one{b.group}, Log: slog.New(slog.DiscardHandler)})
	if err := b.write(b.note); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, deaf{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-b.ready
	return b
}

// emptyGroup makes a control group that can be frozen.
func emptyGroup(t *testing.T) cgroup.Group {
	t.Helper()
	h, err := cgroup.Own()
	if err != nil {
		t.Skip(err)
	}
	g, err := h.At(fmt.Sprintf("/drover-test-restore-%d", os.Getpid()))
	if err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(g.String(), 0o755); err != nil {
		t.Skipf("cannot make a group here: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(g.String()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// die ends the copy's first process.
func (b *bench) die() {
	_ = b.init.Process.Kill()
	_ = b.init.Wait()
}

// hold calls as CRIU's script does.
func (b *bench) hold(ctx context.Context) (bool, error) {
	return b.Hold(ctx, runtimeapi.Hold{ImageDir: b.note.Images, InitPID: b.note.Init.PID, Script: b.note.Script})
}

// await calls as drover-runc does.
func (b *bench) await(ctx context.Context) error {
	return b.Await(ctx, runtimeapi.Create{Wrapper: b.note.Wrapper, Request: &agentv1.AwaitRestoreRequest{
		PodUid: b.note.PodUID, ContainerId: b.note.ID, Restoring: true}}, nil)
}

// TestAgentDiesBetweenThawAndAnswer: CRIU's script that calls the next agent may go on.
func TestAgentDiesBetweenThawAndAnswer(t *testing.T) {
	b := newBench(t, running)
	if proceed, err := b.hold(t.Context()); err != nil || !proceed {
		t.Errorf("got %v, %v; the copy runs, and CRIU must let go of it", proceed, err)
	}
	if h, _ := b.both(b.note.ID); h != nil {
		t.Error("the script counts as held")
	}
}

// TestHoldOfADeadCopy: the copy was killed while the agent was away, and its script calls the
// next one. It is let go, whether that has cleared the copy away already or not; it was asked
// to call again, for ever.
func TestHoldOfADeadCopy(t *testing.T) {
	for name, clear := range map[string]bool{"noted": false, "cleared away": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, held)
			b.die()
			if clear {
				if err := b.forget(b.note); err != nil {
					t.Fatal(err)
				}
			}
			if proceed, err := b.hold(t.Context()); err != nil || proceed {
				t.Errorf("got %v, %v; want that CRIU is let go and told of no copy", proceed, err)
			}
		})
	}
}

// TestAgentDiesBetweenMarkAndThaw: whichever of Resume and the script comes first to the
// next agent, the copy is thawed and the script answered.
func TestAgentDiesBetweenMarkAndThaw(t *testing.T) {
	b := newBench(t, running)
	for range 200 {
		if err := b.group.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		let := make(chan error, 1)
		go func() {
			proceed, err := b.hold(t.Context())
			if err == nil && !proceed {
				err = fmt.Errorf("told not to proceed")
			}
			let <- err
		}()
		marked := false
		if err := b.Resume(t.Context(), move, b.note.ID, func() error { marked = true; return nil }); err != nil {
			t.Fatal(err)
		}
		if !marked {
			t.Fatal("who asks is not told that there is no way back")
		}
		if err := <-let; err != nil {
			t.Fatal(err)
		}
	}
}

// TestResumeOfADeadCopy: memory runs out and the kernel kills the copy while it is held;
// CRIU's script and the wrapper are there all the same.
func TestResumeOfADeadCopy(t *testing.T) {
	b := newBench(t, held)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	go func() { _, _ = b.hold(ctx); ended <- struct{}{} }()
	go func() { _ = b.await(ctx); ended <- struct{}{} }()
	defer func() { cancel(); <-ended; <-ended }()
	if err := b.until(t.Context(), func() bool { return b.holds["c1"] != nil && b.waiters["c1"] != nil }); err != nil {
		t.Fatal(err)
	}
	b.die()
	err := b.Resume(ctx, move, b.note.ID, func() error {
		t.Error("marked as about to run, which the driver takes for a copy that ran")
		return context.Canceled
	})
	if err == nil {
		t.Error("resumed")
	}
	if frozen, err := b.group.Frozen(); err != nil || !frozen {
		t.Errorf("frozen %v, %v", frozen, err)
	}
	if n, err := b.read(b.note.ID); err != nil || n == nil || n.Stage != held {
		t.Errorf("got note %+v, %v", n, err)
	}
}

// in puts the copy's first process into its group, frozen; what it gives is closed at its end.
func (b *bench) in(t *testing.T) <-chan struct{} {
	t.Helper()
	if err := os.WriteFile(b.group.String()+"/cgroup.procs", []byte(fmt.Sprint(b.note.Init.PID)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.group.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() { _ = b.init.Wait(); close(reaped) }()
	t.Cleanup(func() { _ = b.init.Process.Kill(); _ = b.group.Thaw(); <-reaped })
	return reaped
}

// What was thawed by somebody runs; what was killed does not, thawed or not.
func TestInspectTellsWhatDies(t *testing.T) {
	b := newBench(t, held)
	b.in(t)
	for _, step := range []struct {
		do                   func() error
		alive, frozen, dying bool
	}{
		{func() error { return nil }, true, true, false},
		{b.group.Thaw, true, false, false},
		{func() error { return b.group.Freeze(t.Context()) }, true, true, false},
		{b.init.Process.Kill, true, true, true},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		c, err := b.Inspect(t.Context(), move)
		if err != nil || c.Alive != step.alive || c.Frozen != step.frozen || c.Dying != step.dying {
			t.Errorf("found %+v, %v; want %+v", c, err, step)
		}
	}
}

// A copy that was not let run and that nobody wants any more is killed where it stands, and its
// note goes; one that runs is kubelet's.
func TestEndPod(t *testing.T) {
	for s, ended := range map[stage]bool{begun: true, held: true, running: false} {
		t.Run(string(s), func(t *testing.T) {
			b := newBench(t, s)
			n := b.note
			n.Wrapper = process.Process{} // has ended
			if err := b.write(n); err != nil {
				t.Fatal(err)
			}
			reaped := b.in(t)
			uids, err := b.Pods()
			if err != nil || (len(uids) == 1 && uids[0] == n.PodUID) != ended {
				t.Errorf("held: %v, %v", uids, err)
			}
			if err := b.EndPod(t.Context(), n.PodUID); err != nil {
				t.Fatal(err)
			}
			if ended {
				<-reaped
			}
			if left, err := b.read(n.ID); err != nil || (left == nil) != ended || n.Init.Alive() == ended {
				t.Errorf("note %+v, %v, alive %v", left, err, n.Init.Alive())
			}
		})
	}
}
