package process

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
)

func TestLifeOfAProcess(t *testing.T) {
	// A name with a parenthesis and spaces must not shift the fields.
	path := t.TempDir() + "/a) R 1 ("
	if err := os.Symlink("/bin/sleep", path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Of(cmd.Process.Pid)
	if err != nil || !p.Alive() {
		t.Fatalf("got %+v alive=%v, %v", p, p.Alive(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait with a cancelled context: %v", err)
	}
	other := Process{PID: p.PID, Start: p.Start - 1}
	if other.Alive() {
		t.Error("a process with another start counts as the same")
	}
	if err := other.Kill(); err != nil || !p.Alive() {
		t.Errorf("killing an earlier owner of the PID: %v, alive=%v", err, p.Alive())
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p.Alive() { // a zombie as yet
		t.Error("alive after it ended")
	}
	if _, err := Of(p.PID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a zombie has a name: %v", err)
	}
	cmd.Wait()
	if err := p.Kill(); err != nil {
		t.Errorf("kill after the end: %v", err)
	}
	if (Process{}).Alive() {
		t.Error("nobody is alive")
	}
}
