package e2e

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/witness"
)

// moving is a move that is under way when a fault strikes.
type moving struct {
	pod  *corev1.Pod
	was  witness.Tick
	to   string
	move *v1alpha1.PodMigration
}

// begins starts a Deployment of one ticker, to be moved.
func begins(ctx context.Context, t *testing.T, c *cluster.Cluster, ns string) moving {
	t.Helper()
	check(t, c.Client.Create(ctx, c.Deployment(cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 512, Movable: true})))
	m := moving{pod: must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))}
	m.was = must[witness.Tick](t)(c.Status(ctx, m.pod))
	m.to = other(m.pod.Spec.NodeName)
	heard(ctx, t, c, m.was.Instance, 10)
	return m
}

// begin starts one and orders its move.
func begin(ctx context.Context, t *testing.T, c *cluster.Cluster, ns string, before func(to string)) moving {
	t.Helper()
	m := begins(ctx, t, c, ns)
	if before != nil {
		before(m.to)
	}
	m.move = must[*v1alpha1.PodMigration](t)(c.Order(ctx, m.pod, m.to))
	return m
}

func createWaits(m *v1alpha1.PodMigration) bool { return m.Status.Target.Waiting }

// settled waits for the move's end and checks what holds whatever the fault was: one pod
// is left, the same process with its memory goes on in it, nothing was doubled or lost,
// and the record says why.
func (m moving) settled(ctx context.Context, t *testing.T, c *cluster.Cluster) *v1alpha1.PodMigration {
	t.Helper()
	end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m.move))
	cond := meta.FindStatusCondition(end.Status.Conditions, v1alpha1.ConditionComplete)
	if cond == nil || cond.Message == "" {
		t.Errorf("the move ended without a condition that says how: %+v", end.Status.Conditions)
	}
	if end.Status.Decision == v1alpha1.Abort && (end.Status.DecisionReason == "" || end.Status.DecisionMessage == "") {
		t.Errorf("aborted without a reason: %+v", end.Status)
	}
	t.Logf("phase %s: %s: %s", end.Status.Phase, end.Status.DecisionReason, end.Status.DecisionMessage)
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, m.pod.Namespace, "counter"))
	on := m.pod.Spec.NodeName
	if end.Status.Phase == v1alpha1.PhaseCompleted {
		on = m.to
	}
	if pod.Spec.NodeName != on {
		t.Errorf("the pod is on %s, want %s after phase %s", pod.Spec.NodeName, on, end.Status.Phase)
	}
	last, _ := c.Witness.Last(m.was.Instance)
	heard(ctx, t, c, m.was.Instance, last.Seq+50)
	is := must[witness.Tick](t)(c.Status(ctx, pod))
	if is.Instance != m.was.Instance || is.Now != m.was.Start {
		t.Errorf("before %+v, after %+v: want the same process with its memory", m.was, is)
	}
	if fault := c.Witness.Account(m.was.Instance).Fault(); fault != "" {
		t.Error(fault)
	}
	m.nothingLeft(ctx, t, c)
	return end
}

// nothingLeft: no replacement stays behind.
func (m moving) nothingLeft(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	check(t, cluster.Eventually(ctx, "no replacement is left behind", func(ctx context.Context) (bool, string) {
		pods := &corev1.PodList{}
		err := c.Client.List(ctx, pods, client.InNamespace(m.pod.Namespace), client.HasLabels{v1alpha1.LabelReplacement})
		if err != nil || len(pods.Items) > 0 {
			return false, "some are"
		}
		return true, ""
	}))
}

func TestTargetAgentIsKilledInTheMiddle(t *testing.T) {
	ctx, c, ns := scene(t, "agent-killed")
	m := begin(ctx, t, c, ns, nil)
	must[*v1alpha1.PodMigration](t)(c.Seen(ctx, m.move, createWaits))
	out, err := c.Lab.ExecInNode(ctx, m.to, "sh", "-c", "kill -9 $(pidof drover-agent)")
	if err != nil {
		t.Fatalf("kill the agent on %s: %v\n%s", m.to, err, out)
	}
	m.settled(ctx, t, c)
	check(t, c.Measured(ctx))
}

func TestSourceAgentIsKilledInTheMiddle(t *testing.T) {
	ctx, c, ns := scene(t, "source-killed")
	m := begin(ctx, t, c, ns, nil)
	must[*v1alpha1.PodMigration](t)(c.Seen(ctx, m.move, createWaits))
	out, err := c.Lab.ExecInNode(ctx, m.pod.Spec.NodeName, "sh", "-c", "kill -9 $(pidof drover-agent)")
	if err != nil {
		t.Fatalf("kill the agent on %s: %v\n%s", m.pod.Spec.NodeName, err, out)
	}
	m.settled(ctx, t, c)
	check(t, c.Measured(ctx))
}

// A CRIU that cannot restore: the source goes on, nothing is started empty in its place.
func TestRestoreFails(t *testing.T) {
	ctx, c, ns := scene(t, "restore-fails")
	m := begin(ctx, t, c, ns, func(to string) { breakCRIU(ctx, t, c, to) })
	end := m.settled(ctx, t, c)
	if end.Status.Phase != v1alpha1.PhaseAborted {
		t.Errorf("phase %s, want %s", end.Status.Phase, v1alpha1.PhaseAborted)
	}
	if n := len(c.Witness.Account(m.was.Instance).Froms); n != 1 {
		t.Errorf("ticks came from %d places, want from the source alone", n)
	}
}

// breakCRIU makes the node's CRIU fail until the test ends.
func breakCRIU(ctx context.Context, t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	out, err := c.Lab.ExecInNode(ctx, node, "mount", "--bind", "/usr/bin/false", "/usr/sbin/criu")
	if err != nil {
		t.Fatalf("break CRIU on %s: %v\n%s", node, err, out)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if out, err := c.Lab.ExecInNode(ctx, node, "umount", "/usr/sbin/criu"); err != nil {
			t.Fatalf("mend CRIU on %s: %v\n%s", node, err, out)
		}
		if err := c.Able(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// The user's deletion wins: the source's end is not undone by its copy.
func TestSourcePodIsDeletedInTheMiddle(t *testing.T) {
	ctx, c, ns := scene(t, "deleted")
	m := begin(ctx, t, c, ns, nil)
	must[*v1alpha1.PodMigration](t)(c.Seen(ctx, m.move, createWaits))
	check(t, c.Client.Delete(ctx, m.pod, client.GracePeriodSeconds(1), client.Preconditions{UID: &m.pod.UID}))
	end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m.move))
	t.Logf("phase %s: %s: %s", end.Status.Phase, end.Status.DecisionReason, end.Status.DecisionMessage)
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	is := must[witness.Tick](t)(c.Status(ctx, pod))
	switch end.Status.Phase {
	case v1alpha1.PhaseAborted: // its owner made a new one
		if is.Instance == m.was.Instance {
			t.Errorf("the deleted pod's process lives on after an abort")
		}
	case v1alpha1.PhaseCompleted: // the commit was first
		if is.Instance != m.was.Instance {
			t.Errorf("committed, but the process is another")
		}
	default:
		t.Errorf("phase %s", end.Status.Phase)
	}
	if a := c.Witness.Account(m.was.Instance); len(a.Doubled) > 0 || a.Overlap {
		t.Error(a.Fault())
	}
	m.nothingLeft(ctx, t, c)
}

// An API server that is away: who is held stays held, and all goes on when it is back.
func TestAPIServerStopsInTheMiddle(t *testing.T) {
	ctx, c, ns := scene(t, "api-stops")
	m := begin(ctx, t, c, ns, nil)
	source := m.pod.Spec.NodeName
	check(t, c.Held(ctx, source))
	check(t, c.Lab.StopAPIServer(ctx))
	// The record cannot be written: the source is held, before the commit and after it.
	held := c.Held(ctx, source)
	check(t, c.Lab.StartAPIServer(ctx))
	check(t, held)
	m.settled(ctx, t, c)
}

// bad moves: each gets one clear line, and nothing changes.
func TestMovesThatAreRefused(t *testing.T) {
	ctx, c, ns := scene(t, "refused")
	for name, p := range map[string]*corev1.Pod{
		"not-opted-in": c.Pod(cluster.Ticker{Namespace: ns, Name: "not-opted-in"}),
		"movable":      c.Pod(cluster.Ticker{Namespace: ns, Name: "movable", Movable: true}),
		"wrong-class":  c.Pod(cluster.Ticker{Namespace: ns, Name: "wrong-class", Movable: true}),
	} {
		if name == "wrong-class" {
			p.Spec.RuntimeClassName = nil
		}
		check(t, c.Client.Create(ctx, p))
		must[*corev1.Pod](t)(c.Ready(ctx, ns, name))
	}
	nowhere := c.Pod(cluster.Ticker{Namespace: ns, Name: "nowhere", Movable: true, CPU: "500"})
	check(t, c.Client.Create(ctx, nowhere))
	for _, r := range []struct{ pod, to, reason string }{
		{"no-such-pod", "", "PodNotFound"},
		{"nowhere", "", "NotScheduled"},
		{"not-opted-in", "", "NotOptedIn"},
		{"wrong-class", "", "WrongRuntimeClass"},
		{"movable", "no-such-node", "NodeNotFound"},
	} {
		t.Run(r.reason, func(t *testing.T) {
			m := &v1alpha1.PodMigration{
				ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: r.pod + "-"},
				Spec:       v1alpha1.PodMigrationSpec{PodName: r.pod, TargetNode: r.to},
			}
			check(t, c.Client.Create(ctx, m))
			end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, m))
			accepted := meta.FindStatusCondition(end.Status.Conditions, v1alpha1.ConditionAccepted)
			if end.Status.Phase != v1alpha1.PhaseRejected || accepted == nil || accepted.Reason != r.reason || accepted.Message == "" {
				t.Errorf("phase %s, condition %+v, want rejected for %s", end.Status.Phase, accepted, r.reason)
			}
			out, err := c.Tool(ctx, "migrate", r.pod, "-n", ns, "--to", r.to, "--wait")
			if err == nil {
				t.Errorf("kubectl drover migrate %s --to %q: exit 0\n%s", r.pod, r.to, out)
			}
			t.Log(out)
		})
	}
	pods := &corev1.PodList{}
	check(t, c.Client.List(ctx, pods, client.InNamespace(ns)))
	if len(pods.Items) != 4 {
		t.Errorf("%d pods after refused moves, want the 4 from before", len(pods.Items))
	}
	for _, p := range pods.Items {
		if p.Annotations[v1alpha1.AnnotationEpoch] != "" {
			t.Errorf("pod %s got an epoch by a refused move", p.Name)
		}
	}
}
