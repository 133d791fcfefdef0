package hosted

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/internal/thread"
)

// punctual is how late timers may be by the kernel's default (prctl(2), PR_SET_TIMERSLACK).
const punctual = 50 * time.Microsecond

// Main is the hidden verb: args are the control group's path; the command comes by descriptor 4.
// It returns the process's exit code.
func Main(args []string) int {
	started, orders := os.NewFile(3, "started"), os.NewFile(4, "command")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	if len(args) != 1 {
		usage := fmt.Sprintf("usage: drover-runc %s CGROUP, with a command on descriptor 4; the agent is of another version", Verb)
		fmt.Fprintln(os.Stderr, usage)
		fmt.Fprint(started, usage)
		return 2
	}
	// The agent rests with timers that may be late, and who is started has them so: what runs while a pod
	// stands still must not. Otherwise it is later, and that is all.
	_ = thread.Slack(punctual)
	// Namespaces are a thread's; the command is a child of this one.
	runtime.LockOSThread()
	err := enter(args[0])
	if err == nil {
		// What the command leaves behind when it is killed comes to this process.
		err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	if err != nil {
		fmt.Fprint(started, err)
		return 1
	}
	var c Command
	if json.NewDecoder(orders).Decode(&c) != nil {
		return 0 // whoever kept this process ready has ended, or needs it no more
	}
	orders.Close()
	if err = note(c.Dir); err != nil {
		fmt.Fprint(started, err)
		return 1
	}
	exit, err := runIn(c, started)
	if err != nil {
		fmt.Fprint(started, err)
		return 1
	}
	waitForOrphans()
	if err := layout.WriteNote(filepath.Join(c.Dir, exitFile), exit); err != nil {
		return 1
	}
	return 0
}

// note says in dir which process this is.
func note(dir string) error {
	self, err := process.Of(os.Getpid())
	if err != nil {
		return err
	}
	return layout.WriteNote(filepath.Join(dir, pidFile), self)
}

// runIn runs the command, and closes started when it is on its way. An error: it never was.
func runIn(c Command, started *os.File) (Exit, error) {
	out, err := os.OpenFile(filepath.Join(c.Dir, outputFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return Exit{}, err
	}
	defer out.Close()
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if c.Guard != "" {
		return guard(cmd, c, started)
	}
	if err := cmd.Start(); err != nil {
		return Exit{}, err
	}
	started.Close()
	exit := Exit{}
	if err := cmd.Wait(); err != nil {
		exit = Exit{Code: cmd.ProcessState.ExitCode()}
		if ee := new(exec.ExitError); !errors.As(err, &ee) || exit.Code < 0 {
			exit.Error = err.Error()
		}
	}
	return exit, nil
}

// waitForOrphans returns when nothing that the command started is left: a runc that was
// killed leaves a CRIU that still holds a container.
func waitForOrphans() {
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// enter leaves the caller's control groups and namespaces for the node's.
func enter(group string) error {
	groups, err := cgroup.Host()
	if err != nil {
		return err
	}
	if err := groups.Join(group, os.Getpid()); err != nil {
		return err
	}
	// A process can change its mount namespace only while it shares its root with nobody.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the file system attributes: %w", err)
	}
	for _, ns := range []struct {
		name string
		kind int
	}{{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"cgroup", unix.CLONE_NEWCGROUP}, {"mnt", unix.CLONE_NEWNS}} {
		if err := join(ns.name, ns.kind); err != nil {
			return err
		}
	}
	return nil
}

func join(name string, kind int) error {
	path := "/proc/1/ns/" + name
	theirs, err := os.Readlink(path)
	if err != nil {
		return fmt.Errorf("enter the node: %w", err)
	}
	if own, err := os.Readlink("/proc/thread-self/ns/" + name); err == nil && own == theirs {
		return nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("enter the node: open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, kind); err != nil {
		return fmt.Errorf("enter the node: setns %s: %w", path, err)
	}
	return nil
}
