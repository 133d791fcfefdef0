package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
)

// The default profile takes n2, which has more room: of 4 cores and 8 GiB 1 and 1 are requested
// then, on n1 3 and 3. Drover's takes n1: of the 1 + 2.33 cores that web wants now and then it has 2, (2 + 0.25*6)/0.2 * (2/3.33)^2 =
// 6.3, and n2 has 3, (3 + 0.25*7)/2 * (3/3.33)^2 = 1.9.
func TestNearNode(t *testing.T) {
	a := answered(t, "--cluster", write(t, "c.yaml", twoNodes), "--pods", write(t, "p.yaml", web), "--measurements", twoMeasured(t))
	if len(a.Profiles) != 2 || a.Profiles[0].Name != "default-scheduler" || a.Profiles[1].Name != "drover-scheduler" {
		t.Fatalf("profiles: %+v", a.Profiles)
	}
	for i, want := range []struct {
		node   string
		ms     float64 // to db on n1; the floor on n1 itself
		cross  float64
		cpu    simulate.Share
		memory simulate.Share
	}{
		{"n2", 2, 1, simulate.Share{Node: "n1", Share: .5}, simulate.Share{Node: "n1", Share: .25}},
		{"n1", 0.2, 0, simulate.Share{Node: "n1", Share: .75}, simulate.Share{Node: "n1", Share: .375}},
	} {
		p := a.Profiles[i]
		s := p.Summary
		if got := nodesOf(p); !slices.Equal(got, []string{want.node}) {
			t.Errorf("%s: on %v, want %s", p.Name, got, want.node)
		}
		if s.Routes != 1 || !near(s.RouteMean, want.ms) || !near(s.RouteP99, want.ms) || p.Pods[0].RouteTime == nil || !near(*p.Pods[0].RouteTime, want.ms) {
			t.Errorf("%s: route time %+v, want %v ms", p.Name, s, want.ms)
		}
		if s.Pairs != 1 || s.CrossZone != want.cross || s.CPU != want.cpu || s.Memory != want.memory || s.Overshoot != 0 {
			t.Errorf("%s: %+v, want %+v", p.Name, s, want)
		}
		if s.Placed != 1 || s.PerNode[want.node] != 1 || len(s.PerNode) != 1 {
			t.Errorf("%s: %+v", p.Name, s)
		}
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// Old measurements count as they did when they were taken.
func TestAgesAreThoseOfThePicture(t *testing.T) {
	stale := heard(eightGiB, model.Resources{}, map[model.NodeID]float64{"n2": 2})
	stale.Received = taken.Add(-31e9) // a second more than staleAfter
	other := stale
	other.State.PodRoutes = map[model.NodeID]model.RouteTime{"n1": stale.State.PodRoutes["n2"]}
	m := measurements(t, map[model.NodeID]view.Node{"n1": stale, "n2": other})
	a := answered(t, "--cluster", write(t, "c.yaml", twoNodes), "--pods", write(t, "p.yaml", web), "--measurements", m)
	if got := nodesOf(a.Profiles[1]); got[0] != "n2" {
		t.Errorf("by stale measurements Drover's profile chose %s: want n2, as the default one", got[0])
	}
}

// A pod sees those before it: queue has to go to n1, and web, its peer, goes there too by Drover's: 1.9 cores and
// 5 GiB are left, (1.9 + 0.25*5)/0.2 * (1.9/3.33)^2 = 5.1, on n2 1.9 as above. Without queue n1 would be as far.
func TestPodsSeeThoseBefore(t *testing.T) {
	queue := strings.NewReplacer("name: web", "name: queue", "annotations: {drover.dev/peers: app=db}", "labels: {app: queue}",
		`cpu: "1"`, "cpu: 100m", "spec:", "spec:\n  nodeSelector: {kubernetes.io/hostname: n1}").Replace(web)
	pods := queue + "---" + strings.Replace(web, "app=db", "app=queue", 1)
	a := answered(t, "--cluster", write(t, "c.yaml", twoNodes), "--pods", write(t, "p.yaml", pods), "--measurements", twoMeasured(t))
	if on := nodesOf(a.Profiles[0]); !slices.Equal(on, []string{"n1", "n2"}) {
		t.Errorf("the default profile placed queue and web on %v, want n1 and n2", on)
	}
	if on := nodesOf(a.Profiles[1]); !slices.Equal(on, []string{"n1", "n1"}) {
		t.Errorf("Drover's profile placed queue and web on %v, want n1", on)
	}
}

// A pod of the cluster that has just come counts as one: with n2 at 1 ms, 3.9 there, n1 is the best with 6.3 as long as db runs; while it is starting the 2 cores that it requests come on top of
// those in use, and n1 has none.
func TestPodsThatStart(t *testing.T) {
	measured := twoPicture()
	measured.Nodes["n2"] = heard(eightGiB, measured.Nodes["n2"].State.Load.Used, map[model.NodeID]float64{"n1": 1})
	m, pods := measurements(t, measured.Nodes), write(t, "p.yaml", web)
	for phase, want := range map[string]string{"Running": "n1", "Pending": "n2"} {
		a := answered(t, "--cluster", write(t, "c.yaml", strings.Replace(twoNodes, "Running", phase, 1)), "--pods", pods, "--measurements", m, "--runs", "20")
		if o := a.Profiles[1].Pods[0]; o.Node != want || o.Runs != 20 {
			t.Errorf("while db is %s web comes to %v, want %s", phase, o.Nodes, want)
		}
	}
}

// 2 of 4 cores of n1 are free and all 4 of n2: four pods of 1.5 cores are one too many. A profile that
// does not look at resources places them all.
func TestPending(t *testing.T) {
	config := write(t, "config.yaml", `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: careful
- schedulerName: careless
  plugins: {multiPoint: {disabled: [{name: NodeResourcesFit}]}}
`)
	pods := write(t, "p.yaml", deployment("web", 4, "1500m", ""))
	args := []string{"--cluster", write(t, "c.yaml", twoNodes), "--pods", pods, "--measurements", "none", "--config", config}
	a := answered(t, args...)
	last := a.Profiles[0].Pods[3]
	if last.Node != "" || last.Reason != "0/2 nodes are available: 2 Insufficient cpu." || a.Profiles[0].Summary.Placed != 3 {
		t.Errorf("careful: %+v", last)
	}
	if slices.Contains(nodesOf(a.Profiles[1]), "") {
		t.Errorf("careless: %v", nodesOf(a.Profiles[1]))
	}
	out, notes, err := ask(t, append(args, "--fail-on-pending")...)
	if err == nil || !strings.Contains(err.Error(), "careful leaves 1 of 4 pods pending") {
		t.Errorf("--fail-on-pending: %v", err)
	}
	for _, want := range []string{"PENDING by careful: default/web-3: 0/2 nodes are available: 2 Insufficient cpu.", "3 of 4", "4 of 4"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	if !strings.Contains(notes, "RouteTime scores all nodes alike") {
		t.Errorf("notes: %s", notes)
	}
}

func deployment(name string, replicas int, cpu, peers string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}, annotations: {drover.dev/peers: %[4]q}}
    spec:
      containers: [{name: c, image: i, resources: {requests: {cpu: %[3]s, memory: 200Mi}}}]
`, name, replicas, cpu, peers)
}

// The scheduler spreads a Deployment's pods by its ReplicaSet's selector: without it both would go to the
// greater node, of which a pod takes the smaller share.
func TestDeploymentIsSpread(t *testing.T) {
	nodes := strings.Replace(twoNodes[:strings.LastIndex(twoNodes, "---")], `cpu: "4", memory: 8Gi`, `cpu: "100", memory: 200Gi`, 1)
	args := []string{"--cluster", write(t, "c.yaml", nodes), "--measurements", "none", "--pods"}
	a := answered(t, append(args, write(t, "p.yaml", deployment("web", 2, "100m", "")))...)
	if on := nodesOf(a.Profiles[0]); !slices.Equal(on, []string{"n1", "n2"}) {
		t.Errorf("a Deployment's pods are on %v, want n1 and n2", on)
	}
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{name: c, image: i, resources: {requests: {cpu: 100m, memory: 200Mi}}}]}\n---\n"
	a = answered(t, append(args, write(t, "p.yaml", fmt.Sprintf(pod, "a")+fmt.Sprintf(pod, "b")))...)
	if on := nodesOf(a.Profiles[0]); !slices.Equal(on, []string{"n1", "n1"}) {
		t.Errorf("pods of nobody are on %v, want both on n1", on)
	}
}

// 150 nodes that are all alike: the scheduler looks at 100 of them, and draws lots.
func TestSameAnswerTwice(t *testing.T) {
	var nodes strings.Builder
	for i := range 150 {
		fmt.Fprintf(&nodes, "apiVersion: v1\nkind: Node\nmetadata: {name: n%03d}\nstatus: {allocatable: {cpu: 4, memory: 8Gi, pods: 110}}\n---\n", i)
	}
	args := []string{"--cluster", write(t, "c.yaml", nodes.String()), "--pods", write(t, "p.yaml", deployment("web", 30, "100m", "")), "--measurements", "none"}
	one, again := answered(t, args...), answered(t, args...)
	first, _ := json.Marshal(one)
	second, _ := json.Marshal(again)
	if string(first) != string(second) {
		t.Error("the same question has two answers")
	}
	other := answered(t, append(args, "--seed", "2")...)
	if slices.Equal(nodesOf(one.Profiles[0]), nodesOf(other.Profiles[0])) {
		t.Error("other lots have the same answer")
	}
}

// Two empty nodes that are alike: in 20 runs each is chosen in some.
func TestRuns(t *testing.T) {
	nodes := twoNodes[:strings.LastIndex(twoNodes, "---")]
	args := []string{"--cluster", write(t, "c.yaml", nodes), "--pods", write(t, "p.yaml", web), "--measurements", "none", "--runs", "20"}
	a := answered(t, args...)
	p := a.Profiles[0]
	got := p.Pods[0].Nodes
	if got["n1"] == 0 || got["n2"] == 0 || got["n1"]+got["n2"] != 20 || p.Pods[0].Runs != max(got["n1"], got["n2"]) {
		t.Errorf("chosen: %v, told with %d", got, p.Pods[0].Runs)
	}
	if !near(p.Summary.PerNode["n1"], float64(got["n1"])/20) || !near(p.Summary.Placed, 1) {
		t.Errorf("mean: %+v", p.Summary)
	}
	out, _, err := ask(t, args...)
	if want := fmt.Sprintf("(%d of 20)", p.Pods[0].Runs); err != nil || !strings.Contains(out, want) {
		t.Errorf("output lacks %q (%v):\n%s", want, err, out)
	}
}

// A thousand pods of ten services on a thousand nodes in twenty zones, by both profiles.
func BenchmarkThousand(b *testing.B) {
	const nodes, services, zones = 1000, 10, 20
	cluster, measured := thousand(nodes, services, zones)
	var pods []simulate.Object
	for i := range services {
		text := deployment(fmt.Sprintf("web%d", i), 1000/services, "100m", fmt.Sprintf("app=db%d", i))
		some, err := simulate.Read(write(b, "p.yaml", text), simulate.Strict)
		if err != nil {
			b.Fatal(err)
		}
		pods = append(pods, some...)
	}
	for b.Loop() {
		c, err := simulate.NewCluster(cluster)
		if err != nil {
			b.Fatal(err)
		}
		list, err := c.Workload(pods, "default")
		if err != nil {
			b.Fatal(err)
		}
		more := plugins(measured)
		conf, err := simulate.Configuration([]byte(defaultConfig), "default", more)
		if err != nil {
			b.Fatal(err)
		}
		a, err := simulate.Ask(b.Context(), simulate.Question{Cluster: c, Pods: list, Measured: measured, Config: conf, More: more, Runs: 1, Seed: 1})
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range a.Profiles {
			if p.Summary.Placed != 1000 {
				b.Fatalf("%s placed %v", p.Name, p.Summary.Placed)
			}
			b.ReportMetric(p.Summary.RouteMean, p.Name+"-ms")
		}
	}
}
