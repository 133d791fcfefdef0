package podpath

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The main thread never ends: what it has entered, /proc/self would show for good, and the
// agent take for its own.
func TestTheMainThreadEntersNothing(t *testing.T) {
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	pod := exec.Command("sleep", "infinity")
	pod.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := pod.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		pod.Process.Kill()
		pod.Wait() // how it ended is known
	}()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pod.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for range 20 {
		// All at once, so that the main thread is wanted, too.
		const many = 50
		var all, entered sync.WaitGroup
		entered.Add(many)
		for range many {
			all.Go(func() {
				err := inside(ns, func() error {
					there, err := os.Stat("/proc/thread-self/ns/net")
					if err == nil && os.SameFile(there, own) {
						t.Error("not in the namespace")
					}
					entered.Done()
					entered.Wait()
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		now, err := os.Stat("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(own, now) {
			t.Fatal("the main thread has stayed in the pod's network namespace")
		}
	}
}
