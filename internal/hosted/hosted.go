// Package hosted runs a command that belongs to the node and not to the container that
// started it: in the node's namespaces and in a control group of its own, so that it lives
// on when the agent's container is killed, and an agent that comes back finds out how it
// ended. CRIU must not die with the agent in the middle of a dump.
//
// Start is called by the agent; it runs drover-runc with the hidden verb of Main, which
// enters the node, runs the command, and writes down what came of it.
package hosted

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/layout"
)

// Verb is the hidden verb of drover-runc that leads to Main.
const Verb = "drover-hosted"

// files in the command's directory.
const (
	pidFile    = "pid"
	exitFile   = "exit"
	outputFile = "output"
)

// Command is what to run.
type Command struct {
	// Program is drover-runc as the caller reaches it.
	Program string
	// Dir is a directory for this command alone, the same for the caller and the node. It
	// must exist and hold no earlier command.
	Dir string
	// Cgroup is the path of the control group to run in.
	Cgroup string
	// Args is the command line; the program is looked up on the node.
	Args []string
}

// process identifies a process beyond the reuse of its PID.
type process struct {
	PID int `json:"pid"`
	// Start is field 22 of /proc/PID/stat: clock ticks since boot.
	Start uint64 `json:"start"`
}

// Exit is how a command ended.
type Exit struct {
	Code int `json:"code"`
	// Error is set when the command could not be run.
	Error string `json:"error,omitempty"`
}

// Start runs the command and returns when it is noted in Dir, from where Wait finds it.
func Start(c Command) error {
	args := append([]string{Verb, c.Dir, c.Cgroup}, c.Args...)
	cmd := exec.Command(c.Program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w} // descriptor 3: closed when it is on its way
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("run %q on the node: %w", c.Args, err)
	}
	go cmd.Wait() // reaps; how it ended is told by the file
	message := make([]byte, 4096)
	if n, _ := r.Read(message); n > 0 {
		return fmt.Errorf("run %q on the node: %s", c.Args, message[:n])
	}
	return nil
}

// Running tells whether the command that was started in dir still runs.
func Running(dir string) (bool, error) {
	fd, err := open(dir)
	if fd >= 0 {
		unix.Close(fd)
	}
	return fd >= 0, err
}

// Wait returns how the command in dir ended, now or already. ok is false when nothing was
// started there, or when it was killed before it could write that down. An error is ctx's.
func Wait(ctx context.Context, dir string) (exit Exit, ok bool, err error) {
	fd, err := open(dir)
	if err != nil {
		return Exit{}, false, err
	}
	if fd >= 0 {
		err := waitPidfd(ctx, fd)
		unix.Close(fd)
		if err != nil {
			return Exit{}, false, err
		}
	}
	ok, err = layout.ReadNote(filepath.Join(dir, exitFile), &exit)
	return exit, ok, err
}

// Output returns the end of what the command wrote, for a message: at most limit bytes.
func Output(dir string, limit int) string {
	data, err := os.ReadFile(filepath.Join(dir, outputFile))
	if err != nil {
		return ""
	}
	if len(data) > limit {
		data = data[len(data)-limit:]
	}
	return strings.TrimSpace(string(data))
}

// open returns a pidfd of the command in dir, -1 when it does not run.
func open(dir string) (int, error) {
	var p process
	ok, err := layout.ReadNote(filepath.Join(dir, pidFile), &p)
	if err != nil || !ok {
		return -1, err
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("watch process %d: %w", p.PID, err)
	}
	// Compared after the pidfd is held: from here on the PID cannot change its owner unseen.
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		unix.Close(fd)
		return -1, nil
	}
	return fd, nil
}

// waitPidfd returns nil when the process has ended.
func waitPidfd(ctx context.Context, fd int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer func() {
		if stop() {
			w.Close()
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for a process: %w", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// startTime reads field 22 of /proc/PID/stat; the command's name in parentheses may hold
// anything.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	f := strings.Fields(rest)
	if len(f) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %w", pid, fs.ErrInvalid)
	}
	if f[0] == "Z" {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(f[19], 10, 64)
}
