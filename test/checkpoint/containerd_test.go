package checkpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
)

// TestContainerd moves a container between two of containerd's tasks: its shim creates,
// starts and reaps, and learns nothing of the move.
func TestContainerd(t *testing.T) {
	a := startAgentOn(t, "/run/containerd/runc/default")
	startContainerd(t)
	source := newTask(t, "src", nil)
	source.run(t).wait(t)
	last := source.count(t, 0)
	c := &container{id: source.id, podUID: "uid-" + source.id}
	m := move(c, &container{id: "task-dst", podUID: "uid-task-dst"})
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(layout.Default.Images(), m.UID+"-1")
	if err := os.CopyFS(images, os.DirFS(d.Dir)); err != nil {
		t.Fatal(err)
	}
	last = source.count(t, last)
	target := newTask(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	running := target.run(t)
	a.expect("waits " + target.id)
	if err := a.copies.Restore(within(t), m, target.id, images); err != nil {
		t.Fatal(err)
	}
	a.expect("held " + target.id)
	if err := a.copies.Resume(within(t), m, target.id, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	running.wait(t)
	if err := a.dumps.End(within(t), m); err != nil {
		t.Fatal(err)
	}
	if first := target.first(t); first != last+1 {
		t.Errorf("the copy went on with %d after %d", first, last)
	}
	target.count(t, last+60)
	if out := run(t, "ctr", "tasks", "ls"); !strings.Contains(out, target.id) || !strings.Contains(out, "RUNNING") {
		t.Errorf("tasks:\n%s", out)
	}
	run(t, "ctr", "tasks", "kill", "--signal", "SIGKILL", target.id)
	a.expect("died " + target.id)
	// The shim, and not somebody else, has reaped the copy: its exit is known.
	for range 100 {
		if strings.Contains(run(t, "ctr", "tasks", "ls"), "STOPPED") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	run(t, "ctr", "tasks", "delete", target.id)
	run(t, "ctr", "tasks", "delete", "--force", source.id)
}

func startContainerd(t *testing.T) {
	t.Helper()
	cmd := exec.Command("containerd", "--root", "/var/lib/containerd", "--state", "/run/containerd", "--log-level", "warn")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 600 {
		if exec.Command("ctr", "version").Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("containerd does not answer")
}

// task is a container of containerd that counts into a file.
type task struct {
	id, log string
	args    []string
}

func newTask(t *testing.T, name string, annotations map[string]string) *task {
	t.Helper()
	id := "task-" + name
	dir := filepath.Join("/tmp/tasks", id)
	k := &task{id: id, log: filepath.Join(dir, "log")}
	run(t, "mkdir", "-p", dir+"/rootfs")
	run(t, "cp", "/drover/counter", dir+"/rootfs/counter")
	run(t, "ip", "netns", "add", id)
	group := os.Getenv("NODE_GROUP") + "/pods/" + id
	all := map[string]string{"drover.dev/migrate": "true", "io.kubernetes.cri.container-type": "container",
		"io.kubernetes.cri.sandbox-uid": "uid-" + id, "io.kubernetes.cri.sandbox-namespace": "default",
		"io.kubernetes.cri.sandbox-name": "pod-" + id, "io.kubernetes.cri.container-name": "main"}
	for key, v := range annotations {
		all[key] = v
	}
	k.args = []string{"run", "--detach", "--rootfs", "--runc-binary", wrapper, "--cgroup", group,
		"--with-ns", "network:/run/netns/" + id, "--env", "HEAP_MIB=16", "--log-uri", "file://" + k.log}
	for key, v := range all {
		k.args = append(k.args, "--annotation", key+"="+v)
	}
	k.args = append(k.args, dir+"/rootfs", id, "/counter")
	t.Cleanup(func() {
		if groups, err := cgroup.Host(); err == nil {
			if g, err := groups.At(group); err == nil {
				g.Kill(within(t))
			}
		}
		exec.Command("ctr", "tasks", "delete", "--force", id).Run()
		exec.Command("ctr", "containers", "delete", id).Run()
		exec.Command("ip", "netns", "del", id).Run()
	})
	return k
}

type started struct {
	cmd *exec.Cmd
	out *strings.Builder
}

func (k *task) run(t *testing.T) started {
	t.Helper()
	s := started{exec.Command("ctr", k.args...), new(strings.Builder)}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s started) wait(t *testing.T) {
	t.Helper()
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("%q: %v: %s", s.cmd.Args, err, s.out)
	}
}

func (k *task) lines() []string {
	data, _ := os.ReadFile(k.log)
	lines := strings.Split(string(data), "\n")
	return lines[:len(lines)-1]
}

// count waits until the counter is beyond a number and returns its newest.
func (k *task) count(t *testing.T, beyond int) int {
	t.Helper()
	n := -1
	for range 1000 {
		for _, line := range k.lines() {
			f := strings.Fields(line)
			if len(f) == 3 && f[1] == "true" {
				n = atoi(f[0])
			} else {
				t.Errorf("%s: %s", k.id, line)
			}
		}
		if n >= beyond {
			return n
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s stands at %d, not beyond %d", k.id, n, beyond)
	return 0
}

func (k *task) first(t *testing.T) int {
	t.Helper()
	k.count(t, 0)
	return atoi(strings.Fields(k.lines()[0])[0])
}
