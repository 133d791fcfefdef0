package contention

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/pin/pintest"
)

// patience bounds how long a test waits for the scheduler; nothing is asserted about time.
const patience = 30 * time.Second

// layout is where this machine has its control groups.
type layout struct {
	hierarchy Hierarchy
	root      string // of the groups that are counted
	weight    string // the file that sets a group's share of the CPU
}

// cpuLayout finds the hierarchy that has the cpu controller.
func cpuLayout(t *testing.T) layout {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.shares"); err == nil {
		return layout{V1CPU, "/sys/fs/cgroup/cpu", "cpu.shares"}
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Fatalf("neither cgroup v1 with cpu nor v2 in /sys/fs/cgroup: %v", err)
	}
	return layout{V2, "/sys/fs/cgroup", "cpu.weight"}
}

// group is a control group of the test's own, with its processes.
type group struct {
	dir string
	id  uint64
}

func newGroup(t *testing.T, root, name string) group {
	t.Helper()
	dir := filepath.Join(root, fmt.Sprintf("drover-contention-test-%d-%s", os.Getpid(), name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("make a cgroup (the test needs root): %v", err)
	}
	t.Cleanup(func() { removeGroup(t, dir) })
	var stat syscall.Stat_t
	if err := syscall.Stat(dir, &stat); err != nil {
		t.Fatal(err)
	}
	return group{dir, stat.Ino}
}

// removeGroup tries again while the kernel still counts a process that has just been reaped.
func removeGroup(t *testing.T, dir string) {
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		err := os.Remove(dir)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Errorf("remove %s: %v", dir, err)
			return
		}
	}
}

func (g group) set(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

// spinner is a process that computes from the time it is let go.
type spinner struct {
	pid     int
	release func()
}

// spinner is a shell in the group, on one CPU.
func (g group) spinner(t *testing.T, cpu int) spinner {
	t.Helper()
	return g.shell(t, cpu, "while :; do :; done")
}

// shell runs a script, once it is let go, in the group and on one CPU; with files from 3 on.
func (g group) shell(t *testing.T, cpu int, script string, files ...*os.File) spinner {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "echo ready; read go; "+script)
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	spinner := spinner{cmd.Process.Pid, func() {
		if _, err := io.WriteString(stdin, "\n"); err != nil {
			t.Error(err)
		}
	}}
	g.set(t, "cgroup.procs", strconv.Itoa(cmd.Process.Pid))
	spinner.pin(t, cpu) // after: before Linux 6.2 a move to another cpuset undoes it
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !sleeps(t, cmd.Process.Pid); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the shell never waits for its input")
		}
	}
	return spinner
}

// pin moves a process to a CPU.
func (s spinner) pin(t *testing.T, cpu int) {
	t.Helper()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(s.pid, &set); err != nil {
		t.Fatal(err)
	}
}

// ran is the CPU time of a process as the scheduler itself counts it: the first field of its
// schedstat.
func (s spinner) ran(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	var ns int64
	if _, err := fmt.Sscan(string(stat), &ns); err != nil {
		t.Fatalf("schedstat of %d: %q: %v", s.pid, stat, err)
	}
	return time.Duration(ns)
}

// sleeps tells whether a process is blocked: its state is the first field after its name.
func sleeps(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(stat, []byte(") S "))
}

// weigh sets a group's share of the CPU: 1 to 100, against its siblings.
func (l layout) weigh(t *testing.T, g group, weight int) {
	t.Helper()
	each := map[Hierarchy]int{V1CPU: 2048, V2: 100}[l.hierarchy]
	g.set(t, l.weight, strconv.Itoa(weight*each))
}

func attach(t *testing.T, h Hierarchy) *Meter {
	t.Helper()
	return attachPinned(t, h, "")
}

func attachPinned(t *testing.T, h Hierarchy, pins string) *Meter {
	t.Helper()
	m, err := Attach(h, pins)
	if err != nil {
		t.Fatalf("the programs must load and attach on a kernel with BTF: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func read(t *testing.T, m *Meter) Reading {
	t.Helper()
	r, err := m.Read()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until reads the meter until what is wanted holds.
func until(t *testing.T, m *Meter, what string, holds func(map[uint64]Usage) bool) map[uint64]Usage {
	t.Helper()
	var last map[uint64]Usage
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		last = read(t, m).Groups
		if holds(last) {
			return last
		}
	}
	t.Fatalf("never seen: %s; last reading %v", what, last)
	return nil
}

func (u Usage) since(before Usage) Usage {
	return Usage{u.Wait - before.Wait, u.Run - before.Run, u.Switches - before.Switches, u.Throttled - before.Throttled}
}

// alone waits for tests of other packages that also load one CPU on purpose, and keeps them
// waiting until this one ends.
func alone(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "drover-test-cpu.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err == nil {
			return
		} else if err != syscall.EINTR {
			t.Fatalf("lock %s: %v", f.Name(), err)
		}
	}
}

// lastCPU is one that this process may use.
func lastCPU(t *testing.T) int {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for cpu := len(set)*64 - 1; cpu >= 0; cpu-- {
		if set.IsSet(cpu) {
			return cpu
		}
	}
	t.Fatal("no CPU")
	return 0
}

// What happens between two processes that measure is not lost.
func TestPinned(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	dir := filepath.Join(pintest.FS(t), "contention")
	g := newGroup(t, at.root, "pinned")
	s := g.spinner(t, lastCPU(t))
	first := attachPinned(t, at.hierarchy, dir)
	s.release()
	until(t, first, "the spinner ran", func(u map[uint64]Usage) bool { return u[g.id].Run > 0 })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	const away = 500 * time.Millisecond
	for from, end := s.ran(t), time.Now().Add(patience); s.ran(t) < from+away; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the spinner does not get the CPU")
		}
	}
	second := attachPinned(t, at.hierarchy, dir)
	// Without pins it would stay behind for ever by what it ran meanwhile.
	until(t, second, "all that the spinner ran", func(u map[uint64]Usage) bool { return s.ran(t)-u[g.id].Run < away/2 })
}

// Where not all can be attached nothing stays behind: it would cost every switch, and nobody would
// read it.
func TestWhatIsNotOfUseIsNotPinned(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a BPF file system (the test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	pins := filepath.Join(dir, "contention")
	first := attachPinned(t, at.hierarchy, pins)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob(filepath.Join(pins, "links-*", "*"))
	if err != nil || len(links) != 4 {
		t.Fatalf("pinned %v, %v, want 4 links", links, err)
	}
	last := filepath.Join(filepath.Dir(links[0]), "sched_wakeup_new")
	if err := errors.Join(os.Remove(last), os.Mkdir(last, 0o700)); err != nil {
		t.Fatal(err)
	}
	if m, err := Attach(at.hierarchy, pins); err == nil {
		m.Close()
		t.Fatal("no error")
	}
	if links, err = filepath.Glob(filepath.Join(pins, "links-*", "*")); err != nil || len(links) > 0 {
		t.Errorf("still pinned: %v, %v", links, err)
	}
	attachPinned(t, at.hierarchy, pins)
}

// Two computing processes share one CPU; one has 64 times the weight of the other.
// The light one waits nearly always, the heavy one nearly never, and a third process that
// sleeps all the while does not wait at all. The heavy one is already running when the
// programs are attached.
func TestWaitIsChargedToTheOneThatWaits(t *testing.T) {
	alone(t)
	at := cpuLayout(t)
	heavy, light, asleep := newGroup(t, at.root, "heavy"), newGroup(t, at.root, "light"), newGroup(t, at.root, "asleep")
	at.weigh(t, heavy, 64)
	at.weigh(t, light, 1)
	cpu := lastCPU(t)
	heavy.spinner(t, cpu).release()
	releaseLight, wake := light.spinner(t, cpu).release, asleep.spinner(t, cpu).release

	began := time.Now() // before the programs are attached, which may take a while
	m := attach(t, at.hierarchy)
	until(t, m, "the heavy one running", func(u map[uint64]Usage) bool { return u[heavy.id].Switches > 0 })
	releaseLight()
	// Something else that is heavy may come by, another test: then it is tried once more.
	base := map[uint64]Usage{}
	got := until(t, m, "the light one waiting 5 times as long as the heavy one, and running a fifth", func(u map[uint64]Usage) bool {
		light, heavy := u[light.id].since(base[light.id]), u[heavy.id].since(base[heavy.id])
		if light.Wait < time.Second {
			return false
		}
		base = u
		return light.Wait > 5*heavy.Wait && heavy.Run > 5*light.Run
	})
	elapsed := time.Since(began)

	for name, id := range map[string]uint64{"light": light.id, "heavy": heavy.id} {
		if sum := got[id].Wait + got[id].Run; sum > elapsed {
			t.Errorf("the one task of %s waited and ran for %v in %v", name, sum, elapsed)
		}
	}
	if got[asleep.id] != (Usage{}) {
		t.Errorf("a sleeping task was charged %+v", got[asleep.id])
	}

	at.weigh(t, asleep, 100)
	wake()
	woken := until(t, m, "the sleeper woken", func(u map[uint64]Usage) bool { return u[asleep.id].Run > 0 })[asleep.id]
	if woken.Wait > got[light.id].Wait/2 {
		t.Errorf("the sleeper waited %v: its sleep was taken for waiting", woken.Wait)
	}
	if lost := read(t, m).Lost; lost != 0 {
		t.Errorf("lost %d charges", lost)
	}
}

// The same task is found under its cgroup v2, whether or not that has controllers.
func TestVersion2Groups(t *testing.T) {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
		root += "/unified"
	}
	g := newGroup(t, root, "v2")
	release := g.spinner(t, lastCPU(t)).release
	m := attach(t, V2)
	release()
	until(t, m, "the task of the v2 group running", func(u map[uint64]Usage) bool { return u[g.id].Switches > 0 })
}

func TestForget(t *testing.T) {
	at := cpuLayout(t)
	g := newGroup(t, at.root, "forget")
	release := g.spinner(t, lastCPU(t)).release
	m := attach(t, at.hierarchy)
	release()
	before := until(t, m, "some running", func(u map[uint64]Usage) bool { return u[g.id].Run > 100*time.Millisecond })
	if err := m.Forget(g.id); err != nil {
		t.Fatal(err)
	}
	if err := m.Forget(1 << 62); err != nil {
		t.Errorf("forgetting an unknown group: %v", err)
	}
	after := read(t, m).Groups
	if after[g.id].Run >= before[g.id].Run {
		t.Errorf("run %v before and %v after it was forgotten", before[g.id].Run, after[g.id].Run)
	}
}

// BenchmarkSwitch is the cost of a pair of switches with and without the programs; the
// figure to quote is the ratio.
func BenchmarkSwitch(b *testing.B) {
	pingPong := func(b *testing.B) {
		there, back := make(chan struct{}), make(chan struct{})
		go func() {
			runtime.LockOSThread()
			for range there {
				back <- struct{}{}
			}
		}()
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for b.Loop() {
			there <- struct{}{}
			<-back
		}
		close(there)
	}
	b.Run("bare", pingPong)
	m, err := Attach(V1CPU, "")
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.Run("metered", pingPong)
}
