package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/cluster"
)

// A move whose target's agent is away in the middle: the pod is held. The record says so,
// resolve shows both ends, and the user's abort lets the pod go on.
func TestHeldMoveIsSeenAndResolved(t *testing.T) {
	ctx, c, ns := scene(t, "resolve")
	m := begin(ctx, t, c, ns, nil)
	source := m.pod.Spec.NodeName
	// Before the freeze the source would ask the target for room, and freeze nothing in vain.
	check(t, c.Held(ctx, source))
	// Stopped, not ended: nothing lets go of what it holds, and nobody takes the images.
	signal(ctx, t, c, m.to, "STOP")
	stopped := true
	wake := func() {
		if stopped {
			stopped = false
			signal(context.Background(), t, c, m.to, "CONT")
		}
	}
	t.Cleanup(wake)
	held := must[*v1alpha1.PodMigration](t)(c.Until(ctx, m.move, "is held", func(m *v1alpha1.PodMigration) bool {
		return meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionHeld)
	}))
	t.Logf("%+v", meta.FindStatusCondition(held.Status.Conditions, v1alpha1.ConditionHeld))
	out, err := c.Tool(ctx, "resolve", "-n", ns)
	if err != nil || !strings.Contains(out, m.move.Name) || !strings.Contains(out, " wait") {
		t.Errorf("resolve: %v\n%s", err, out)
	}
	out, err = c.Tool(ctx, "resolve", "-n", ns, m.move.Name)
	for _, want := range []string{"undecided", "source        on " + source + ": processes, frozen", "a fence of epoch", "target        on " + m.to + ": not known", "--abort"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("resolve lacks %q: %v\n%s", want, err, out)
		}
	}
	t.Log(out)
	if out, err := c.Tool(ctx, "resolve", "-n", ns, m.move.Name, "--return", "--i-am-sure-node-is-off", m.to); err == nil {
		t.Errorf("an undecided move was returned:\n%s", out)
	}
	out, err = c.Tool(ctx, "resolve", "-n", ns, m.move.Name, "--abort")
	if err != nil || !strings.Contains(out, "decided: ") {
		t.Fatalf("abort: %v\n%s", err, out)
	}
	// The source goes on while the target's agent is still away.
	last, _ := c.Witness.Last(m.was.Instance)
	heard(ctx, t, c, m.was.Instance, last.Seq+50)
	wake()
	end := m.settled(ctx, t, c)
	if end.Status.Phase != v1alpha1.PhaseAborted || !strings.HasPrefix(end.Status.DecisionBy, "user ") || end.Status.DecisionReason != "Resolved" {
		t.Errorf("phase %s, decided by %q for %q", end.Status.Phase, end.Status.DecisionBy, end.Status.DecisionReason)
	}
	if h := meta.FindStatusCondition(end.Status.Conditions, v1alpha1.ConditionHeld); h == nil || h.Status != "False" {
		t.Errorf("condition %+v, want that nobody is held any more", h)
	}
	if out, err := c.Tool(ctx, "resolve", "-n", ns, m.move.Name, "--abort"); err == nil {
		t.Errorf("an ended move was aborted again:\n%s", out)
	}
	check(t, c.Measured(ctx))
}

// While the API server is away nobody can write a condition: the agents' metrics tell, and
// the chart's alert is raised.
func TestHeldPodRaisesTheAlert(t *testing.T) {
	ctx, c, ns := scene(t, "alert")
	loadRules(ctx, t, c)
	m := begin(ctx, t, c, ns, nil)
	check(t, c.Held(ctx, m.pod.Spec.NodeName))
	check(t, c.Lab.StopAPIServer(ctx))
	raised := alerts(ctx, c, "DroverPodHeld")
	check(t, c.Lab.StartAPIServer(ctx))
	check(t, raised)
	m.settled(ctx, t, c)
}

func signal(ctx context.Context, t *testing.T, c *cluster.Cluster, node, name string) {
	t.Helper()
	out, err := c.Lab.ExecInNode(ctx, node, "sh", "-c", "kill -"+name+" $(pidof drover-agent)")
	if err != nil {
		t.Errorf("kill -%s the agent on %s: %v\n%s", name, node, err, out)
	}
}

// rulesFile is the chart's, as a plain rules file.
var rulesFile = filepath.Join("..", "..", "manifests", "drover", "files", "rules.yaml")

// loadRules has the lab's Prometheus load the chart's rules file as it is.
func loadRules(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	rules := base64.StdEncoding.EncodeToString(must[[]byte](t)(os.ReadFile(rulesFile)))
	out, err := c.Lab.ExecInNode(ctx, lab.ControlPlane, "sh", "-c", "mkdir -p /var/lib/prometheus/rules && echo "+rules+
		" | base64 -d >/var/lib/prometheus/rules/drover.yaml && promtool check rules /var/lib/prometheus/rules/drover.yaml && kill -HUP $(pidof prometheus)")
	if err != nil {
		t.Fatalf("load the rules: %v\n%s", err, out)
	}
}

// alerts waits until the chart's alert fires in the real Prometheus.
func alerts(ctx context.Context, c *cluster.Cluster, name string) error {
	_, prometheus, err := c.Lab.URLs()
	if err != nil {
		return err
	}
	for _, a := range dashboards.Alerts() {
		if a.Name == name {
			return cluster.Eventually(ctx, "alert "+name, func(ctx context.Context) (bool, string) {
				got, err := ask(ctx, prometheus, fmt.Sprintf("count(ALERTS{alertname=%q,alertstate=\"firing\"})", name))
				value, _ := ask(ctx, prometheus, a.Expr)
				return err == nil && got != "", fmt.Sprintf("%q firing (%v), the expression gives %q", got, err, value)
			})
		}
	}
	return fmt.Errorf("there is no alert %s", name)
}

// A good pod moves with the condition that
// its processes were examined.
func TestMoveIsExaminedFirst(t *testing.T) {
	ctx, c, ns := scene(t, "examined")
	m := begin(ctx, t, c, ns, nil)
	end := m.settled(ctx, t, c)
	cond := meta.FindStatusCondition(end.Status.Conditions, v1alpha1.ConditionMovable)
	if end.Status.Phase != v1alpha1.PhaseCompleted || cond == nil || cond.Status != "True" || cond.Reason != "Examined" {
		t.Errorf("phase %s, condition %+v", end.Status.Phase, cond)
	}
}
