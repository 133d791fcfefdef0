package hosted

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// EnterCgroupNamespace lets the program see control groups as the node does. A container
// that is not privileged has a namespace of its own on cgroup v2, in which nothing outside of
// it has a name. A namespace is a thread's, so the program is executed anew from one that
// has entered the node's; then, or if it was there already, nil is returned.
func EnterCgroupNamespace() error {
	const own, node = "/proc/self/ns/cgroup", "/proc/1/ns/cgroup"
	ours, err := os.Readlink(own)
	if err != nil {
		return fmt.Errorf("look for the program's control group namespace: %w", err)
	}
	theirs, err := os.Readlink(node)
	if err != nil {
		return fmt.Errorf("look for the node's control group namespace: %w", err)
	}
	if ours == theirs {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := join("cgroup", unix.CLONE_NEWCGROUP); err != nil {
		return err
	}
	return fmt.Errorf("execute the program in the node's control group namespace: %w", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}
