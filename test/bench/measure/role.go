package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/drover-project/drover/hack/lab/cgroup"
)

// A role is what a process of the benchmark does: it says "ready", works from the line "go"
// on, and ends when its input does, after it has printed what it found.
type role func(args []string, begin func() (end <-chan struct{})) error

var roles = map[string]role{
	"spin":          spin,
	"work":          work,
	"forks":         forks,
	"flood":         flood,
	"drover-origin": droverOrigin,
	"drover-peer":   droverPeer,
	"udp-origin":    udpOrigin,
	"udp-peer":      udpPeer,
	"http-origin":   httpOrigin,
	"http-peer":     httpPeer,
	"everything":    everything,
}

// play is the life of a process that has a role.
func play(name string, args []string) error {
	r, ok := roles[name]
	if !ok {
		return fmt.Errorf("no role %q", name)
	}
	return r(args, func() <-chan struct{} {
		fmt.Println("ready")
		in := bufio.NewReader(os.Stdin)
		if _, err := in.ReadString('\n'); err != nil {
			os.Exit(1) // the benchmark has gone
		}
		end := make(chan struct{})
		go func() {
			io.Copy(io.Discard, in)
			close(end)
		}()
		return end
	})
}

// actor is such a process, seen from outside.
type actor struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// start starts a process on a host (nil: here) and in a control group ("": ours); it works
// once let go.
func start(h *host, tree cgroup.Tree, group, name string, args ...string) (*actor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	a := &actor{name: name, cmd: exec.Command(self, append([]string{"-role", name}, args...)...)}
	a.cmd.Stderr = os.Stderr
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.in, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.out = bufio.NewReader(out)
	if h == nil {
		err = a.cmd.Start()
	} else {
		err = h.in(a.cmd.Start)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if group != "" {
		if err := join(tree, group, a.cmd.Process.Pid); err != nil {
			return nil, errors.Join(fmt.Errorf("put %s into %s: %w", name, group, err), a.kill())
		}
	}
	if line, err := a.out.ReadString('\n'); err != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("%s did not begin: %q, %v", name, line, err), a.kill())
	}
	return a, nil
}

// join puts a process into a control group, where what the CPU is shared by is kept.
func join(tree cgroup.Tree, group string, pid int) error {
	for _, h := range tree {
		if !h.Has("cpu") && !h.Has("cpuacct") && !h.Has("cpuset") {
			continue
		}
		if err := os.WriteFile(h.Path(group)+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (a *actor) letGo() error {
	_, err := io.WriteString(a.in, "go\n")
	return err
}

// end ends the process and gives the lines that it printed.
func (a *actor) end() ([]string, error) {
	a.in.Close()
	timer := time.AfterFunc(time.Minute, func() { a.cmd.Process.Kill() })
	defer timer.Stop()
	b, err := io.ReadAll(a.out)
	if err = errors.Join(err, a.cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%s: %w", a.name, err)
	}
	return strings.Fields(string(b)), nil
}

func (a *actor) kill() error {
	err := a.cmd.Process.Kill()
	a.cmd.Wait()
	return err
}

// spin uses up a processor.
func spin(_ []string, begin func() <-chan struct{}) error {
	end := begin()
	for {
		select {
		case <-end:
			return nil
		default:
		}
	}
}
