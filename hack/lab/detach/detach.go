// Package detach starts the running program again, under another name, as a process that outlives
// it.
package detach

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command makes a command that runs this program with the given argv, in a session of its own, with
// nothing inherited but its standard streams (nothing and the log) and what its caller adds.
func Command(log *os.File, argv ...string) (*exec.Cmd, error) {
	// A pipe that was passed on by chance and held open would keep its reader waiting for ever.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("keep descriptors from %s: %w", argv[0], err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = argv
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "GOTRACEBACK=single",
	}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}
