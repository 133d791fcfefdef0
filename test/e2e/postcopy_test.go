package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/test/cluster"
)

// A pod is moved by post-copy: it runs before its memory is there, finds all of it, and its source ends only
// then.
func TestPostCopy(t *testing.T) {
	ctx, c, ns := scene(t, "post-copy")
	m := begins(ctx, t, c, ns)
	out, err := c.Tool(ctx, "migrate", m.pod.Name, "-n", ns, "--to", m.to, "--post-copy", "--wait")
	if err != nil {
		t.Fatalf("kubectl drover migrate: %v\n%s", err, out)
	}
	t.Log("\n" + out)
	all := &v1alpha1.PodMigrationList{}
	check(t, c.Client.List(ctx, all, client.InNamespace(ns)))
	m.move = &all.Items[0]
	end := m.settled(ctx, t, c)
	var steps []string
	for _, e := range end.Status.Timeline {
		steps = append(steps, e.Step)
	}
	last := -1
	for _, step := range []string{migrate.StepResumed, migrate.StepLoaded, migrate.StepSourceEnded, "HandedOver"} {
		i := slices.Index(steps, step)
		if i <= last {
			t.Errorf("step %s is number %d of %q, want it after those before", step, i, steps)
		}
		last = i
	}
	if sent := end.Status.Bytes; sent == 0 || sent > 16<<20 {
		t.Errorf("images of %d bytes were sent, want some, without the memory", sent)
	}
}

func postCopy(m *v1alpha1.PodMigration) { m.Spec.PostCopy = true }

// lacks is a copy that runs and may lack memory.
func lacks(m *v1alpha1.PodMigration) bool { return m.Status.Target.Resumed && !m.Status.Target.Loaded }

// Agents that are killed while a copy loads its memory cost it time, and nothing else.
func TestPostCopyAgentsAreKilled(t *testing.T) {
	ctx, c, ns := scene(t, "post-copy-agents")
	m := begins(ctx, t, c, ns)
	m.move = must[*v1alpha1.PodMigration](t)(c.Order(ctx, m.pod, m.to, postCopy))
	must[*v1alpha1.PodMigration](t)(c.Seen(ctx, m.move, lacks))
	for _, node := range []string{m.to, m.pod.Spec.NodeName} {
		if out, err := c.Lab.ExecInNode(ctx, node, "sh", "-c", "kill -9 $(pidof drover-agent)"); err != nil {
			t.Fatalf("kill the agent on %s: %v\n%s", node, err, out)
		}
	}
	if end := m.settled(ctx, t, c); end.Status.Phase != v1alpha1.PhaseCompleted {
		t.Errorf("the move ended as %s", end.Status.Phase)
	}
	check(t, c.Measured(ctx))
}

// When the source's processes end while the copy loads, the memory that had not come is lost: the copy is
// killed before it reads anything else, and its container starts anew, in the moved pod.
func TestPostCopySourceEnds(t *testing.T) {
	ctx, c, ns := scene(t, "post-copy-lost")
	m := begins(ctx, t, c, ns)
	m.move = must[*v1alpha1.PodMigration](t)(c.Order(ctx, m.pod, m.to, postCopy))
	must[*v1alpha1.PodMigration](t)(c.Seen(ctx, m.move, lacks))
	if out, err := c.Lab.ExecInNode(ctx, m.pod.Spec.NodeName, "sh", "-c", "kill -9 $(pidof ticker)"); err != nil {
		t.Fatalf("kill the source's processes on %s: %v\n%s", m.pod.Spec.NodeName, err, out)
	}
	end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m.move))
	if end.Status.Phase != v1alpha1.PhaseCompleted || !end.Status.Target.Loaded {
		t.Errorf("the move ended as %s, loaded: %t", end.Status.Phase, end.Status.Target.Loaded)
	}
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	if pod.Spec.NodeName != m.to {
		t.Errorf("the pod is on %s, want %s", pod.Spec.NodeName, m.to)
	}
	check(t, cluster.Eventually(ctx, "the container starts anew", func(ctx context.Context) (bool, string) {
		now, err := c.Status(ctx, pod)
		if err != nil {
			return false, err.Error()
		}
		return now.Instance != m.was.Instance, "instance " + now.Instance
	}))
	if fault := c.Witness.Account(m.was.Instance).Fault(); fault != "" {
		t.Error(fault)
	}
	events := &corev1.EventList{}
	check(t, c.Client.List(ctx, events, client.InNamespace(ns)))
	if !slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
		return e.Reason == "MemoryLost" && strings.Contains(e.Message, "the memory is lost")
	}) {
		t.Error("no Event tells that memory is lost")
	}
	m.nothingLeft(ctx, t, c)
}
