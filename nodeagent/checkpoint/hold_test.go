package checkpoint

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

// TestHoldOfOthers: kubelet's checkpoint API, or ctr, on a container that Drover has once
// dumped finds CRIU's options file that names Drover's script.
func TestHoldOfOthers(t *testing.T) {
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	d := New(Config{Layout: l})
	for images, want := range map[string]struct{ proceed, fails bool }{
		"/var/lib/kubelet/checkpoints/x/images":        {proceed: true},
		filepath.Join(l.Dumps(), "m-2", "images", "c"): {}, // undone before it came here
		filepath.Join(l.Dumps(), "m-2", "work"):        {fails: true},
		filepath.Join(l.Dumps(), "m-2", "images"):      {fails: true},
		filepath.Join(l.Dumps(), "m-2", "x", "y"):      {fails: true},
		filepath.Join(l.Images(), "m-2", "images"):     {fails: true},
		filepath.Join(l.State+"-old", "m", "images"):   {proceed: true},
	} {
		proceed, err := d.Hold(t.Context(), runtimeapi.Hold{ImageDir: images, InitPID: 1})
		if proceed != want.proceed || (err != nil) != want.fails {
			t.Errorf("%s: got %v, %v, want %+v", images, proceed, err, want)
		}
	}
}

// A record that names another pod's container moves, shows and ends nothing.
func TestContainerOfAnotherPod(t *testing.T) {
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteContainer(layout.Container{ID: "c0ffee", PodUID: "victim", CgroupsPath: "/kubepods/podvictim/c0ffee"}); err != nil {
		t.Fatal(err)
	}
	d := New(Config{Layout: l})
	m := migrate.Move{Namespace: "x", Name: "m", UID: "uid-m", Epoch: 2, Containers: []migrate.Container{{Name: "main", ID: "c0ffee"}}, Source: migrate.Pod{UID: "attacker"}}
	if _, err := d.Inspect(t.Context(), m); err == nil {
		t.Error("inspected")
	}
	if err := d.End(t.Context(), m); err == nil {
		t.Error("ended")
	}
	if c, err := d.container(part{move: m, Container: m.Containers[0]}); err == nil {
		t.Errorf("container %+v is taken for the move's", c)
	}
	m.Source.UID = "victim"
	if c, err := d.container(part{move: m, Container: m.Containers[0]}); err != nil || c == nil {
		t.Errorf("its own container: %+v, %v", c, err)
	}
}

// TestHoldOfAnEndedContainer: the script that calls an agent which has already ended the
// container is let go; it was never told so, and CRIU and runc stayed for ever.
func TestHoldOfAnEndedContainer(t *testing.T) {
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	d, dump := New(Config{Layout: l}), filepath.Join(l.Dumps(), "m-2")
	ended := process.Process{PID: os.Getpid(), Start: 1}
	part := filepath.Join(dump, partDir, "c")
	if err := os.MkdirAll(part, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := layout.WriteNote(filepath.Join(part, noteFile), note{ContainerID: "c", Init: ended}); err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(dump, imageDir, "c")
	let := make(chan error, 1)
	go func() {
		proceed, err := d.Hold(t.Context(), runtimeapi.Hold{ImageDir: images, InitPID: ended.PID})
		if err == nil && !proceed {
			err = errors.New("told not to proceed")
		}
		let <- err
	}()
	for {
		d.mu.Lock()
		h, changed := d.holds[images], d.changed
		d.mu.Unlock()
		if h != nil {
			h.proceed <- true
			break
		}
		select {
		case <-changed:
		case err := <-let:
			t.Fatalf("it does not wait to be let go: %v", err)
		}
	}
	if err := <-let; err != nil {
		t.Error(err)
	}
}

// only is a node with one control group.
type only struct{ cgroup.Group }

func (o only) Container(int, string) (cgroup.Group, error) { return o.Group, nil }
func (o only) At(string) (cgroup.Group, error)             { return o.Group, nil }

// sleeps starts a process with a child, which is given.
func sleeps(t *testing.T) (parent, child process.Process) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo; wait")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	parent, err = process.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	below, err := parent.Below()
	if err != nil || len(below) != 1 {
		t.Fatalf("below the shell: %v, %v", below, err)
	}
	t.Cleanup(func() {
		_ = below[0].Kill()
		_ = cmd.Wait()
	})
	return parent, below[0]
}

// TestCutOff: CRIU is ended only when nothing of its container is left.
func TestCutOff(t *testing.T) {
	h, err := cgroup.Own()
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.At(fmt.Sprintf("/drover-test-cutoff-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(g.String(), 0o755); err != nil {
		t.Fatalf("make a group (the test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(g.String()); err != nil {
			t.Error(err)
		}
	})
	init, other := sleeps(t)
	runc, criu := sleeps(t)
	p := part{dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(p.dir, runDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, v := range map[string]any{noteFile: note{ContainerID: "c", Init: init}, filepath.Join(runDir, "pid"): runc} {
		if err := layout.WriteNote(filepath.Join(p.dir, path), v); err != nil {
			t.Fatal(err)
		}
	}
	d := New(Config{Groups: only{g}, Log: slog.New(slog.DiscardHandler)})
	if err := d.cutOff(p, filepath.Join(p.dir, runDir)); err != nil || criu.Doomed() {
		t.Fatalf("its first process lives, if elsewhere: %v, CRIU ended %v", err, criu.Doomed())
	}
	if err := os.WriteFile(filepath.Join(g.String(), "cgroup.procs"), []byte(fmt.Sprint(other.PID)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(init.Kill(), init.Wait(t.Context()), d.cutOff(p, filepath.Join(p.dir, runDir))); err != nil || criu.Doomed() {
		t.Fatalf("another of its processes lives: %v, CRIU ended %v", err, criu.Doomed())
	}
	if err := errors.Join(g.Kill(t.Context()), d.cutOff(p, filepath.Join(p.dir, runDir)), criu.Wait(t.Context())); err != nil {
		t.Error(err)
	}
}
