package contention

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/drover-project/drover/bpf/pin/pintest"
)

// A task that waited when an older version's programs went, and got the CPU before the new ones
// came, has waited no longer than that: what it slept since is no wait.
func TestSleepAfterAGapIsNoWait(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	dir := filepath.Join(pintest.FS(t), "contention")
	heavy, light := newGroup(t, at.root, "heavy"), newGroup(t, at.root, "light")
	at.weigh(t, heavy, 100)
	cpu := lastCPU(t)
	tired := filepath.Join(t.TempDir(), "tired")
	sleeper := light.shell(t, cpu, fmt.Sprintf("until [ -e %s ]; do :; done; read again; while :; do :; done", tired))
	light.set(t, at.weight, map[Hierarchy]string{V1CPU: "2", V2: "1"}[at.hierarchy])
	hog := heavy.spinner(t, cpu)
	first := attachPinned(t, at.hierarchy, dir)
	hog.release()
	until(t, first, "the heavy one running", func(u map[uint64]Usage) bool { return u[heavy.id].Run > 0 })
	sleeper.release()
	until(t, first, "the other one waiting", func(u map[uint64]Usage) bool { return u[light.id].Wait > 0 })
	links, err := filepath.Glob(filepath.Join(dir, "links-*", "*"))
	for _, l := range links {
		err = errors.Join(err, os.Remove(l))
	}
	if err = errors.Join(err, first.Close()); err != nil || len(links) == 0 {
		t.Fatal(links, err)
	}
	if err := errors.Join(os.WriteFile(tired, nil, 0o600), syscall.Kill(hog.pid, syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it sleeping", func() (bool, string) { return sleeps(t, sleeper.pid), "it does not" })

	slept := time.Now()
	second := attachPinned(t, at.hierarchy, dir)
	before := read(t, second).Groups[light.id]
	eventually(t, "it having slept for longer than it can wait", func() (bool, string) {
		return time.Since(slept) > time.Second, fmt.Sprint(time.Since(slept))
	})
	woken := time.Now()
	sleeper.release()
	until(t, second, "it running", func(u map[uint64]Usage) bool { return u[light.id].Switches > before.Switches })
	if waited, most := read(t, second).Groups[light.id].since(before).Wait, time.Since(woken); waited > most {
		t.Errorf("waited %v in the %v since it was woken", waited, most)
	}
}
