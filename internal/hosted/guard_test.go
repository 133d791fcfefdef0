package hosted

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGuardWithoutGroup: nothing is begun for a container that could not be found to be ended.
func TestGuardWithoutGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("true")
	if _, err := guard(cmd, Command{Dir: t.TempDir(), Guard: "/drover-test-nowhere/pod/container"}, w); err == nil {
		t.Error("no error")
	}
	if cmd.Process != nil {
		t.Error("it was started")
	}
}

// TestKilledAgain: a command that was killed keeps its files open until its container has been
// seen to, also when it is killed again meanwhile.
func TestKilledAgain(t *testing.T) {
	runtime.LockOSThread() // never given back: it traces
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("sleep", "600")
	cmd.ExtraFiles, cmd.SysProcAttr = []*os.File{w}, &syscall.SysProcAttr{Ptrace: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := traceExit(pid, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	seen := 0
	exit, err := untilExit(pid, func(Exit) {
		seen++
		for range 100 {
			_, _ = unix.Kill(pid, unix.SIGKILL), unix.Tgkill(pid, pid, unix.SIGKILL)
		}
		const long = 200 // ms
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.Fd())}}, long); n != 0 || err != nil {
			t.Errorf("its files were closed before it was let go on: %v", err)
		}
	})
	if err != nil || exit.Code != -1 || seen != 1 {
		t.Errorf("got %+v, %v, told %d times", exit, err, seen)
	}
}
