package e2e

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/internal/lifecycle"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/test/cluster"
)

var (
	lifeOutage = flag.Duration("life.outage", 15*time.Second, "how long the API server is away in TestPictureWithoutTheAPIServer, at least")
	lifeRotate = flag.Bool("life.rotate", false, "run TestKeysAreRotated, too: it waits minutes for kubelets")
)

// stays looks at every agent's picture until enough is true of all at once, and fails if ok ever
// finds fault with one.
func stays(ctx context.Context, t *testing.T, c *cluster.Cluster, what string, on []string, ok func(view.Snapshot) string, enough func(map[string]view.Snapshot) bool) {
	t.Helper()
	fault, began := "", time.Now()
	err := cluster.Eventually(ctx, what, func(ctx context.Context) (bool, string) {
		views, err := c.ViewsOn(ctx, on...)
		if err != nil {
			return false, err.Error()
		}
		for by, s := range views {
			if why := ok(s); why != "" {
				fault = by + ": " + why
				return true, ""
			}
		}
		return enough(views), pictures(views)
	})
	check(t, err)
	if fault != "" {
		t.Fatalf("%s: %s", what, fault)
	}
	t.Logf("%s after %.1f s", what, time.Since(began).Seconds())
}

// pictures puts in words what each agent holds each node for.
func pictures(views map[string]view.Snapshot) string {
	var b strings.Builder
	for by, s := range views {
		for _, id := range s.IDs() {
			fmt.Fprintf(&b, "%s holds %s for %s (%s); ", by, id, s.Nodes[id].Phase, s.Nodes[id].Why)
		}
	}
	return b.String()
}

// held tells whether all of the pictures hold a node for that.
func held(views map[string]view.Snapshot, id string, phase model.Phase) bool {
	for _, s := range views {
		if s.Nodes[model.NodeID(id)].Phase != phase {
			return false
		}
	}
	return true
}

func allNormal(views map[string]view.Snapshot) bool {
	for _, id := range shared.Nodes() {
		if !held(views, id, model.Normal) {
			return false
		}
	}
	return len(views) == len(shared.Nodes())
}

// never is what no picture may hold a node for.
func never(id string, phases ...model.Phase) func(view.Snapshot) string {
	return func(s view.Snapshot) string {
		n := s.Nodes[model.NodeID(id)]
		for _, p := range phases {
			if n.Phase == p {
				return fmt.Sprintf("holds %s for %s: %s", id, p, n.Why)
			}
		}
		return ""
	}
}

func anything(view.Snapshot) string { return "" }

// While the API server is away the agents go on hearing each other, and know where every pod is.
// An agent that is killed meanwhile stays away, for it needs the API server to begin: its node is
// suspected, and held for dead by nobody, for its kernel answers. All comes back by itself.
func TestPictureWithoutTheAPIServer(t *testing.T) {
	ctx, c, ns := scene(t, "api-away")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), *lifeOutage+4*time.Minute)
	defer cancel()
	nodes := c.Nodes()
	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "stays", Node: "n3", Silent: true})))
	must[*corev1.Pod](t)(c.Ready(ctx, ns, "stays"))
	stays(ctx, t, c, "all are normal", nodes, anything, allNormal)

	check(t, c.Lab.StopAPIServer(ctx))
	back := false
	t.Cleanup(func() {
		if !back {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			check(t, c.Lab.StartAPIServer(ctx))
		}
	})
	away := time.Now()
	stays(ctx, t, c, "all stay normal and fresh without the API server", nodes, func(s view.Snapshot) string {
		for _, id := range s.IDs() {
			if age, heard := s.Nodes[id].Age(s.At); s.Nodes[id].Phase != model.Normal || !heard || age > 2*lifecycle.Quiet {
				return fmt.Sprintf("%s is %s, heard %v ago", id, s.Nodes[id].Phase, age)
			}
		}
		return ""
	}, func(map[string]view.Snapshot) bool { return time.Since(away) > *lifeOutage/3 })
	asked(ctx, t, c, ns, nodes...)

	all := must[[]lab.Process](t)(c.Lab.Processes("n1"))
	killed := 0
	for _, p := range all {
		if p.Program() == "drover-agent" {
			check(t, p.Signal(unix.SIGKILL))
			killed++
		}
	}
	if killed == 0 {
		t.Fatal("there is no agent on n2")
	}
	others := []string{"n2", "n3"}
	stays(ctx, t, c, "n1 is suspected, for longer than a dead node would be, and never dead", others, never("n1", model.Dead, model.Left, ""),
		func(views map[string]view.Snapshot) bool {
			for _, s := range views {
				n := s.Nodes["n1"]
				age, _ := n.Age(s.At)
				if n.Phase != model.Suspected || s.At.Sub(n.Missing) < lifecycle.Quiet+3*time.Second || age < lifecycle.Unheard+3*time.Second {
					return false
				}
			}
			return time.Since(away) > *lifeOutage
		})
	asked(ctx, t, c, ns, others...)

	step := time.Now()
	told := func(what string) {
		t.Logf("%s after %.1f s", what, time.Since(step).Seconds())
		step = time.Now()
	}
	check(t, c.Lab.StartAPIServer(ctx))
	back = true
	told("the API server is back")
	stays(ctx, t, c, "n1 is back", nodes, never("n1", model.Dead, model.Left), allNormal)
	check(t, c.Measured(ctx))
	told("route times are known")
}

// asked asks the agents where the pod is, each by the user's tool, run on its node.
func asked(ctx context.Context, t *testing.T, c *cluster.Cluster, ns string, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		askedOn(ctx, t, c, ns, node)
	}
}

func askedOn(ctx context.Context, t *testing.T, c *cluster.Cluster, ns, node string) {
	t.Helper()
	for pod, want := range map[string]string{"stays": "stays is on n3", "no-such-pod": `no pod "no-such-pod"`} {
		out, err := c.ToolOn(ctx, node, "where", pod, "-n", ns, "--agent", "http://127.0.0.1:7950")
		if (err == nil) != (pod == "stays") || !strings.Contains(out, want) {
			t.Errorf("where %s, on %s: %v\n%s", pod, node, err, out)
		}
	}
}

// A node whose network is cut is dead to those that hear each other; it holds nobody for dead,
// for it cannot know on which side it is. A node that is cordoned is leaving.
func TestPictureOfANodeThatIsCutOff(t *testing.T) {
	_, c, ns := scene(t, "cut")
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	nodes := c.Nodes()
	stays(ctx, t, c, "all are normal", nodes, anything, allNormal)
	check(t, c.Cordon(ctx, "n2", true))
	t.Cleanup(func() { check(t, c.Cordon(context.Background(), "n2", false)) })
	stays(ctx, t, c, "n2 is leaving", nodes, anything, func(views map[string]view.Snapshot) bool { return held(views, "n2", model.Leaving) })
	check(t, c.Cordon(ctx, "n2", false))
	stays(ctx, t, c, "n2 stays", nodes, anything, allNormal)

	links := []string{"n1", "n2", lab.ControlPlane}
	set := func(ctx context.Context, delay time.Duration) {
		t.Helper()
		for _, other := range links {
			check(t, c.Lab.SetDelay(ctx, "n3", other, delay))
		}
	}
	t.Cleanup(func() { set(context.Background(), 0) })
	set(ctx, -1)
	stays(ctx, t, c, "n3 is dead to the others", []string{"n1", "n2"}, anything, func(views map[string]view.Snapshot) bool { return held(views, "n3", model.Dead) })
	stays(ctx, t, c, "n3 suspects the others, and no more", []string{"n3"}, func(s view.Snapshot) string {
		return never("n1", model.Dead, model.Left)(s) + never("n2", model.Dead, model.Left)(s)
	}, func(views map[string]view.Snapshot) bool {
		return held(views, "n1", model.Suspected) && held(views, "n2", model.Suspected)
	})
	out, err := c.Tool(ctx, "status")
	if err != nil || !strings.Contains(out, "dead") || !strings.Contains(out, "its kernel answers nobody") {
		t.Errorf("status says nothing of it: %v\n%s", err, out)
	}
	t.Log(out)
	set(ctx, 0)
	stays(ctx, t, c, "n3 is back", nodes, anything, allNormal)
	check(t, c.Measured(ctx))
	check(t, cluster.Eventually(ctx, "its death and its return are events", func(ctx context.Context) (bool, string) {
		events := &corev1.EventList{}
		if err := c.Client.List(ctx, events, client.InNamespace(corev1.NamespaceDefault)); err != nil {
			return false, err.Error()
		}
		seen := map[string]bool{}
		for _, e := range events.Items {
			if e.InvolvedObject.Kind == "Node" && e.InvolvedObject.Name == "n3" {
				seen[e.Reason] = true
			}
		}
		return seen["DroverNodeDead"] && seen["DroverNodeBack"], fmt.Sprint(seen)
	}))

	// Those that watch the API server hear of it only when their old connections are given up, which takes
	// longer than gossip: scheduler and kubelet first, then the agent.
	probe := c.Pod(cluster.Ticker{Namespace: ns, Name: "there", Silent: true})
	probe.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n3"}
	check(t, c.Client.Create(ctx, probe))
	must[*corev1.Pod](t)(c.Ready(ctx, ns, "there"))
	check(t, cluster.Eventually(ctx, "n3 and Drover's pods on it are ready", func(ctx context.Context) (bool, string) {
		node, pods := &corev1.Node{}, &corev1.PodList{}
		if err := c.Client.Get(ctx, client.ObjectKey{Name: "n3"}, node); err != nil {
			return false, err.Error()
		}
		if !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) || len(node.Spec.Taints) > 0 {
			return false, fmt.Sprintf("node: %v, taints %v", node.Status.Conditions, node.Spec.Taints)
		}
		if err := c.Client.List(ctx, pods, client.InNamespace("drover-system")); err != nil {
			return false, err.Error()
		}
		for i := range pods.Items {
			if p := &pods.Items[i]; p.Spec.NodeName == "n3" && !cluster.IsReady(p) {
				return false, p.Name + " is not ready"
			}
		}
		return true, ""
	}))
	check(t, c.Client.Create(ctx, c.Deployment(cluster.Ticker{Namespace: ns, Name: "goes", Node: "n1", Movable: true, Silent: true})))
	for _, to := range []string{"n3", "n1"} {
		pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "goes"))
		m := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, to))))
		if m.Status.Phase != v1alpha1.PhaseCompleted {
			t.Fatalf("move to %s: phase %s: %v", to, m.Status.Phase, m.Status.Conditions)
		}
	}
}

// The gossip gets another key by one command, and no node is ever held for anything but normal.
func TestKeysAreRotated(t *testing.T) {
	if !*lifeRotate {
		t.Skip("it waits minutes for kubelets: make test-life runs it, and internal/gossip the same in virtual time")
	}
	_, c, _ := scene(t, "keys")
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	nodes := c.Nodes()
	stays(ctx, t, c, "all are normal", nodes, anything, allNormal)
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := c.Tool(ctx, "rotate-key")
		done <- result{out, err}
	}()
	var r result
	stays(ctx, t, c, "all stay normal while the key is rotated", nodes, func(s view.Snapshot) string {
		for _, id := range s.IDs() {
			if s.Nodes[id].Phase != model.Normal {
				return fmt.Sprintf("%s is %s: %s", id, s.Nodes[id].Phase, s.Nodes[id].Why)
			}
		}
		return ""
	}, func(map[string]view.Snapshot) bool {
		select {
		case r = <-done:
			return true
		default:
			return false
		}
	})
	t.Log(r.out)
	if r.err != nil || !strings.Contains(r.out, "every member has it alone") {
		t.Errorf("rotate-key: %v", r.err)
	}
}
