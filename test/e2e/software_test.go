package e2e

import (
	"context"
	"embed"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
)

//go:embed software
var softwareFiles embed.FS

// software is what people run, and what must be true of it after a move.
type software struct {
	cluster.Software
	file string // of folder software, mounted below /files
	// begin looks at it, or puts it to work, before the move. What it gives is called after
	// the move and fails the test if something is lost.
	begin func(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) (after func(pod *corev1.Pod))
	// stays, if it cannot be moved, is what the move's message says: it goes on where it is.
	stays string
}

func softwares(t *testing.T) []software {
	// Not from a file: a shell keeps its script open, and a ConfigMap's files have other paths
	// on every node.
	pipeline := string(must[[]byte](t)(softwareFiles.ReadFile("software/pipeline.sh")))
	return []software{
		{cluster.Software{Name: "redis", Port: 6379, Command: []string{
			"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--io-threads", "2",
		}}, "", redisUnderLoad, ""},
		{cluster.Software{Name: "threads", Command: []string{"/threads", "-instance=$(INSTANCE)", "-witness=$(WITNESS)"}}, "", ticks(1), ""},
		{cluster.Software{Name: "pipeline", Command: []string{"sh", "-c", pipeline}}, "", pipelineCounts, ""},
		{cluster.Software{Name: "python", Command: []string{"python3", "/files/state.py"}}, "state.py", ticks(1), ""},
		// CRIU cannot dump io_uring. libuv does without where the profile forbids it;
		// UV_USE_IO_URING=0 leaves one ring (1.50).
		{cluster.Software{Name: "nodejs", Seccomp: true, Command: []string{"node", "/files/state.js"}}, "state.js", ticks(1), ""},
		{cluster.Software{Name: "nginx", Port: 8080, Command: []string{"nginx", "-e", "stderr", "-c", "/files/nginx.conf"}}, "nginx.conf", nginxServes, ""},
		{cluster.Software{Name: "io-uring", Command: []string{"node", "/files/state.js"}}, "state.js", ticks(0), "io_uring"},
		{cluster.Software{Name: "open-script", Command: []string{"sh", "-c", "exec 3< /files/state.py; python3 /files/state.py"}}, "state.py", ticks(0), "its path has the time of its mounting"},
		{cluster.Software{Name: "own-log", Command: []string{"sh", "-c", "exec 3> /var/log/own; python3 /files/state.py"}}, "state.py", ticks(1), ""},
	}
}

// Programs from Debian's packages go on after a move with all that they had, without a
// crash. Those that CRIU cannot take go on where they are.
func TestRealSoftware(t *testing.T) {
	_, c, ns := scene(t, "software")
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // a cold cache fetches packages
	t.Cleanup(cancel)
	image := must[string](t)(c.LoadSoftware(ctx))
	all := softwares(t)
	for _, s := range all {
		s.Namespace, s.Image, s.Files = ns, image, map[string]string{}
		s.Env = map[string]string{"INSTANCE": ns + "-" + s.Name, "WITNESS": c.WitnessAddr}
		if s.file != "" {
			s.Files[s.file] = string(must[[]byte](t)(softwareFiles.ReadFile("software/" + s.file)))
		}
		check(t, c.Start(ctx, s.Software))
	}
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, s.Name))
			after := s.begin(ctx, t, c, pod)
			move := must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, other(pod.Spec.NodeName)))
			end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, move))
			then := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, s.Name))
			s.ended(t, pod, then, end)
			after(then)
			now := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, s.Name))
			if n := now.Status.ContainerStatuses[0].RestartCount; now.UID != then.UID || n != 0 {
				t.Errorf("pod %s has restarted %d times (it was pod %s)", now.Name, n, then.Name)
			}
		})
	}
}

// ended: the move came to the end that it must come to.
func (s software) ended(t *testing.T, before, after *corev1.Pod, m *v1alpha1.PodMigration) {
	t.Helper()
	want := v1alpha1.PhaseCompleted
	if s.stays != "" {
		want = v1alpha1.PhaseAborted
	}
	if m.Status.Phase != want || !strings.Contains(m.Status.DecisionMessage, s.stays) {
		t.Fatalf("phase %s: %s: %s; want %s %q", m.Status.Phase, m.Status.DecisionReason, m.Status.DecisionMessage, want, s.stays)
	}
	if s.stays != "" {
		if after.UID != before.UID {
			t.Fatalf("after the abort the pod is %s, was %s", after.Name, before.Name)
		}
		return
	}
	if after.UID == before.UID || after.Spec.NodeName != m.Spec.TargetNode {
		t.Fatalf("after the move the pod is %s on %s, want another object on %s", after.Name, after.Spec.NodeName, m.Spec.TargetNode)
	}
	t.Logf("frozen for %s, %d MiB sent", m.Status.FrozenTime.Duration.Round(time.Millisecond), m.Status.Bytes>>20)
}

// ticks: a process that sends ticks under its name. After so many moves it is the same
// process, no tick is lost or doubled, and what its ticks sum up is unchanged.
func ticks(moves int) func(context.Context, *testing.T, *cluster.Cluster, *corev1.Pod) func(*corev1.Pod) {
	return func(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) func(*corev1.Pod) {
		t.Helper()
		prefix := pod.Namespace + "-" + pod.Labels["app"] + "-"
		check(t, cluster.Eventually(ctx, "ticks of "+prefix, func(context.Context) (bool, string) {
			return len(c.Witness.Named(prefix)) > 0, "none was heard"
		}))
		instance := c.Witness.Named(prefix)[0]
		heard(ctx, t, c, instance, 60)
		return func(*corev1.Pod) {
			t.Helper()
			last, _ := c.Witness.Last(instance)
			heard(ctx, t, c, instance, last.Seq+120) // all of them sum everything up within 50
			if names := c.Witness.Named(prefix); len(names) != 1 {
				t.Errorf("processes heard: %v, want one", names)
			}
			if fault := c.Witness.Account(instance).FaultAfter(moves); fault != "" {
				t.Error(fault)
			}
		}
	}
}

// pipelineCounts: no line that was in a pipe, or in a buffer of three processes, is lost.
func pipelineCounts(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) func(*corev1.Pod) {
	t.Helper()
	counted := func(pod *corev1.Pod, atLeast int) (first, last int) {
		t.Helper()
		check(t, cluster.Eventually(ctx, fmt.Sprintf("line %d has come through the pipeline", atLeast), func(ctx context.Context) (bool, string) {
			log, err := kubectl(ctx, c, "logs", "-n", pod.Namespace, pod.Name)
			if err != nil {
				return false, err.Error()
			}
			first, last = 0, 0
			for line := range strings.Lines(log) {
				wrong := 0
				if n, err := fmt.Sscan(line, &last, &wrong); n != 2 || wrong != 0 {
					t.Fatalf("the pipeline said %q, want lines without any wrong (%v)", line, err)
				}
				if first == 0 {
					first = last
				}
			}
			return last >= atLeast, fmt.Sprintf("it is at line %d", last)
		}))
		return first, last
	}
	_, before := counted(pod, 500)
	return func(pod *corev1.Pod) {
		t.Helper()
		if first, _ := counted(pod, before+1000); first <= before {
			t.Errorf("after the move the pipeline began at line %d, before it was at %d", first, before)
		}
	}
}

// kubectl runs kubectl as the lab's administrator and gives all that it printed.
func kubectl(ctx context.Context, c *cluster.Cluster, args ...string) (string, error) {
	program, err := c.Lab.Kubectl()
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, program, append([]string{"--kubeconfig", c.Lab.Kubeconfig()}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
