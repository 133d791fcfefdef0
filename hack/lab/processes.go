package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is one that runs on a machine of the lab, in any of its containers.
type Process struct {
	// PID and Parent are as the machine outside counts.
	PID, Parent int
	Args        []string
}

// Signal sends a signal to the process; one that has ended meanwhile is an error.
func (p Process) Signal(s unix.Signal) error {
	if err := unix.Kill(p.PID, s); err != nil {
		return fmt.Errorf("send %v to process %d (%s): %w", s, p.PID, strings.Join(p.Args, " "), err)
	}
	return nil
}

// Program is the name of the program that runs, without its folder; of one that has given
// itself a title ("criu: dump --rpc"), what is before the colon.
func (p Process) Program() string {
	if len(p.Args) == 0 {
		return ""
	}
	name, _, _ := strings.Cut(filepath.Base(p.Args[0]), ":")
	return name
}

// Processes lists what runs on a machine, in the order of the process numbers.
func (l *Lab) Processes(name string) ([]Process, error) {
	m, err := l.find(name)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := m.process(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, fmt.Errorf("list the processes of %s: %w", name, err)
		}
		if p != nil {
			all = append(all, *p)
		}
	}
	slices.SortFunc(all, func(a, b Process) int { return a.PID - b.PID })
	return all, nil
}

// process is nil for one that is not this machine's, is a zombie or a kernel thread.
func (m machine) process(pid int) (*Process, error) {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(strings.Split(string(groups), "\n"), m.holds) {
		return nil, nil
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(line) == 0 {
		return nil, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	p := &Process{PID: pid, Args: strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")}
	// The name, in parentheses, may hold anything; the state and the parent follow it (proc(5)).
	if fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(fields) > 1 {
		p.Parent, err = strconv.Atoi(fields[1])
	}
	return p, err
}

// holds tells whether a line of /proc/PID/cgroup names a group of this machine's.
func (m machine) holds(line string) bool {
	parts := strings.SplitN(line, ":", 3)
	if len(parts) < 3 {
		return false
	}
	for _, group := range []string{m.pods(), m.daemons()} {
		if parts[2] == group || strings.HasPrefix(parts[2], group+"/") {
			return true
		}
	}
	return false
}

// Root is the path of a machine's root file system, as long as it runs, as seen from outside.
func (l *Lab) Root(name string) (string, error) {
	p, err := l.running(name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/root", p.PID), nil
}

// PodsGroup is the path of the control group, in every hierarchy, that a node's pods are below.
func (l *Lab) PodsGroup(node string) (string, error) {
	m, err := l.find(node)
	if err != nil {
		return "", err
	}
	return m.pods(), nil
}

// DaemonsGroup is that of a machine's own programs: kubelet, containerd, the shims of its
// containers and what those run.
func (l *Lab) DaemonsGroup(name string) (string, error) {
	m, err := l.find(name)
	if err != nil {
		return "", err
	}
	return m.daemons(), nil
}
