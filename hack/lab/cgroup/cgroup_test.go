package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParse: the three kinds of machines, as their /proc/self/mountinfo shows them.
func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       Tree
	}{
		{"v2", `
24 30 0:22 / /sys rw - sysfs sysfs rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`, Tree{{Mount: "/sys/fs/cgroup", Version: 2}}},
		{"hybrid", `
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset,clone_children
34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x/agent,name=systemd
35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`, Tree{
			{Mount: "/sys/fs/cgroup/cpu,cpuacct", Version: 1, Controllers: []string{"cpu", "cpuacct"}},
			{Mount: "/sys/fs/cgroup/cpuset", Version: 1, Controllers: []string{"cpuset"}},
			{Mount: "/sys/fs/cgroup/systemd", Version: 1, Controllers: []string{"name=systemd"}},
			{Mount: "/sys/fs/cgroup/unified", Version: 2},
		}},
		{"mounted twice, and a part of one", `
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
36 31 0:29 / /mnt/cpu rw - cgroup cgroup rw,cpu
37 31 0:31 /docker/x /mnt/part rw - cgroup cgroup rw,pids
`, Tree{{Mount: "/sys/fs/cgroup/cpu", Version: 1, Controllers: []string{"cpu"}}}},
		{"nonsense", "a b\n - \n1 2 3 / /x - cgroup\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("got (+), want (-):\n%s", diff)
			}
		})
	}
}

func TestQuota(t *testing.T) {
	for cores, want := range map[float64]int{
		1:     100_000, // 1 * 100 ms
		1.5:   150_000,
		0.001: 1000, // 100 us, below the kernel's least of 1 ms
	} {
		if got := quota(cores); got != want {
			t.Errorf("%g cores: got %d us, want %d", cores, got, want)
		}
	}
}

func TestMissing(t *testing.T) {
	got := missing([]string{"cpu", "memory", "io"}, []string{"memory", "cpu", "rdma"}, []string{"cpu"})
	if diff := cmp.Diff([]string{"memory"}, got); diff != "" {
		t.Error(diff)
	}
}

// fakeV2 plays a cgroup v2 file system in a plain folder: it holds the files that Make and SetSpeed
// use, so that their paths and values can be seen where there is no v2.
func fakeV2(t *testing.T, groups ...string) Tree {
	root := t.TempDir()
	for _, g := range append([]string{""}, groups...) {
		dir := filepath.Join(root, g)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"cgroup.controllers": "cpuset cpu io memory pids", "cgroup.subtree_control": "", "cpu.max": "max 100000"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return Tree{{Mount: root, Version: 2, Controllers: []string{"cpuset", "cpu", "io", "memory", "pids"}}}
}

func TestV2(t *testing.T) {
	tree := fakeV2(t, "lab", "lab/n1")
	if err := tree.Make("/lab/n1", true); err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		b, err := os.ReadFile(filepath.Join(tree[0].Mount, path))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, level := range []string{".", "lab", "lab/n1"} {
		if got := read(level + "/cgroup.subtree_control"); got != "+io" { // a file keeps the last of the writes
			t.Errorf("%s: controllers not enabled: %q", level, got)
		}
	}
	for _, test := range []struct {
		cores float64
		want  string
	}{{1.5, "150000 100000"}, {0, "max"}} {
		if err := tree.SetSpeed("/lab/n1", test.cores); err != nil {
			t.Fatal(err)
		}
		if got := read("lab/n1/cpu.max"); !strings.HasPrefix(got, test.want) {
			t.Errorf("%g cores: cpu.max is %q, want %q", test.cores, got, test.want)
		}
	}
}

// TestRoundTrip makes, uses and removes a cgroup on the machine it runs on.
func TestRoundTrip(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	tree, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	const group = "drover-cgroup-test"
	t.Cleanup(func() { _ = tree.Remove(t.Context(), group) })
	if err := tree.Make("/"+group+"/a/b", true); err != nil {
		t.Fatal(err)
	}
	if !tree.Exists(group+"/a/b") || len(tree.Groups(group)) != 1 {
		t.Errorf("made %s, but found %v", group, tree.Groups(group))
	}
	if err := tree.SetSpeed(group+"/a", 0.5); err != nil {
		t.Error(err)
	}
	if err := tree.Remove(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	if tree.Exists(group) {
		t.Error("removed, but still there")
	}
	if err := tree.Remove(t.Context(), group); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	for _, name := range []string{"", "/", ".", "a/.."} {
		if err := tree[0].remove(name); err == nil {
			t.Errorf("the root cgroup, as %q, was removed", name)
		}
	}
}
