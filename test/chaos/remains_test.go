package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/deploy"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/remains"
)

// What is left behind is found: one of each kind is laid out, and must be on the list.
func TestRemainsAreFound(t *testing.T) {
	c := needStage(t)
	ctx := t.Context()
	root, err := c.Lab.Root(third)
	if err != nil {
		t.Fatal(err)
	}
	l := layout.Layout{Run: filepath.Join(root, layout.Default.Run), State: filepath.Join(root, layout.Default.State)}
	uid := podOn(ctx, t, c, third)
	for _, dir := range []string{filepath.Join(l.Images(), "planted"), filepath.Join(l.Dumps(), "planted"), l.Work("planted"), filepath.Join(l.Run, "begun", "planted")} {
		must(t, os.MkdirAll(dir, 0o700))
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	must(t, layout.WriteNote(l.RestoreNote("planted"), map[string]string{"podUID": uid, "id": "planted", "stage": "held"}))
	t.Cleanup(func() { os.Remove(l.RestoreNote("planted")) })
	must(t, l.WriteContainer(layout.Container{ID: "planted", PodUID: uid}))
	t.Cleanup(func() { l.RemoveContainer("planted") })
	must(t, l.Fences().Write(fence.Fence{PodUID: uid, Epoch: 2, Migration: ns + "/planted"}))
	t.Cleanup(func() { l.Fences().Lift(uid, 2) })
	onNode(t, c, "mkdir -p /run/planted/criu-root && mount -t tmpfs planted /run/planted/criu-root", "umount /run/planted/criu-root")
	const enter = `ip netns exec "$(ls /run/netns | head -n 1)" `
	onNode(t, c, enter+"nft add table inet CRIU-planted", enter+"nft delete table inet CRIU-planted")
	freeze(t, c)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: "planted", Labels: map[string]string{v1alpha1.LabelReplacement: "planted"},
			Annotations: map[string]string{v1alpha1.AnnotationMoving: "planted", corev1.PodDeletionCost: "2147483647"},
		},
		Spec: corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "x", Image: "x"}}},
	}
	must(t, c.Client.Create(ctx, pod))
	t.Cleanup(func() { c.Client.Delete(context.Background(), pod, client.GracePeriodSeconds(0)) })

	left, err := remains.Find(ctx, c.Lab, c.Client)
	must(t, err)
	for _, want := range []string{
		"images planted", "dump planted", "log of a restore planted", "mark planted", "note of the restore of pod " + uid,
		"note containers/planted.json", "fence of pod " + uid, "mount /run/planted/criu-root", "network lock CRIU-planted",
		"process criu: dump 1000", "planted: ", "pod chaos/planted bears the annotation", "pod chaos/planted bears the deletion cost", "pod chaos/planted is a replacement",
	} {
		if !strings.Contains(strings.Join(left, "\n"), want) {
			t.Errorf("%q is not found among\n%s", want, strings.Join(left, "\n"))
		}
	}
}

// podOn gives the UID of one of Drover's pods on a node.
func podOn(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) string {
	t.Helper()
	var pods corev1.PodList
	must(t, c.Client.List(ctx, &pods, client.InNamespace(deploy.Namespace)))
	for _, p := range pods.Items {
		if p.Spec.NodeName == node {
			return string(p.UID)
		}
	}
	t.Fatalf("no pod of Drover is on %s", node)
	return ""
}

func onNode(t *testing.T, c *cluster.Cluster, do, undo string) {
	t.Helper()
	if _, err := c.Lab.ExecInNode(t.Context(), third, "sh", "-c", do); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.Lab.ExecInNode(context.Background(), third, "sh", "-c", undo); err != nil {
			t.Error(err)
		}
	})
}

// freeze holds a process that calls itself CRIU in a group of the node's.
func freeze(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	pods, err := c.Lab.PodsGroup(third)
	must(t, err)
	mount, file, on := "/sys/fs/cgroup/freezer", "freezer.state", [2]string{"FROZEN", "THAWED"}
	if _, err := os.Stat(mount); err != nil {
		mount, file, on = "/sys/fs/cgroup", "cgroup.freeze", [2]string{"1", "0"}
	}
	group := filepath.Join(mount, pods, "planted")
	must(t, os.Mkdir(group, 0o755))
	cmd := &exec.Cmd{Path: "/bin/sleep", Args: []string{"criu: dump", "1000"}}
	must(t, cmd.Start())
	set := func(name, value string) {
		if err := os.WriteFile(filepath.Join(group, name), []byte(value), 0o644); err != nil {
			t.Error(fmt.Errorf("plant a frozen group: %w", err))
		}
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		set(file, on[1])
		cmd.Wait()
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	set("cgroup.procs", strconv.Itoa(cmd.Process.Pid))
	set(file, on[0])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
