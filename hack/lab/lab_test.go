package lab

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/hack/image"
)

const (
	testLab   = "lab-test"
	testImage = "localhost/drover-lab/probe:1"
)

// TestLab takes a lab through its life. The machine is looked at before and after: nothing of the
// lab may be left. (It needs root, and builds the cache if it is empty.)
func TestLab(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx := t.Context()
	config := Config{Name: testLab, Nodes: []Node{{Name: "a"}, {Name: "b", Labels: map[string]string{"zone": "z"}}}, Report: t.Logf}
	if err := Down(ctx, testLab); err != nil {
		t.Fatal(err)
	}
	before := lookAtMachine(t)
	t.Cleanup(func() {
		if err := Down(context.Background(), testLab); err != nil {
			t.Error(err)
		}
	})
	l, err := Up(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	x := &labTest{l, build(t)}
	if !x.run(t, ctx) {
		return
	}
	spaces := x.namespaces(t)

	if err := Down(ctx, testLab); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, lookAtMachine(t)); diff != "" {
		t.Errorf("the machine before (-) and after (+) the lab:\n%s", diff)
	}
	if left := stillUsed(t, spaces); len(left) > 0 {
		t.Errorf("network namespaces of the lab live on in processes %v", left)
	}
	if err := Down(ctx, testLab); err != nil {
		t.Errorf("second down: %v", err)
	}
	if _, err := Open(testLab); !errors.Is(err, ErrNotUp) {
		t.Errorf("open after down: %v, want %v", err, ErrNotUp)
	}
}

type labTest struct {
	*Lab
	image string // a tar
}

// run tells whether all steps went well; each builds on those before.
func (x *labTest) run(t *testing.T, ctx context.Context) bool {
	for _, step := range []struct {
		name string
		f    func(*testing.T, context.Context)
	}{
		{"nodes", x.nodes},
		{"pod", x.pod},
		{"host reaches service", x.hostReachesService},
		{"witness", x.witness},
		{"prometheus", x.prometheus},
		{"delay", x.delay},
		{"speed", x.speed},
		{"second up", x.secondUp},
		{"API server restarts", x.apiServer},
		{"node restarts", x.nodeRestart},
		{"crash", x.crash},
	} {
		ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		if !t.Run(step.name, func(t *testing.T) { step.f(t, ctx) }) {
			return false
		}
	}
	return true
}

// namespaces are the network namespaces of the lab's machines.
func (x *labTest) namespaces(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, m := range machines(x.Config) {
		path, err := x.namespace(m.name, "net")
		if err != nil {
			t.Fatal(err)
		}
		ns, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ns)
	}
	return out
}

func stillUsed(t *testing.T, spaces []string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range all {
		if ns, err := os.Readlink(path); err == nil && slices.Contains(spaces, ns) {
			out = append(out, path)
		}
	}
	return out
}

// lookAtMachine is what a lab could leave behind, as far as it can be told from what others do on
// the machine meanwhile.
func lookAtMachine(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, p := range strays(testLab) {
		found["processes"] = append(found["processes"], strconv.Itoa(p.PID))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, testLab) {
			found["mounts"] = append(found["mounts"], line)
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		found["interfaces"] = append(found["interfaces"], i.Name)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/*" + testLab + "*")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("/sys/fs/cgroup/*" + testLab + "*")
	if err != nil {
		t.Fatal(err)
	}
	found["cgroups"] = append(groups, more...)
	files, err := filepath.Glob(stateRoot() + "/" + testLab + "*")
	if err != nil {
		t.Fatal(err)
	}
	found["files"] = files
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max"} {
		b, err := os.ReadFile("/proc/sys/" + name)
		if err == nil {
			found["sysctls"] = append(found["sysctls"], name+"="+strings.TrimSpace(string(b)))
		}
	}
	return found
}

// build gives a tar of the probe's image.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, tar := filepath.Join(dir, "probe"), filepath.Join(dir, "probe.tar")
	cmd := exec.Command("go", "build", "-o", program, "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, out)
	}
	if err := image.Write(tar, testImage, map[string]string{"/probe": program}, []string{"/probe"}); err != nil {
		t.Fatal(err)
	}
	return tar
}
