// Package process names processes so that the name stays right when the kernel uses a PID
// again, also in a file that outlives the program that wrote it.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/kernelfile"
)

// Process is one process. The zero Process is none.
type Process struct {
	PID int `json:"pid"`
	// Start is when it started: field 22 of /proc/PID/stat, clock ticks since boot.
	Start uint64 `json:"start"`
}

// Of names the process that has the PID now. The error wraps fs.ErrNotExist when there is
// none, or only what is left of one.
func Of(pid int) (Process, error) {
	start, err := startTime(pid)
	if err != nil {
		return Process{}, fmt.Errorf("look up process %d: %w", pid, err)
	}
	return Process{PID: pid, Start: start}, nil
}

// Alive tells whether it runs; a zombie does not.
func (p Process) Alive() bool {
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}

// Dying tells that it was killed and comes to none of its own code any more: SIGKILL waits for
// it (proc_pid_status(5), SigPnd and ShdPnd), or it is on its way out (PF_EXITING in field 9 of
// /proc/PID/stat). What cannot be read may run.
func (p Process) Dying() bool {
	const exiting, kill = 0x4, 1 << (unix.SIGKILL - 1)
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/status")
	if err != nil {
		return false
	}
	var pending uint64
	for _, line := range strings.Split(string(status), "\n") {
		name, mask, _ := strings.Cut(line, ":")
		if name == "SigPnd" || name == "ShdPnd" {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			if err != nil {
				return false
			}
			pending |= bits
		}
	}
	f, err := stat(p.PID)
	if err != nil || f[19] != strconv.FormatUint(p.Start, 10) {
		return false
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	return err == nil && (pending&kill != 0 || flags&exiting != 0)
}

// Doomed tells that it has come to the last of its own code: it has ended, or is Dying, or has
// ended while that was looked at.
func (p Process) Doomed() bool { return !p.Alive() || p.Dying() || !p.Alive() }

// Kill sends SIGKILL. A process that has ended is no error.
func (p Process) Kill() error {
	fd, err := p.open()
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return nil
}

// Wait returns nil when the process has ended, or else ctx's error.
func (p Process) Wait(ctx context.Context) error {
	fd, err := p.open()
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
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
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// open returns a pidfd, -1 when the process has ended.
func (p Process) open() (int, error) {
	if p.PID <= 0 {
		return -1, nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("watch process %d: %w", p.PID, err)
	}
	// Compared when the pidfd is held: from here on the PID cannot change hands unseen.
	if !p.Alive() {
		unix.Close(fd)
		return -1, nil
	}
	return fd, nil
}

// startTime is that of a process that has not ended.
func startTime(pid int) (uint64, error) {
	f, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return started(f)
}

// started is the start time in stat's fields, of a process that has not ended.
func started(f []string) (uint64, error) {
	if f[0] == "Z" || f[0] == "X" {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// stat gives the fields of /proc/PID/stat from the third on; the name in parentheses, the
// second, may hold anything.
func stat(pid int) ([]string, error) {
	s, err := kernelfile.Read("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			err = fs.ErrNotExist
		}
		return nil, err
	}
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return nil, fmt.Errorf("stat has %d fields: %w", len(f), fs.ErrInvalid)
	}
	return f, nil
}
