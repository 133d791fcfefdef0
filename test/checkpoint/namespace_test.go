package checkpoint

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/hosted"
)

// asNamed is a process of this binary that begins in a control group namespace of its own, as
// an agent's container does on cgroup v2, and says in which it ends up.
func asNamed() int {
	if err := hosted.EnterCgroupNamespace(); err != nil {
		fmt.Println(err)
		return 1
	}
	link, err := os.Readlink("/proc/self/ns/cgroup")
	fmt.Println(link)
	if err != nil {
		return 1
	}
	return 0
}

// TestEnterCgroupNamespace: the program that was executed anew sees the node's groups, with the
// arguments it had.
func TestEnterCgroupNamespace(t *testing.T) {
	node, err := os.Readlink("/proc/1/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string]uintptr{"its own": unix.CLONE_NEWCGROUP, "the node's": 0} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), stage+"=named")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != node {
			t.Errorf("from %s: got %q, %v, want %s", name, out, err, node)
		}
	}
}
