package measure

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// patience bounds how long a test waits for the scheduler; nothing is asserted about time.
const patience = 60 * time.Second

// pen is a kubepods of the test's own in the machine's control groups. All of its containers
// are on one CPU, and its share of that is great, so that others' work disturbs little.
type pen struct {
	t       testing.TB
	cgroups Cgroups
	root    Group
	cpu     int
	more    []string // v1 hierarchies beside the CPU's
}

func newPen(t testing.TB, more ...string) *pen {
	t.Helper()
	alone(t)
	cgroups, err := OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	p := &pen{t: t, cgroups: cgroups, cpu: lastCPU(t), more: more,
		root: Group(fmt.Sprintf("/drover-measure-test-%d", os.Getpid()))}
	if !cgroups.v1 {
		p.enable("/")
	}
	p.make(p.root)
	p.make(p.kubepods())
	p.make(p.kubepods() + "/burstable")
	return p
}

func (p *pen) kubepods() Group { return p.root + "/kubepods" }

// controllers are the hierarchies that a group is made in: one with v2.
func (p *pen) controllers() []string {
	if p.cgroups.v1 {
		return append([]string{"cpu", "cpuacct", "cpuset"}, p.more...)
	}
	return []string{""}
}

// make makes a group with the greatest weight, on the pen's CPU.
func (p *pen) make(g Group) {
	p.t.Helper()
	for _, controller := range p.controllers() {
		dir := p.cgroups.file(controller, g, "")
		if controller == "cpuacct" && exists(dir) {
			continue // mounted together with cpu, as systemd does
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			p.t.Fatalf("make a control group (the test needs root): %v", err)
		}
		p.t.Cleanup(func() { p.remove(dir) })
	}
	if !p.cgroups.v1 {
		p.enable(g)
	} else {
		p.set(g, "cpuset", "cpuset.mems", "0")
	}
	p.set(g, "cpuset", "cpuset.cpus", strconv.Itoa(p.cpu))
	p.weigh(g, 128)
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

func (p *pen) enable(g Group) {
	on := "+cpu +cpuset"
	if len(p.more) > 0 {
		on += " +memory +io"
	}
	p.set(g, "", "cgroup.subtree_control", on)
}

// remove tries again while the kernel still counts a process that has just been reaped.
func (p *pen) remove(dir string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		err := os.Remove(dir)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			p.t.Errorf("remove %s: %v", dir, err)
			return
		}
	}
}

func (p *pen) set(g Group, controller, file, value string) {
	p.t.Helper()
	if err := os.WriteFile(p.cgroups.file(controller, g, file), []byte(value), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// weigh sets a group's share of the CPU: 1 to 128, against its siblings.
func (p *pen) weigh(g Group, weight int) {
	p.t.Helper()
	if p.cgroups.v1 {
		p.set(g, "cpu", "cpu.shares", strconv.Itoa(weight*2048))
	} else {
		p.set(g, "cpu", "cpu.weight", strconv.Itoa(weight*78))
	}
}

// share sets a group's share of the CPU as kubelet does: by what v1 calls it.
func (p *pen) share(g Group, shares int) {
	p.t.Helper()
	if p.cgroups.v1 {
		p.set(g, "cpu", "cpu.shares", strconv.Itoa(shares))
	} else {
		p.set(g, "cpu", "cpu.weight", strconv.Itoa(1+(shares-2)*9999/262142))
	}
}

// limit gives a group a quota: a fifth of a CPU.
func (p *pen) limit(g Group) {
	p.t.Helper()
	if p.cgroups.v1 {
		p.set(g, "cpu", "cpu.cfs_quota_us", "20000")
	} else {
		p.set(g, "cpu", "cpu.max", "20000 100000")
	}
}

// container makes a pod with one container, named by a hexadecimal digit, in which the
// given number of processes compute until the test ends.
func (p *pen) container(digit string, processes int) Container {
	p.t.Helper()
	c := Container{PodUID: uidA[:len(uidA)-1] + digit, ID: strings.Repeat(digit, 64)}
	c.Pod = Group(path.Join(string(p.kubepods()), "burstable", "pod"+c.PodUID))
	c.Group = Group(path.Join(string(c.Pod), c.ID))
	p.make(c.Pod)
	p.make(c.Group)
	for range processes {
		p.spinner(c.Group)
	}
	return c
}

// spinner starts a shell that computes once it is in the group, and not before.
func (p *pen) spinner(g Group) { p.run(g, "while :; do :; done") }

// run starts a shell that does what the script says once it is in the group, and not before.
// What it has started ends with it, for the group is emptied.
func (p *pen) run(g Group, script string, env ...string) {
	p.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read go; "+script)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		p.empty(g)
	})
	for _, controller := range p.controllers() {
		p.set(g, controller, "cgroup.procs", strconv.Itoa(cmd.Process.Pid))
	}
	if _, err := io.WriteString(stdin, "\n"); err != nil {
		p.t.Fatal(err)
	}
}

// empty kills what is left in a group of the test's own.
func (p *pen) empty(g Group) {
	for {
		text, err := os.ReadFile(p.cgroups.file("cpu", g, "cgroup.procs"))
		if err != nil || len(text) == 0 {
			return
		}
		for _, pid := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(pid); err == nil {
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
	}
}

// alone waits for tests of other packages that also load one CPU on purpose, and keeps them
// waiting until this one ends.
func alone(t testing.TB) {
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
func lastCPU(t testing.TB) int {
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

// watch runs a Contention over the pen and hands every new snapshot to done, by container
// ID, until that says true.
func (p *pen) watch(what string, names names, done func(map[string]ContainerWait) bool) {
	p.t.Helper()
	c := NewContention(ContentionConfig{
		Cgroups: p.cgroups, Kubepods: p.kubepods(), Proc: "/proc", Interval: 250 * time.Millisecond,
		Thresholds: pressure.Default(),
		Attach:     AttachWaitMeter("", slog.Default()), Triggers: OpenTriggers, Names: names, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("the programs must load on a kernel with BTF: %v", err)
		}
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last := ContentionSnapshot{}
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		s := c.Snapshot()
		if s.At.Equal(last.At) {
			continue
		}
		last = s
		byID := map[string]ContainerWait{}
		for _, w := range s.Containers {
			byID[w.ContainerID] = w
		}
		if done(byID) {
			return
		}
	}
	p.t.Errorf("never seen: %s; last snapshot %+v", what, last)
}

// Two containers on one CPU; one has 16 times the other's weight, then the other way round.
func TestTheStarvedContainerSuffers(t *testing.T) {
	p := newPen(t)
	a, b := p.container("a", 1), p.container("b", 1)
	p.weigh(b.Pod, 8)
	turned := false
	p.watch("the lighter container suffering, both ways round", names{a.ID: "a", b.ID: "b"}, func(now map[string]ContainerWait) bool {
		light, heavy := now[b.ID], now[a.ID]
		if turned {
			light, heavy = heavy, light
		}
		// Another heavy test may come by: then it is looked for once more. Right after the
		// turn the heavy one's window still holds its time as the light one.
		if !light.severe() || heavy.severe() || light.mean() < 5*heavy.mean() {
			return false
		}
		other := "a"
		if turned {
			other = "b"
		}
		if owed := light.Shares.Neighbours; len(owed) != 1 || owed[0].Container != other || owed[0].Wait < light.Shares.Wait/2 {
			return false
		}
		t.Logf("light: wait %.3f, external %.3f, ran %.3f; heavy: wait %.3f, external %.3f, ran %.3f",
			light.Wait, light.mean(), light.Run, heavy.Wait, heavy.mean(), heavy.Run)
		if turned {
			return true
		}
		turned = true
		p.weigh(b.Pod, 128)
		p.weigh(a.Pod, 8)
		return false
	})
}

// A container that asks for no CPU beside one that asks for four gets a turn once in many seconds. It
// suffers all the while.
func TestTheOneThatHardlyGetsATurnSuffers(t *testing.T) {
	p := newPen(t)
	b, a := p.container("b", 1), p.container("a", 1) // a ends before b, which had to wait for its end
	p.share(a.Pod, 4096)
	p.share(b.Pod, 2)
	p.watch("the one without a turn suffering, for the other", names{a.ID: "a", b.ID: "b"}, func(now map[string]ContainerWait) bool {
		light, heavy := now[b.ID], now[a.ID]
		owed := light.Shares.Neighbours
		if !light.severe() || heavy.severe() || len(owed) != 1 || owed[0].Container != "a" || owed[0].Wait < light.Shares.Wait/2 {
			return false
		}
		t.Logf("waits %.3f, of which for the other %.3f, runs %.4f", light.Shares.Wait, owed[0].Wait, light.Run)
		return true
	})
}

// A container whose two processes wait for each other, and one that runs into its limit.
func TestTheBusyAndTheThrottledDoNotSuffer(t *testing.T) {
	for name, limited := range map[string]bool{"busy": false, "throttled by its own limit": true} {
		t.Run(name, func(t *testing.T) {
			p := newPen(t)
			c := p.container("c", 2)
			if limited {
				p.limit(c.Group)
			}
			var wait, external float64
			var causes map[blame.Cause]time.Duration
			cause := blame.ByOwn
			if limited {
				cause = blame.ByQuota
			}
			p.watch("waits of 4 s", names{c.ID: "c"}, func(now map[string]ContainerWait) bool {
				w := now[c.ID]
				wait += w.Wait / 4
				external += w.Sample.CPU.External() / 4
				causes = w.Causes
				if w.severe() {
					t.Errorf("it counts as suffering: %+v", w)
					return true
				}
				return wait > 4 && 2*causes[cause].Seconds() > wait && causes[blame.ByNeighbours] == 0
			})
			t.Logf("waited %.3f s, for others %.3f s; %v", wait, external, causes)
			if external > wait/3 {
				t.Errorf("waited %v s, of which %v s for others: want less than a third", wait, external)
			}
		})
	}
}

// The kubepods of this test is found by the UID of a pod in it, whatever else is there.
func TestFindKubepodsHere(t *testing.T) {
	p := newPen(t)
	c := p.container("d", 0)
	got, err := p.cgroups.FindKubepods(c.PodUID)
	if err != nil || got != p.kubepods() {
		t.Errorf("got %q, %v, want %q", got, err, p.kubepods())
	}
	if _, err := os.Stat(filepath.Join(p.cgroups.dir(got))); err != nil {
		t.Error(err)
	}
}

func (w ContainerWait) severe() bool  { return w.States[model.OnCPU].Grade == model.Severe }
func (w ContainerWait) mean() float64 { return w.States[model.OnCPU].Mean }
