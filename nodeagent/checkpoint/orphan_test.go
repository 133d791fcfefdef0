package checkpoint

import (
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
