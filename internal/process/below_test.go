package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestBelow(t *testing.T) {
	dir := t.TempDir()
	// The shell says on its pipe that both are there.
	cmd := exec.Command("sh", "-c", `sh -c 'sleep 1000 & echo $! > "$0/grandchild"; echo; wait' "$0" & echo $! > "$0/child"; wait`, dir)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	root, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	var below []Process
	t.Cleanup(func() {
		for _, p := range below {
			_ = p.Kill()
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if below, err = root.Below(); err != nil || len(below) != 2 {
		t.Fatalf("got %v, %v; want a child and its child", below, err)
	}
	for i, name := range []string{"child", "grandchild"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(want)) != strconv.Itoa(below[i].PID) || !below[i].Alive() {
			t.Errorf("got %v as the %s, want %s, %v", below[i], name, want, err)
		}
	}
	if got, err := (Process{PID: root.PID, Start: root.Start - 1}).Below(); err != nil || len(got) != 0 {
		t.Errorf("below an earlier owner of the PID: %v, %v", got, err)
	}
	if got := below[1].Where(); !strings.Contains(got, "state ") || !strings.Contains(got, strconv.Itoa(below[1].PID)) {
		t.Errorf("where it is: %q", got)
	}
	if got := (Process{PID: root.PID, Start: root.Start - 1}).Where(); !strings.Contains(got, "ended") {
		t.Errorf("where an earlier owner of the PID is: %q", got)
	}
}
