package podpath

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/internal/thread"
)

// namespace opens the network namespace of a container's first process. The node's own is an
// error.
func (p *Path) namespace(container string) (process.Process, *os.File, error) {
	var none process.Process
	pids, err := p.config.Processes(container)
	if err != nil {
		return none, nil, err
	}
	if len(pids) == 0 {
		return none, nil, fmt.Errorf("container %.12s has no process on this node", container)
	}
	who, err := process.Of(pids[0])
	if err != nil {
		return none, nil, err
	}
	ns, err := os.Open(filepath.Join(p.config.Proc, strconv.Itoa(who.PID), "ns", "net"))
	if err != nil {
		return none, nil, err
	}
	// The PID may have changed hands before it was named, and after.
	pids, err = p.config.Processes(container)
	if err == nil && !(slices.Contains(pids, who.PID) && who.Alive()) {
		err = fmt.Errorf("process %d of container %.12s ended while it was looked at", who.PID, container)
	}
	if err == nil {
		err = notOurs(ns)
	}
	if err != nil {
		ns.Close()
		return none, nil, err
	}
	return who, ns, nil
}

// notOurs refuses the namespace that the agent is in.
func notOurs(ns *os.File) error {
	theirs, err := ns.Stat()
	if err != nil {
		return err
	}
	ours, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("look for the agent's network namespace: %w", err)
	}
	if os.SameFile(theirs, ours) {
		return fmt.Errorf("%s is the agent's own network namespace: the pod must not have hostNetwork", ns.Name())
	}
	return nil
}

// inside calls f on a thread in the network namespace, and returns what f does. Goroutines that
// f starts are not in it.
func inside(ns *os.File, f func() error) error {
	return thread.Apart(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", ns.Name(), err)
		}
		return f()
	})
}
