package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
	"github.com/drover-project/drover/test/cluster"
)

// verdict is what "kubectl drover check -o json" says.
type verdict struct {
	Movable    bool
	Findings   []movable.Finding
	Candidates []movable.Candidate
}

func (v verdict) reasons() []string {
	var r []string
	for _, f := range v.Findings {
		r = append(r, f.Reason)
	}
	slices.Sort(r)
	return r
}

// ask runs "kubectl drover check" and gives its verdict and exit code.
func askCheck(ctx context.Context, t *testing.T, c *cluster.Cluster, args ...string) (verdict, int) {
	t.Helper()
	out, err := c.Tool(ctx, append([]string{"check", "-o", "json"}, args...)...)
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var v verdict
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&v); err != nil && code != 2 {
		t.Fatalf("%v in %s", err, out)
	}
	t.Logf("check %v: exit code %d\n%s", args, code, out)
	return v, code
}

// odd is a pod that holds one odd thing: see test/checkpoint/odd.
func odd(c *cluster.Cluster, ns, kind string) *corev1.Pod {
	p := c.Pod(cluster.Ticker{Namespace: ns, Name: kind, Movable: true, Silent: true})
	p.Spec.Containers[0].Command, p.Spec.Containers[0].Args = []string{"/odd", kind}, nil
	p.Spec.Containers[0].ReadinessProbe = nil
	return p
}

// What check says, a move finds too: and one that cannot be moved is not frozen for it.
func TestCheck(t *testing.T) {
	ctx, c, ns := scene(t, "check")
	good := c.Pod(cluster.Ticker{Namespace: ns, Name: "good", Movable: true})
	mptcp := c.Pod(cluster.Ticker{Namespace: ns, Name: "mptcp", Movable: true})
	mptcp.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "GODEBUG", Value: "multipathtcp=1"}}
	uring := odd(c, ns, "io-uring")
	files := c.Pod(cluster.Ticker{Namespace: ns, Name: "files", Movable: true})
	files.Spec.Volumes = []corev1.Volume{
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "var", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var"}}},
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}},
	}
	for _, p := range []*corev1.Pod{good, mptcp, uring, files} {
		check(t, c.Client.Create(ctx, p))
	}
	for _, p := range []*corev1.Pod{good, mptcp, uring, files} {
		*p = *must[*corev1.Pod](t)(c.Ready(ctx, ns, p.Name))
	}
	for _, x := range []struct {
		pod  *corev1.Pod
		want []string
	}{
		{good, nil}, {mptcp, []string{movable.ReasonMPTCP}}, {uring, []string{movable.ReasonIOURing}},
		{files, []string{movable.ReasonUnsupportedVolume, movable.ReasonUnsupportedVolume}},
	} {
		t.Run(x.pod.Name, func(t *testing.T) {
			v, code := askCheck(ctx, t, c, x.pod.Name, "-n", ns)
			if !slices.Equal(v.reasons(), x.want) || v.Movable != (x.want == nil) || v.Movable != (code == 0) || !v.Movable && code != 1 {
				t.Errorf("movable %v, findings %v, exit code %d, want %v", v.Movable, v.reasons(), code, x.want)
			}
			if len(v.Candidates) != len(c.Nodes())-1 {
				t.Errorf("candidates %+v, want the other nodes", v.Candidates)
			}
			refused(ctx, t, c, x.pod, x.want)
		})
	}
	t.Run("nowhere to go", func(t *testing.T) {
		to := other(good.Spec.NodeName)
		check(t, c.Cordon(ctx, to, true))
		defer func() { check(t, c.Cordon(context.Background(), to, false)) }()
		if v, code := askCheck(ctx, t, c, good.Name, "-n", ns, "--to", to); code != 1 || !slices.Contains(v.reasons(), movable.ReasonBarred) {
			t.Errorf("to a cordoned node: exit code %d, %v", code, v.reasons())
		}
	})
	if v, code := askCheck(ctx, t, c, "no-such-pod", "-n", ns); code != 1 || !slices.Equal(v.reasons(), []string{"PodNotFound"}) {
		t.Errorf("a pod that is not there: exit code %d, %v", code, v.reasons())
	}
	if _, code := askCheck(ctx, t, c, "good", "-n", ns, "-o", "yaml"); code != 2 {
		t.Errorf("a wrong flag: exit code %d, want 2", code)
	}
}

// refused orders the move of a pod that check finds something against: it is rejected or
// aborted for the first reason, and was never frozen.
func refused(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod, reasons []string) {
	t.Helper()
	if len(reasons) == 0 {
		return
	}
	end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, ""))))
	accepted := meta.FindStatusCondition(end.Status.Conditions, v1alpha1.ConditionAccepted)
	found := meta.FindStatusCondition(end.Status.Conditions, v1alpha1.ConditionMovable)
	switch end.Status.Phase {
	case v1alpha1.PhaseRejected:
		if accepted.Reason != reasons[0] || strings.Count(accepted.Message, "volume ") < len(reasons) {
			t.Errorf("rejected: %+v, want all of %v", accepted, reasons)
		}
	case v1alpha1.PhaseAborted:
		if end.Status.DecisionReason != reasons[0] || found == nil || found.Status != "False" || found.Reason != reasons[0] {
			t.Errorf("aborted: %s: %s; condition %+v; want %v", end.Status.DecisionReason, end.Status.DecisionMessage, found, reasons)
		}
	default:
		t.Errorf("phase %s, want that it is not moved", end.Status.Phase)
	}
	for _, s := range end.Status.Timeline {
		if s.Step == "Frozen" || s.Step == "Dumped" {
			t.Errorf("the pod was frozen for a move that could not be: %+v", s)
		}
	}
	must[*corev1.Pod](t)(c.Ready(ctx, pod.Namespace, pod.Name))
}
