package e2e

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/witness"
)

// A pod without capabilities, under a seccomp filter, moves: CRIU suspends the filter, the
// target's agent finds that the copy asks for no more than its container may have, and the
// copy is as confined as the pod was. Its images are on the tmpfs alone, and gone afterwards.
func TestConfinedPodMoves(t *testing.T) {
	ctx, c, ns := scene(t, "confined")
	pod := c.Pod(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 8, Movable: true})
	no := false
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	check(t, c.Client.Create(ctx, pod))
	before := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	was := must[witness.Tick](t)(c.Status(ctx, before))
	to := other(before.Spec.NodeName)
	if out, err := c.Tool(ctx, "migrate", before.Name, "-n", ns, "--to", to, "--wait"); err != nil {
		t.Fatalf("kubectl drover migrate: %v\n%s", err, out)
	}
	after := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	if is := must[witness.Tick](t)(c.Status(ctx, after)); is.Instance != was.Instance {
		t.Errorf("before %+v, after %+v: want the same process", was, is)
	}
	for _, line := range []string{"CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		script := "cat /proc/$(pidof ticker | tr ' ' '\\n' | while read p; do grep -qs " + string(after.UID) + " /proc/$p/mountinfo && echo $p; done)/status"
		status, err := c.Lab.ExecInNode(ctx, to, "sh", "-c", script)
		if err != nil || !strings.Contains(status, line) {
			t.Errorf("the copy is not confined as the pod was: %v, want %q in\n%s", err, line, status)
		}
	}
	for _, node := range []string{before.Spec.NodeName, to} {
		mounts := must[string](t)(c.Lab.ExecInNode(ctx, node, "grep", " /run/drover/vault ", "/proc/mounts"))
		if !strings.Contains(mounts, "tmpfs") || !strings.Contains(mounts, "noswap") || !strings.Contains(mounts, "mode=700") {
			t.Errorf("node %s keeps images on %q, want a tmpfs of mode 700 that is never swapped", node, mounts)
		}
		check(t, cluster.Eventually(ctx, "the images are wiped on "+node, func(ctx context.Context) (bool, string) {
			left, err := c.Lab.ExecInNode(ctx, node, "find", "/run/drover/vault", "-type", "f")
			return err == nil && left == "", left
		}))
		if left := must[string](t)(c.Lab.ExecInNode(ctx, node, "find", "/var/lib/drover", "-name", "*.img")); left != "" {
			t.Errorf("node %s has images on disk: %s", node, left)
		}
	}
}
