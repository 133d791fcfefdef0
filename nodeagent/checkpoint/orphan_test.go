package checkpoint

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

// groups is a node whose containers' control groups are named by their paths.
type groups map[string]cgroup.Group

func (g groups) Container(_ int, path string) (cgroup.Group, error) { return g[path], nil }
func (g groups) At(path string) (cgroup.Group, error)               { return g[path], nil }

// kept makes a container of a pod, with its note and a process in a frozen group of its own.
// What it gives is closed at the end of the process.
func (g groups) kept(t *testing.T, l layout.Layout, uid, id string) (process.Process, <-chan struct{}) {
	t.Helper()
	h, err := cgroup.Own()
	if err != nil {
		t.Skip(err)
	}
	group, err := h.At(fmt.Sprintf("/drover-test-%d-%s", os.Getpid(), id))
	if err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(group.String(), 0o755); err != nil {
		t.Skipf("cannot make a group here: %v", err)
	}
	g["/"+id] = group
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = group.Thaw()
		<-ended
		if err := os.Remove(group.String()); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(group.String()+"/cgroup.procs", []byte(fmt.Sprint(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteContainer(layout.Container{ID: id, PodUID: uid, CgroupsPath: "/" + id}); err != nil {
		t.Fatal(err)
	}
	if err := group.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	init, err := process.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return init, ended
}

// A pod that nobody wants any more is ended where it stands, with its dump; others are not
// touched: one that is held, one that was paused by somebody else.
func TestEndPod(t *testing.T) {
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	g := groups{}
	d := New(Config{Layout: l, Groups: g, Log: slog.New(slog.DiscardHandler)})
	inits, ended := map[string]process.Process{}, map[string]<-chan struct{}{}
	for id, uid := range map[string]string{"c1": "gone", "c2": "gone", "c3": "here", "c4": "paused", "c5": "bare"} {
		inits[id], ended[id] = g.kept(t, l, uid, id)
	}
	for _, uid := range []string{"gone", "here", "bare"} {
		if err := l.Fences().Write(fence.Fence{PodUID: uid, Epoch: 2, Migration: "ns/m"}); err != nil {
			t.Fatal(err)
		}
	}
	for id, dump := range map[string]string{"c1": "m-2", "c2": "m-2", "c3": "n-2"} {
		c, err := l.ReadContainer(id)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(l.Dumps(), dump, partDir, id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := layout.WriteNote(filepath.Join(dir, noteFile), note{PodUID: c.PodUID, ContainerID: id, Init: inits[id], CgroupsPath: c.CgroupsPath}); err != nil {
			t.Fatal(err)
		}
	}
	uids, err := d.Pods()
	slices.Sort(uids)
	if uids = slices.Compact(uids); err != nil || !slices.Equal(uids, []string{"bare", "gone", "here"}) {
		t.Fatalf("held: %v, %v", uids, err)
	}
	for _, uid := range []string{"gone", "bare"} {
		if err := d.EndPod(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
	}
	for id, alive := range map[string]bool{"c1": false, "c2": false, "c3": true, "c4": true, "c5": false} {
		if !alive {
			<-ended[id]
		}
		frozen, err := g["/"+id].Frozen()
		if inits[id].Alive() != alive || frozen != alive || err != nil {
			t.Errorf("%s: alive %v, frozen %v, %v; want both %v", id, inits[id].Alive(), frozen, err, alive)
		}
	}
	left, err := os.ReadDir(l.Dumps())
	if err != nil || len(left) != 1 || left[0].Name() != "n-2" {
		t.Errorf("dumps: %v, %v, want n-2 alone", left, err)
	}
	// kubelet may forget a pod that is ended, and must not start it again.
	if f, err := l.Fences().Check("gone"); f == nil || err != nil {
		t.Errorf("fence: %v, %v", f, err)
	}
	if uids, err := d.Pods(); err != nil || !slices.Equal(slices.Compact(uids), []string{"here"}) {
		t.Errorf("held afterwards: %v, %v", uids, err)
	}
}

// exiting is a node on which the processes that are looked for are on their way out: cgroup v1
// has them in the root.
type exiting struct{ groups }

func (exiting) Container(int, string) (cgroup.Group, error) {
	return cgroup.Group{}, errors.New("it is in the root")
}

// A container that was killed and whose first process waits for CRIU to let go of its threads is
// still found, and CRIU's script still held: otherwise each would wait for the other for ever.
func TestKilledInitWaitsForCRIU(t *testing.T) {
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	g := groups{}
	init, _ := g.kept(t, l, "u1", "c1")
	d := New(Config{Layout: l, Groups: exiting{g}, Log: slog.New(slog.DiscardHandler)})
	images := filepath.Join(l.Dumps(), "m-2", imageDir, "c1")
	dir := filepath.Join(l.Dumps(), "m-2", partDir, "c1")
	for _, made := range []string{images, dir} {
		if err := os.MkdirAll(made, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := layout.WriteNote(filepath.Join(dir, noteFile), note{PodUID: "u1", ContainerID: "c1", Init: init, CgroupsPath: "/c1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.group(part{dir: dir}); err == nil {
		t.Error("one that lives is looked for by its bundle")
	}
	if err := init.Kill(); err != nil {
		t.Fatal(err)
	}
	if got, err := d.group(part{dir: dir}); err != nil || got != g["/c1"] {
		t.Errorf("found %v, %v; want %v", got, err, g["/c1"])
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Hold(t.Context(), runtimeapi.Hold{InitPID: init.PID, ImageDir: images})
		done <- err
	}()
	for {
		d.mu.Lock()
		h, changed := d.holds[images], d.changed
		d.mu.Unlock()
		if h != nil {
			h.proceed <- false
			break
		}
		select {
		case <-changed:
		case err := <-done:
			t.Fatalf("the script is not held: %v", err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
