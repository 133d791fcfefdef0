package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/cache"
)

// packages are Debian's, of which the programs that are slowed down come.
var packages = []string{"linux-perf", "nginx-light", "redis-server", "redis-tools", "sockperf", "util-linux", "wrk"}

// software is a root file system with these programs; nothing is installed on the machine.
type software struct{ root string }

func newSoftware(ctx context.Context) (*software, error) {
	layer, err := cache.DebianLayer(ctx, packages, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return nil, err
	}
	s := &software{root}
	if out, err := exec.CommandContext(ctx, "tar", "-xzf", layer, "-C", root).CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("unpack %s: %w: %s", layer, err, out), s.close())
	}
	for _, d := range []string{"dev", "tmp", "proc", "var/log/nginx", "var/lib/nginx", "run"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o1777); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "urandom": 9} {
		if err := unix.Mknod(filepath.Join(root, "dev", name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return nil, errors.Join(fmt.Errorf("make /dev/%s: %w", name, err), s.close())
		}
	}
	return s, nil
}

func (s *software) close() error { return os.RemoveAll(s.root) }

// command is a program of the root file system, by its name there.
func (s *software) command(name string, args ...string) *exec.Cmd {
	return &exec.Cmd{Path: name, Args: append([]string{filepath.Base(name)}, args...), Dir: "/",
		Env:         []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/tmp"},
		SysProcAttr: &syscall.SysProcAttr{Chroot: s.root}}
}

// output runs a program on a host (nil: here) and gives what it printed.
func (s *software) output(h *host, name string, args ...string) (string, error) {
	cmd := s.command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run
	var failed error
	if h == nil {
		failed = err()
	} else {
		failed = h.in(err)
	}
	if failed != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), failed, out.String())
	}
	return out.String(), nil
}

// serve starts a server on a host, in a control group.
func (s *software) serve(h *host, join func(pid int) error, name string, args ...string) (func() error, error) {
	cmd := s.command(name, args...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := h.in(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	stop := func() error {
		err := cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
		if errors.Is(err, os.ErrProcessDone) {
			err = fmt.Errorf("%s had ended: %s", name, log.String())
		}
		return err
	}
	if err := join(cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}
