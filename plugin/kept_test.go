package plugin

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/flowcontrol"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/metricstest"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

// bind has the pod scored on all nodes and bound to one, and gives the decision that is kept.
func (b *bench) bind(t *testing.T, p *corev1.Pod, node string) *decision.Decision {
	t.Helper()
	state := newState()
	b.scored(t, state, p)
	b.framework.RunPostBindPlugins(context.Background(), state, p, node)
	kept := b.kept.Of(p.Namespace, p.Name)
	if len(kept) == 0 {
		t.Fatal("no decision is kept")
	}
	return kept[0]
}

// toldOf gives the events that there are.
func (b *bench) toldOf() (told []string) {
	for {
		select {
		case e := <-b.events:
			told = append(told, e)
		default:
			return told
		}
	}
}

// n1 to n3 are at 0.2, 1 and 4 ms from the peer: 6/0.2 = 30, 6, 1.5, and 100, 46 and 0 points.
// Other gives n2 three times 90: 46 + 270 are more than 100.
func TestDecisionIsKeptWithItsParts(t *testing.T) {
	b := newBench()
	b.other = map[string]int64{"n2": 90}
	n := b.picture.Nodes["n3"]
	n.Received = time.Time{}
	b.picture.Nodes["n3"] = n
	b.now = t0.Add(3 * time.Second)
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	p := pod("p", annotated("drover.dev/peers", "app=db"))
	p.Spec.SchedulerName = "drover-scheduler"
	d := b.bind(t, p, "n2")

	score := func(name string, a float64, t time.Duration, points float64, reasons ...placement.Reason) placement.Score {
		return placement.Score{
			Node: model.NodeID(name), Idle: model.Resources{CPU: 4, Memory: 8 * model.GiB}, A: a, T: t, Points: points, Known: a > 0, Reasons: reasons,
			Route: placement.Route{Time: t, Known: true},
		}
	}
	near, far := score("n1", 30, 200*time.Microsecond, 100), score("n2", 6, time.Millisecond, 0)
	far.Route.Path = model.PathNode
	unheard := score("n3", 0, 4*time.Millisecond, 50, placement.Reason{Kind: placement.KindNoState}, placement.Reason{Kind: placement.KindMedian})
	unheard.Route.Path = model.PathNode
	want := &decision.Decision{
		Namespace: "ns", Name: "p", UID: "uid-p", Profile: "drover-scheduler", Ranked: b.now, Bound: b.now,
		Params: placement.Defaults(), Peers: map[model.NodeID]float64{"n1": 1}, PeersBy: "annotation", PeersWhy: "app=db", ViewAge: 3 * time.Second, Cluster: 3, Scored: 3,
		Plugins: []string{Name, otherName}, Winner: "n2",
		Nodes: []decision.Node{
			{Score: near, Age: 3 * time.Second, Said: []int64{100, 0}, Total: 100},
			{Score: far, Age: 3 * time.Second, Said: []int64{0, 270}, Total: 270},
			{Score: unheard, Age: decision.NotHeard, Said: []int64{50, 0}, Total: 50},
		},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	event := "Normal RouteTime n2 got 0 of 100 points among 3 nodes: A 6.00, C 4.00 cores, M 8.00 GiB, T 1.000 ms; the best by A is n1 with 30.00, other plugins decided"
	if diff := cmp.Diff([]string{event}, b.toldOf()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// Of many nodes the decision tells those of which all plugins said the most, the one that was chosen, and the one
// with the greatest A, of which another plugin said nothing.
func TestADecisionTellsOfTheForemost(t *testing.T) {
	const nodes = 2 * mostTold
	b := large(nodes)
	b.other = map[string]int64{}
	for i := 1; i < nodes; i++ {
		name := fmt.Sprint("n", i)
		b.use(model.NodeID(name), model.Resources{CPU: 2, Memory: 4 * model.GiB})
		b.other[name] = 100
	}
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	for _, winner := range []string{fmt.Sprint("n", nodes-1), "n1"} { // the farthest, and the nearest
		d := b.bind(t, pod("p-"+winner, annotated("drover.dev/peers", "app=db")), winner)
		told := map[model.NodeID]int{}
		for i, n := range d.Nodes {
			told[n.Node] = i
		}
		want := mostTold + 1 // n0
		if winner != "n1" {
			want++
		}
		if d.Scored != nodes || len(told) != want || d.Chosen() == nil || d.Best() == nil || d.Best().Node != "n0" {
			t.Errorf("%s chosen: %v; best %v; %d of %d nodes are told, want %d of %d", winner, d.Chosen(), d.Best(), len(told), d.Scored, want, nodes)
		}
		for i := range mostTold {
			if n := model.NodeID(fmt.Sprint("n", i+1)); d.Nodes[told[n]].Node != n || told[n] != i+1 {
				t.Errorf("%s chosen: %s, of those with the most points, is not told in its place", winner, n)
			}
		}
	}
}

// Attempts that end without a node leave nothing, and tell nothing.
func TestRetriesAreOneDecision(t *testing.T) {
	b := newBench()
	b.start(t, "")
	p := pod("p")
	for range 3 {
		b.scores(t, p)
	}
	if n := len(b.kept.Of("ns", "p")); n != 0 {
		t.Errorf("%d decisions are kept of a pod that was not bound", n)
	}
	b.bind(t, p, "n2")
	if told := b.toldOf(); len(told) != 1 || !strings.HasPrefix(told[0], "Normal RouteTime n2 got 100 of 100 points among 3 nodes: A 3.00") {
		t.Errorf("events %q, want one", told)
	}
	if n := len(b.kept.Of("ns", "p")); n != 1 {
		t.Errorf("%d decisions are kept, want 1", n)
	}
}

// A thousand pods that are bound at once do not make as many events beside the scheduler's own.
func TestEventsAreBounded(t *testing.T) {
	b := newBench()
	b.start(t, "")
	b.plugin.telling = flowcontrol.NewFakeNeverRateLimiter()
	b.bind(t, pod("p"), "n2")
	if told := b.toldOf(); len(told) != 0 {
		t.Errorf("events %q, want none", told)
	}
	if n := testutil.ToFloat64(b.metrics.untold); n != 1 {
		t.Errorf("drover_scheduler_untold_decisions_total is %v, want 1", n)
	}
}

func TestEventsCanBeTurnedOff(t *testing.T) {
	b := newBench()
	b.quiet = true
	b.start(t, "")
	b.bind(t, pod("p"), "n2")
	if told := b.toldOf(); len(told) != 0 {
		t.Errorf("events %q, want none", told)
	}
}

func TestEventOfANeutralScore(t *testing.T) {
	b := newBench()
	b.picture = view.Snapshot{}
	b.start(t, "")
	b.bind(t, pod("p"), "n2")
	want := []string{"Normal RouteTime n2 got the neutral 50 of 100 points among 3 nodes: nothing was heard from this node's agent yet"}
	if diff := cmp.Diff(want, b.toldOf()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// The scheduler scores nothing when one node alone is feasible.
func TestNothingWasScored(t *testing.T) {
	b := newBench()
	b.start(t, "")
	b.framework.RunPostBindPlugins(context.Background(), newState(), pod("p"), "n2")
	kept := b.kept.Of("ns", "p")
	if len(kept) != 1 || kept[0].Winner != "n2" || len(kept[0].Nodes) != 0 || !kept[0].Ranked.IsZero() || !kept[0].Bound.Equal(t0) {
		t.Errorf("kept: %+v", kept)
	}
	if told := b.toldOf(); len(told) != 0 {
		t.Errorf("events %q, want none", told)
	}
}

// Extenders' points come into what the framework gave, some nodes' only: they are in the totals.
func TestExtendersCountInTheTotals(t *testing.T) {
	b := newBench()
	b.start(t, "")
	b.framework = Listen(b.framework.(listener).Framework, extender{})
	p, state := pod("p"), newState()
	b.framework.RunPreScorePlugins(context.Background(), state, p, b.infos)
	scores, _ := b.framework.RunScorePlugins(context.Background(), state, p, b.infos)
	scores[0].Scores = append(scores[0].Scores, framework.PluginScore{Name: "extender", Score: 1000})
	scores[0].TotalScore += 1000
	b.framework.RunPostBindPlugins(context.Background(), state, p, scores[0].Name)
	d := b.kept.Of("ns", "p")[0]
	if c := d.Chosen(); cmp.Diff([]string{Name}, d.Plugins) != "" || len(c.Said) != 1 || c.Total != c.Said[0]+1000 {
		t.Errorf("plugins %v, said %v, total %d", d.Plugins, c.Said, c.Total)
	}
}

// The scheduler sorts what the framework gave while it chooses: each node keeps its own points.
func TestPointsStayWithTheirNodesWhenTheSchedulerSorts(t *testing.T) {
	b := newBench()
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	p, state := pod("p", annotated("drover.dev/peers", "app=db")), newState()
	b.framework.RunPreScorePlugins(context.Background(), state, p, b.infos)
	scores, _ := b.framework.RunScorePlugins(context.Background(), state, p, b.infos)
	total := map[model.NodeID]int64{}
	for _, n := range scores {
		total[model.NodeID(n.Name)] = n.TotalScore
	}
	scores[0], scores[1], scores[2] = scores[2], scores[0], scores[1]
	b.framework.RunPostBindPlugins(context.Background(), state, p, "n1")
	for _, n := range b.kept.Of("ns", "p")[0].Nodes {
		if n.Total != total[n.Node] || len(n.Said) != 1 || n.Said[0] != total[n.Node] {
			t.Errorf("%s: said %v, %d in all, want %d", n.Node, n.Said, n.Total, total[n.Node])
		}
	}
}

// A profile without RouteTime is left alone.
func TestListenLeavesOtherProfiles(t *testing.T) {
	b := newBench()
	b.start(t, "")
	inner := b.framework.(listener).Framework
	if got := Listen(without{inner}); got != (without{inner}) {
		t.Errorf("got %T", got)
	}
}

func TestMetricsOfDecisions(t *testing.T) {
	b := newBench()
	b.other = map[string]int64{"n2": 90}
	b.now = t0.Add(3 * time.Second)
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	b.metrics.PerNode(2)
	b.bind(t, pod("p", annotated("drover.dev/peers", "app=db")), "n2")
	want := `
# HELP drover_scheduler_chosen_plugin_points What each Score plugin said, normalised and weighted, of the node that a pod was bound to.
# TYPE drover_scheduler_chosen_plugin_points summary
drover_scheduler_chosen_plugin_points_sum{plugin="Other"} 270
drover_scheduler_chosen_plugin_points_count{plugin="Other"} 1
drover_scheduler_chosen_plugin_points_sum{plugin="RouteTime"} 46
drover_scheduler_chosen_plugin_points_count{plugin="RouteTime"} 1
# HELP drover_scheduler_node_a A of the node when it was last scored, for whichever pod.
# TYPE drover_scheduler_node_a gauge
drover_scheduler_node_a{node="n1"} 30
drover_scheduler_node_a{node="n2"} 6
# HELP drover_scheduler_node_idle_cores C: idle CPU of the node when it was last scored.
# TYPE drover_scheduler_node_idle_cores gauge
drover_scheduler_node_idle_cores{node="n1"} 4
drover_scheduler_node_idle_cores{node="n2"} 4
# HELP drover_scheduler_node_idle_memory_bytes M: idle memory of the node when it was last scored.
# TYPE drover_scheduler_node_idle_memory_bytes gauge
drover_scheduler_node_idle_memory_bytes{node="n1"} 8.589934592e+09
drover_scheduler_node_idle_memory_bytes{node="n2"} 8.589934592e+09
# HELP drover_scheduler_node_route_time_seconds T: route time that counted for the node when it was last scored, from the peers of whichever pod it was.
# TYPE drover_scheduler_node_route_time_seconds gauge
drover_scheduler_node_route_time_seconds{node="n1"} 0.0002
drover_scheduler_node_route_time_seconds{node="n2"} 0.001
`
	err := testutil.CollectAndCompare(b.metrics, strings.NewReader(want), "drover_scheduler_chosen_plugin_points",
		"drover_scheduler_node_a", "drover_scheduler_node_idle_cores", "drover_scheduler_node_idle_memory_bytes", "drover_scheduler_node_route_time_seconds")
	if err != nil {
		t.Error(err)
	}
	for name, sum := range map[string]float64{
		"drover_scheduler_chosen_points": 100 * 0.4628, "drover_scheduler_chosen_a": 6, "drover_scheduler_best_a": 30, "drover_scheduler_chosen_age_seconds": 3,
	} {
		if got := sumOf(t, b.metrics, name); got < sum*0.999 || got > sum*1.001 {
			t.Errorf("the sum of %s is %v, want %v", name, got, sum)
		}
	}
	if problems, err := testutil.CollectAndLint(b.metrics); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

func TestPerNodeGaugesAreOffAndBounded(t *testing.T) {
	at := func(after time.Duration, names ...string) *decision.Packed {
		d := &decision.Decision{Ranked: t0.Add(after)}
		for _, name := range names {
			d.Nodes = append(d.Nodes, decision.Node{Score: placement.Score{Node: model.NodeID(name), Known: true, A: after.Seconds()}})
		}
		return decision.NewLog(0, 0).Pack(d)
	}
	m := NewMetrics()
	m.decided(at(0, "a", "b", "c"))
	if n := testutil.CollectAndCount(m, "drover_scheduler_node_a"); n != 0 {
		t.Errorf("%d gauges, and they are off", n)
	}
	m.PerNode(2)
	for _, tt := range []struct {
		d    *decision.Packed
		want map[model.NodeID]float64
	}{
		{at(time.Second, "a", "b", "c"), map[model.NodeID]float64{"a": 1, "b": 1}},
		{at(2*time.Second, "c", "b"), map[model.NodeID]float64{"a": 1, "b": 2}},
		{at(time.Second, "b"), map[model.NodeID]float64{"a": 1, "b": 2}},                   // overtaken
		{at(nodeForgotten+2*time.Second, "c"), map[model.NodeID]float64{"b": 2, "c": 602}}, // a has gone
	} {
		m.decided(tt.d)
		got := map[model.NodeID]float64{}
		for id, n := range m.perNode.nodes {
			got[id] = n.A
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("after %v of %v (-want +got):\n%s", tt.d.Ranked.Sub(t0), tt.d.Unpack().Nodes, diff)
		}
		if n := testutil.CollectAndCount(m, "drover_scheduler_node_a"); n != 2 {
			t.Errorf("%d gauges, want 2", n)
		}
	}
}

// A reason that tells of something else does not stand for why a score is neutral.
func TestNeutralScoresAreCountedByWhatMadeThemNeutral(t *testing.T) {
	m := NewMetrics()
	m.observe([]placement.Score{{Reasons: []placement.Reason{{Kind: placement.KindNodePath}, {Kind: placement.KindBadLoad}, {Kind: placement.KindMedian}}}}, 0)
	if n := testutil.ToFloat64(m.unknown.WithLabelValues("BadLoad")); n != 1 {
		t.Errorf("unknown{BadLoad} is %v, want 1", n)
	}
}

// While a pod is being bound the memory of its ranking serves others: its decision stays what it was.
func TestADecisionOutlivesItsRanking(t *testing.T) {
	b := newBench()
	b.other, b.quiet = map[string]int64{"n2": 90}, true
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	peers := annotated("drover.dev/peers", "app=db")
	want := b.bind(t, pod("first", peers), "n2")
	ctx, p, state := context.Background(), pod("p", peers), newState()
	b.scored(t, state, p)
	b.framework.RunReservePluginsReserve(ctx, state, p, "n2")
	b.plugin.decided(ranked(state), p, "n2") // waits
	b.framework.RunReservePluginsUnreserve(ctx, state, p, "n2")
	if k := ranked(state).ranking; k != nil {
		t.Fatal("the ranking is still held")
	}
	b.other["n3"] = 100
	for i := range 10 {
		b.bind(t, pod(fmt.Sprint("other-", i)), "n3")
	}
	b.framework.RunPostBindPlugins(ctx, state, p, "n2")
	got := b.kept.Of("ns", "p")[0]
	want.Name, want.UID = got.Name, got.UID
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What keeping a decision costs, beside the scheduling of other pods.
func BenchmarkPostBind(b *testing.B) {
	for _, n := range []int{100, 500, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			bench := large(n)
			bench.quiet = true
			bench.other = map[string]int64{}
			bench.start(b, "", pod("db", on("n1"), labelled("app", "db")))
			bench.plugin.decisions = decision.NewLog(1000, 16*model.MiB)
			p, ctx := pod("p", annotated("drover.dev/peers", "app=db")), context.Background()
			infos := append([]fwk.NodeInfo(nil), bench.infos...)
			b.ReportAllocs()
			took := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				state := newState()
				bench.framework.RunPreScorePlugins(ctx, state, p, infos)
				bench.framework.RunScorePlugins(ctx, state, p, infos)
				b.StartTimer()
				start := time.Now()
				bench.plugin.PostBind(ctx, state, p, "n1")
				took += time.Since(start)
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N)/float64(n), "ns/node")
		})
	}
}

// without is a profile without RouteTime.
type without struct{ framework.Framework }

func (without) ListPlugins() *config.Plugins { return &config.Plugins{} }

// sumOf is the sum of a histogram's observations.
func sumOf(t *testing.T, c prometheus.Collector, name string) float64 {
	t.Helper()
	series := metricstest.Family(t, c, name)
	if len(series) == 0 {
		t.Fatalf("there is no %s", name)
	}
	return series[0].GetHistogram().GetSampleSum()
}
