package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestExpand(t *testing.T) {
	for in, want := range map[string]string{
		"/kubepods/besteffort/podx/c":                         "/kubepods/besteffort/podx/c",
		"kubepods-burstable-podx_y.slice:cri-containerd:0abc": "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx_y.slice/cri-containerd-0abc.scope",
		"-.slice:p:n":    "/p-n.scope",
		"a.slice:p:n":    "/a.slice/p-n.scope",
		"relative/path":  "",
		"noslice:p:n":    "",
		"":               "",
		"a.slice:p:../n": "",
	} {
		got, err := expand(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("expand(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestParseMounts(t *testing.T) {
	const info = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu\040x rw,relatime - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 /n1 /sys/fs/cgroup/freezer rw,relatime shared:9 master:1 - cgroup cgroup rw,freezer
38 31 0:34 / /elsewhere rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
a damaged line
`
	got, err := parseMounts(strings.NewReader(info), "/proc/1/root")
	if err != nil {
		t.Fatal(err)
	}
	want := []hierarchy{
		{"/proc/1/root/sys/fs/cgroup/cpu x", "/", "cpu,cpuacct"},
		{"/proc/1/root/sys/fs/cgroup/freezer", "/n1", "freezer"},
		{"/proc/1/root/sys/fs/cgroup/systemd", "/", "name=systemd"},
		{"/proc/1/root/sys/fs/cgroup/unified", "/", ""},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	g, err := (&Hierarchies{all: got}).At("/n1/kubepods/c")
	if err != nil || g.dir != "/proc/1/root/sys/fs/cgroup/freezer/kubepods/c" || g.v2 {
		t.Errorf("hybrid: got %+v, %v; want v1's freezer, below its mounted root", g, err)
	}
	if g, err := (&Hierarchies{all: got}).At("/other/c"); err == nil {
		t.Errorf("a group outside of the mount: got %v", g)
	}
	v2 := &Hierarchies{all: got[3:]}
	if g, err := v2.At("/kubepods/c"); err != nil || !g.v2 {
		t.Errorf("v2 alone: got %+v, %v", g, err)
	}
	if _, err := (&Hierarchies{all: got[:1]}).At("/c"); err == nil {
		t.Error("no freezer: no error")
	}
}

// ticker is a process in a group of its own that writes a line all the time.
func ticker(t *testing.T, name string, v2 bool) (Group, *bufio.Reader) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	h, err := Own()
	if err != nil {
		t.Fatal(err)
	}
	var g Group
	for _, x := range h.all {
		if (x.name == "") == v2 && (v2 || x.name == "freezer") {
			if g, err = group(x, v2, "/"+name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if g.dir == "" {
		t.Skip("no such hierarchy is mounted")
	}
	if err := g.make(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// The subshell is a second process; sub makes sure that a child group is seen too.
	cmd := exec.Command("sh", "-c", "echo $$ > "+g.dir+"/cgroup.procs; (while :; do echo; done) & while :; do echo; done")
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		if err := g.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		cmd.Wait()
		if err := os.Remove(g.dir); err != nil {
			t.Error(err)
		}
	})
	return g, bufio.NewReader(r)
}

func TestFreezeThawKill(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v2=%v", v2), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			g, out := ticker(t, fmt.Sprintf("drover-test-%d-%v", os.Getpid(), v2), v2)
			if _, err := out.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			for range 2 { // twice: freezing a frozen group is fine
				if err := g.Freeze(ctx); err != nil {
					t.Fatal(err)
				}
				if told, err := g.Told(); !told || err != nil {
					t.Errorf("frozen: got told=%v, %v", told, err)
				}
			}
			pids, err := g.Procs()
			if err != nil || len(pids) != 2 {
				t.Fatalf("processes: got %v, %v, want 2", pids, err)
			}
			for _, pid := range pids {
				before := cpuTime(t, pid)
				if after := cpuTime(t, pid); before != after {
					t.Errorf("process %d ran while frozen: %s, then %s", pid, before, after)
				}
			}
			if err := g.Thaw(); err != nil {
				t.Fatal(err)
			}
			if frozen, err := g.Frozen(); frozen || err != nil {
				t.Errorf("thawed: got frozen=%v, %v", frozen, err)
			}
			if told, err := g.Told(); told || err != nil {
				t.Errorf("thawed: got told=%v, %v", told, err)
			}
			if err := g.Freeze(ctx); err != nil {
				t.Fatal(err)
			}
			if err := g.Kill(ctx); err != nil {
				t.Fatal(err)
			}
			if pids, err := g.Procs(); err != nil || len(pids) != 0 {
				t.Errorf("killed: got %v, %v", pids, err)
			}
			if _, err := io.Copy(io.Discard, out); err != nil { // ends: no writer is left
				t.Error(err)
			}
		})
	}
}

func cpuTime(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(data))
	return f[13] + "+" + f[14]
}

func TestGoneGroup(t *testing.T) {
	ctx := context.Background()
	g := Group{dir: t.TempDir() + "/gone"}
	if g.Exists() {
		t.Error("exists")
	}
	if err := g.Kill(ctx); err != nil {
		t.Errorf("kill: %v", err)
	}
	if err := g.Thaw(); err != nil {
		t.Errorf("thaw: %v", err)
	}
	if err := g.Freeze(ctx); err == nil {
		t.Error("froze a group that is not there")
	}
}

func TestFreezeEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/cgroup.events", []byte("populated 1\nfrozen 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/cgroup.freeze", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := (Group{dir: dir, v2: true}).Freeze(ctx); err == nil {
		t.Error("said frozen of a group that was not")
	}
}

func TestContainer(t *testing.T) {
	proc := t.TempDir()
	h := &Hierarchies{proc: proc, all: []hierarchy{{"/sys/fs/cgroup/freezer", "/", "freezer"}}}
	for _, test := range []struct{ own, cgroupsPath, want string }{
		{"/kubepods/podx/c", "/kubepods/podx/c", "/kubepods/podx/c"},
		// systemd, or dind, in the container.
		{"/kubepods/podx/c/init.scope", "/kubepods/podx/c", "/kubepods/podx/c"},
		{"/kubepods/podx/c/kubepods/podx/c", "/kubepods/podx/c", "/kubepods/podx/c"},
		{"/a.slice/a-b.slice/p-c.scope/init", "a-b.slice:p:c", "/a.slice/a-b.slice/p-c.scope"},
		// A node that is itself a container: runc's root is /n1.
		{"/n1/kubepods/podx/c/init", "/kubepods/podx/c", "/n1/kubepods/podx/c"},
		{"/kubepods/podx/other", "/kubepods/podx/c", ""},
		{"/kubepods/podx", "/kubepods/podx/c", ""},
		{"/kubepods/podx/cc", "/kubepods/podx/c", ""},
		{"/kubepods/podx/c", "/", ""},
		{"/kubepods/podx/c", "", ""},
	} {
		if err := os.MkdirAll(proc+"/7", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(proc+"/7/cgroup", []byte("3:freezer:"+test.own+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := h.Container(7, test.cgroupsPath)
		got := strings.TrimPrefix(g.dir, "/sys/fs/cgroup/freezer")
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("process in %s, cgroupsPath %q: got %q, %v, want %q", test.own, test.cgroupsPath, got, err, test.want)
		}
	}
	// The hierarchy is mounted from /n1 on.
	h.all[0].root = "/n1"
	if err := os.WriteFile(proc+"/7/cgroup", []byte("3:freezer:/n1/kubepods/c/init\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/kubepods/c", "/n1/kubepods/c"} {
		if g, err := h.Container(7, path); err != nil || g.dir != "/sys/fs/cgroup/freezer/kubepods/c" {
			t.Errorf("cgroupsPath %q: got %v, %v", path, g, err)
		}
	}
	if _, err := h.Container(8, "/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such process: got %v", err)
	}
}

// TestHoldOfNestedGroups: what the container's processes do in groups of their own making
// stops with it, and dies with it.
func TestHoldOfNestedGroups(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v2=%v", v2), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			top, out := ticker(t, fmt.Sprintf("drover-test-nested-%d-%v", os.Getpid(), v2), v2)
			if _, err := out.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			pids, err := top.Procs()
			if err != nil || len(pids) != 2 {
				t.Fatalf("processes: got %v, %v, want 2", pids, err)
			}
			h, err := Own()
			if err != nil {
				t.Fatal(err)
			}
			for i, pid := range pids {
				below := Group{dir: fmt.Sprintf("%s/own%d", top.dir, i), v2: v2}
				if err := below.make(); err != nil {
					t.Fatal(err)
				}
				// Cleanups run in reverse: first all are killed, then this goes.
				t.Cleanup(func() {
					if err := errors.Join(top.Kill(context.Background()), os.Remove(below.dir)); err != nil {
						t.Error(err)
					}
				})
				if err := write(below.dir+"/cgroup.procs", fmt.Sprint(pid)); err != nil {
					t.Fatal(err)
				}
			}
			held := top
			if fz, isV2, err := h.freezer(); err == nil && isV2 == v2 {
				held, err = h.Container(pids[0], strings.TrimPrefix(top.dir, fz.dir))
				if err != nil || held != top {
					t.Fatalf("the container's group: got %v, %v, want %v", held, err, top)
				}
			}
			if err := held.Freeze(ctx); err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids {
				before := cpuTime(t, pid)
				if after := cpuTime(t, pid); before != after {
					t.Errorf("process %d ran while its container was frozen: %s, then %s", pid, before, after)
				}
			}
			if left, err := held.Procs(); err != nil || len(left) != 2 {
				t.Errorf("held: got %v, %v, want both", left, err)
			}
			if err := held.Kill(ctx); err != nil {
				t.Fatal(err)
			}
			if left, err := held.Procs(); err != nil || len(left) != 0 {
				t.Errorf("killed: got %v, %v", left, err)
			}
		})
	}
}

// Rouse leaves a process in its groups.
func TestRouse(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v2=%v", v2), func(t *testing.T) {
			g, _ := ticker(t, fmt.Sprintf("drover-test-rouse-%v", v2), v2)
			h, err := Own()
			if err != nil {
				t.Fatal(err)
			}
			if v2 {
				h.all = slices.DeleteFunc(h.all, func(x hierarchy) bool { return x.name != "" })
			}
			var pids []int
			for len(pids) == 0 { // the shell goes there by itself
				if pids, err = g.Procs(); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.Rouse(pids[0]); err != nil {
				t.Fatal(err)
			}
			if after, err := g.Procs(); err != nil || !slices.Contains(after, pids[0]) {
				t.Errorf("process %d is not in %s any more: %v, %v", pids[0], g, after, err)
			}
		})
	}
}

// The group of Drover's own weighs more than others, wherever CPU is shared out.
func TestJoin(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	h, err := Own()
	if err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/drover-test-join-%d", os.Getpid())
	t.Cleanup(func() {
		_, _ = sleep.Process.Kill(), sleep.Wait()
		for _, x := range h.all {
			if g, err := group(x, x.name == "", path); err == nil {
				if err := os.Remove(g.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
		}
	})
	for range 2 {
		if err := h.Join(path, sleep.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range h.all {
		g, err := group(x, x.name == "", path)
		if err != nil {
			t.Fatal(err)
		}
		if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{sleep.Process.Pid}) {
			t.Errorf("%s has %v, %v; want %d", g, pids, err, sleep.Process.Pid)
		}
		for file, want := range map[string]string{"cpu.shares": "10240", "cpu.weight": "1000"} {
			got, err := os.ReadFile(g.dir + "/" + file)
			if err == nil && strings.TrimSpace(string(got)) != want || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of %s is %q, %v; want %s", file, g, got, err, want)
			}
		}
	}
}
