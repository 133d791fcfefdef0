package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/cgroup"
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

// A process that was killed while its group is frozen does not run when it is thawed; one that
// is merely stopped would.
func TestDying(t *testing.T) {
	h, err := cgroup.Own()
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.At(fmt.Sprintf("/drover-test-dying-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(g.String(), 0o755); err != nil {
		t.Fatalf("make a group (the test needs root): %v", err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = g.Thaw()
		_ = cmd.Wait()
		if err := os.Remove(g.String()); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(g.String()+"/cgroup.procs", []byte(fmt.Sprint(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if p.Dying() || p.Doomed() {
		t.Error("frozen, with another signal pending: dying")
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	// With cgroup v2 what is frozen dies at once, with v1 when it is thawed.
	for end := time.Now().Add(10 * time.Second); !p.Doomed(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("killed while frozen: alive %v, dying %v", p.Alive(), p.Dying())
		}
	}
	if other := (Process{PID: p.PID, Start: p.Start - 1}); other.Dying() {
		t.Error("another process with the PID counts as dying")
	}
}
