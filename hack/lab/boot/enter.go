package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// enterArgv0 is how ps shows a command on its way into a node.
const enterArgv0 = "drover-lab-enter"

func init() {
	if len(os.Args) < 4 || os.Args[0] != enterArgv0 {
		return
	}
	code, err := enter(os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// Enter makes a command that runs in the namespaces of the node whose process 1 has that pid. It
// ends with its exit code, or 127 if it could not be started. When ctx ends, what runs is killed.
func Enter(ctx context.Context, lab string, pid int, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	// SIGKILL would end the one that entered, not what it started. (A parent-death signal does not
	// work across pid namespaces.)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Args = append([]string{enterArgv0, lab, strconv.Itoa(pid)}, argv...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"TERM=" + os.Getenv("TERM"), "LANG=C.UTF-8",
	}
	return cmd
}

// namespaces in the order they are entered: the mount namespace last but one, as it hides /proc;
// the pid namespace takes effect with the next process.
var namespaces = map[string]int{"net": unix.CLONE_NEWNET, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC, "mnt": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID}

func enter(pid string, argv []string) (int, error) {
	const notStarted = 127
	// Namespaces belong to threads: all happens on this one, and the new process is its child.
	runtime.LockOSThread()
	if err := setns(pid); err != nil {
		return notStarted, fmt.Errorf("enter node: %w", err)
	}
	path, err := lookPath(argv[0])
	if err != nil {
		return notStarted, err
	}
	signal.Ignore(unix.SIGINT, unix.SIGQUIT, unix.SIGTTOU, unix.SIGTTIN) // the terminal's are for the command
	p, err := os.StartProcess(path, argv, &os.ProcAttr{
		Dir:   "/",
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return notStarted, fmt.Errorf("start %s: %w", argv[0], err)
	}
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for range terms {
			_ = p.Kill() // ended meanwhile
		}
	}()
	state, err := p.Wait()
	if err != nil {
		return notStarted, err
	}
	if ws := state.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return state.ExitCode(), nil
}

func setns(pid string) error {
	order := []string{"net", "uts", "ipc", "pid", "mnt"}
	var files []*os.File
	for _, name := range order {
		f, err := os.Open("/proc/" + pid + "/ns/" + name)
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	// A thread that shares its root and working directory with others cannot change mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	var errs []error
	for i, f := range files {
		if err := unix.Setns(int(f.Fd()), namespaces[order[i]]); err != nil {
			errs = append(errs, fmt.Errorf("setns %s: %w", order[i], err))
		}
	}
	return errors.Join(errs...)
}
