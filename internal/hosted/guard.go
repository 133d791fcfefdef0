package hosted

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

// guard runs a command without which the processes of a container cannot live on, and empties
// the container's group if the command comes to an end that is not a good one.
//
// Such a command is CRIU's lazy-pages daemon. It alone has the userfaultfds by which the
// container's missing memory is filled in. When the last descriptor of one is closed, the
// kernel gives zeros for whatever is still missing (fs/userfaultfd.c, userfaultfd_release), and
// the processes would run on with them. So the command is traced and stopped where it is about
// to exit, whatever the reason, with its files still open (ptrace(2), PTRACE_EVENT_EXIT). Until
// it is let go on, who touches missing memory waits. If this process is killed, the command
// runs on; whoever waits for this process has to see to the container.
//
// The calling goroutine must be bound to its thread: a tracer is one.
func guard(cmd *exec.Cmd, c Command, started *os.File) (Exit, error) {
	dir := c.Dir
	group, err := groupAt(c.Guard)
	if err != nil {
		return Exit{}, err
	}
	ready, w, err := os.Pipe()
	if err != nil {
		return Exit{}, err
	}
	defer ready.Close()
	cmd.ExtraFiles = []*os.File{w}
	// The command inherits this. A node that is shut down asks all processes to end at once, and
	// lets pods take their time.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	// And this: a dump of its core would have a pod's memory in it.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return Exit{}, fmt.Errorf("forbid dumps of core: %w", err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	err = startBeside(cmd, c.Beside)
	if err == nil {
		err = cmd.Start()
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if err != nil {
		return Exit{}, err
	}
	pid := cmd.Process.Pid
	if err := traceExit(pid, dir); err != nil {
		return Exit{}, errors.Join(err, cmd.Process.Kill())
	}
	var said atomic.Bool
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		if n, _ := ready.Read(make([]byte, 1)); n == 1 {
			said.Store(true)
			started.Close()
		}
	}()
	exit, err := untilExit(pid, func(exit Exit) {
		// Told first: whoever sees the container end can find out why. Its end matters more.
		_ = layout.WriteNote(filepath.Join(dir, exitFile), exit)
		bury(group)
	})
	<-heard // whoever could still write has ended
	if err == nil && !said.Load() {
		err = fmt.Errorf("it ended before it was ready (exit code %d): %s", exit.Code, Output(dir, 400))
	}
	return exit, err
}

// groupAt is the control group of a container. The group itself may be yet to come. Where even its parent
// is missing the runtime means another place by that path, as in a node that is a container itself, and
// nobody would be found there.
func groupAt(cgroupsPath string) (cgroup.Group, error) {
	groups, err := cgroup.Host()
	if err != nil {
		return cgroup.Group{}, err
	}
	group, err := groups.At(cgroupsPath)
	if err != nil {
		return cgroup.Group{}, err
	}
	if _, err := os.Stat(filepath.Dir(group.String())); err != nil {
		return cgroup.Group{}, fmt.Errorf("the control group of the container is not at %s: %w", group, err)
	}
	return group, nil
}

// startBeside starts what runs beside a command that is to be started, and hands that its end of the
// sockets between them. It is reaped with all that the command leaves behind.
func startBeside(cmd *exec.Cmd, args []string) error {
	if len(args) == 0 {
		return nil
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a pair of sockets: %w", err)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(ends[0]), "ours"))
	theirs := os.NewFile(uintptr(ends[1]), "theirs")
	defer theirs.Close()
	beside := exec.Command(args[0], args[1:]...)
	beside.Stdout, beside.Stderr, beside.ExtraFiles = cmd.Stdout, cmd.Stderr, []*os.File{theirs}
	return beside.Start()
}

// traceExit has the command, which stops when it is executed, stop again before it exits, and
// notes which process it is.
func traceExit(pid int, dir string) error {
	if _, err := waitFor(pid); err != nil {
		return err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT); err != nil {
		return fmt.Errorf("trace the exit of process %d: %w", pid, err)
	}
	p, err := process.Of(pid)
	if err != nil {
		return err
	}
	if err := layout.WriteNote(filepath.Join(dir, guardedFile), p); err != nil {
		return err
	}
	return resume(pid, 0)
}

// untilExit returns how the process has ended; failed is called before a bad end, while its
// files are open.
func untilExit(pid int, failed func(Exit)) (Exit, error) {
	for {
		s, err := waitFor(pid)
		if err != nil {
			return Exit{}, err
		}
		passOn := unix.Signal(0)
		switch {
		case s.Exited() || s.Signaled():
			return exitOf(s), nil
		case s.Stopped() && s.TrapCause() == unix.PTRACE_EVENT_EXIT:
			status, err := unix.PtraceGetEventMsg(pid)
			if err != nil {
				failed(Exit{Code: -1, Error: err.Error()})
			} else if exit := exitOf(unix.WaitStatus(status)); exit != (Exit{}) {
				failed(exit)
			}
		case s.Stopped() && s.StopSignal() != unix.SIGTRAP:
			passOn = s.StopSignal()
		}
		if err := resume(pid, passOn); err != nil {
			return Exit{}, err
		}
	}
}

func exitOf(s unix.WaitStatus) Exit {
	if s.Signaled() {
		return Exit{Code: -1, Error: "signal: " + s.Signal().String()}
	}
	return Exit{Code: s.ExitStatus()}
}

func waitFor(pid int) (unix.WaitStatus, error) {
	var s unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &s, unix.WALL, nil)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return s, fmt.Errorf("wait for process %d: %w", pid, err)
		}
	}
}

// resume lets a stopped process go on. One that is gone, by SIGKILL, is waited for as any.
func resume(pid int, signal unix.Signal) error {
	if err := unix.PtraceCont(pid, int(signal)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("let process %d go on: %w", pid, err)
	}
	return nil
}

// bury empties the group, however long that takes: what is in it waits for memory meanwhile.
func bury(group cgroup.Group) {
	const pause = 100 * time.Millisecond
	for group.KillStuck(context.Background()) != nil {
		time.Sleep(pause)
	}
}
