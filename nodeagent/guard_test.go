package nodeagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/nodeagent/examine"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// tree is a /proc in which process 7 is of the container and holds what link says.
func tree(t *testing.T, id, link string) examine.Proc {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "7")
	if err := os.MkdirAll(filepath.Join(dir, "task", "7", "fd"), 0o700); err != nil {
		t.Fatal(err)
	}
	status := "Name:\tapp\nState:\tS\nTracerPid:\t0\nNSpid:\t7\t1\n"
	for path, data := range map[string]string{
		"cgroup": "0::/kubepods/pod1/" + id + "\n", "status": status, "task/7/status": status, "mountinfo": "", "maps": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(link, filepath.Join(dir, "task", "7", "fd", "3")); err != nil {
		t.Fatal(err)
	}
	return examine.Proc(root)
}

// toSidecar makes the pod's container a native sidecar, beside one whose processes are not there.
func toSidecar(p *corev1.Pod) {
	always := corev1.ContainerRestartPolicyAlways
	p.Spec.InitContainers, p.Status.InitContainerStatuses = p.Spec.Containers, p.Status.ContainerStatuses
	p.Spec.InitContainers[0].RestartPolicy = &always
	p.Spec.Containers = []corev1.Container{{Name: "main"}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", ContainerID: "containerd://f00d", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
}

// An agent orders no move that would be refused.
func TestUnmovable(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		link   string
		says   string
	}{
		"good":        {func(*corev1.Pod) {}, "anon_inode:[eventpoll]", ""},
		"its objects": {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "anon_inode:[io_uring]", "hostNetwork"},
		"a sidecar":   {toSidecar, "anon_inode:[io_uring]", "container app: descriptor 3"},
		"a process":   {func(*corev1.Pod) {}, "anon_inode:[io_uring]", "container app: descriptor 3 of process 1 (app) is an io_uring"},
	} {
		t.Run(name, func(t *testing.T) {
			p := testPod()
			c.change(p)
			if got := unmovable(tree(t, testContainer, c.link), p); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
				t.Errorf("%q, want %q", got, c.says)
			}
		})
	}
}

// A target takes a post-copy only when it knows that it can load memory later: the source freezes for it.
func TestComesByPostCopy(t *testing.T) {
	can, cannot := "", "no userfaultfd"
	for name, c := range map[string]struct {
		notLater *string
		postCopy bool
		refused  bool
	}{
		"not looked at yet":       {nil, true, true},
		"it cannot":               {&cannot, true, true},
		"it can":                  {&can, true, false},
		"not asked of it":         {nil, false, false},
		"it cannot, and need not": {&cannot, false, false},
	} {
		var a agent
		a.notLater.Store(c.notLater)
		if found := (guard{&a}).Comes(migrate.Move{PostCopy: c.postCopy}); (len(found) > 0) != c.refused {
			t.Errorf("%s: %v, want refused %v", name, found, c.refused)
		}
	}
}
