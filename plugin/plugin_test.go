package plugin

import (
	"context"
	"fmt"
	"maps"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/metricstest"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

func TestScores(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   string
		spoil  func(*bench)
		pod    *corev1.Pod
		others []*corev1.Pod
		want   map[string]int64
	}{
		{
			// 4 cores + 0.25 * 8 GiB = 6 everywhere. T from n1: the floor 0.2, 1, 4 ms.
			// ln(4/1) / ln(4/0.2) = 0.463.
			name:   "near to its peer",
			pod:    pod("p", annotated(v1alpha1.AnnotationPeers, "app=db")),
			others: []*corev1.Pod{pod("db", on("n1"), labelled("app", "db"))},
			want:   map[string]int64{"n1": 100, "n2": 46, "n3": 0},
		},
		{
			// The peer is elsewhere now. From n3: 4, 3, 0.2 ms; ln(4/3) / ln(4/0.2) = 0.096.
			name:   "the peer decides",
			pod:    pod("p", annotated(v1alpha1.AnnotationPeers, "app=db")),
			others: []*corev1.Pod{pod("db", on("n3"), labelled("app", "db"))},
			want:   map[string]int64{"n1": 0, "n2": 10, "n3": 100},
		},
		{
			// Peers of another namespace do not count: the means 2.5, 2, 3.5 ms.
			// ln(3.5/2.5) / ln(3.5/2) = 0.601.
			name:   "no peers: the mean to all others",
			pod:    pod("p", annotated(v1alpha1.AnnotationPeers, "app=db")),
			others: []*corev1.Pod{pod("db", on("n1"), labelled("app", "db"), inNamespace("other"))},
			want:   map[string]int64{"n1": 60, "n2": 100, "n3": 0},
		},
		{
			// (3*0.2 + 1*4)/4 = 1.15, (3*1 + 1*3)/4 = 1.5, (3*4 + 0.2)/4 = 3.05 ms.
			// ln(3.05/1.5) / ln(3.05/1.15) = 0.728.
			name: "weights",
			pod:  pod("p", annotated(v1alpha1.AnnotationPeers, "app=db:3,app=cache")),
			others: []*corev1.Pod{
				pod("db", on("n1"), labelled("app", "db")),
				pod("cache", on("n3"), labelled("app", "cache")),
			},
			want: map[string]int64{"n1": 100, "n2": 73, "n3": 0},
		},
		{
			// A malformed annotation: as without one.
			name: "malformed",
			pod:  pod("p", annotated(v1alpha1.AnnotationPeers, "app=")),
			want: map[string]int64{"n1": 60, "n2": 100, "n3": 0},
		},
		{
			// n1 is the source: 1 and 4 ms from it.
			name:  "a replacement without peers: from its source",
			pod:   replacement("p", "n1"),
			spoil: func(b *bench) { b.nodes = b.nodes[1:] },
			want:  map[string]int64{"n2": 100, "n3": 0},
		},
		{
			// The scheduler knows of requests on n1 that its agent has not heard of:
			// 4-3 cores + 2 = 3 at 0.2 ms, 6 at 1, 6 at 4: A = 15, 6, 1.5.
			// ln(6/1.5) / ln(15/1.5) = 0.602.
			name: "fresh requests count",
			pod:  pod("p", annotated(v1alpha1.AnnotationPeers, "app=db")),
			others: []*corev1.Pod{
				pod("db", on("n1"), labelled("app", "db")),
				pod("new", on("n1"), requesting("3000m")),
			},
			want: map[string]int64{"n1": 100, "n2": 60, "n3": 0},
		},
		{
			// As if n3 had told what its Node object gives.
			name:   "a node that claims more than it has",
			pod:    pod("p", annotated(v1alpha1.AnnotationPeers, "app=db")),
			others: []*corev1.Pod{pod("db", on("n1"), labelled("app", "db"))},
			spoil: func(b *bench) {
				n := b.picture.Nodes["n3"]
				n.State.Load.Allocatable = model.Resources{CPU: 4000, Memory: model.GiB << 20}
				b.picture.Nodes["n3"] = n
			},
			want: map[string]int64{"n1": 100, "n2": 46, "n3": 0},
		},
		{
			// alpha 1, beta 0, exponent 0: cores alone: 4, 4, 2. ln 2 / ln 2.
			name:  "resources alone",
			args:  `{"beta":0,"routeTimeExponent":0}`,
			pod:   pod("p"),
			spoil: func(b *bench) { b.use("n3", model.Resources{CPU: 2}) },
			want:  map[string]int64{"n1": 100, "n2": 100, "n3": 0},
		},
		{
			name:  "an empty picture: all are equal",
			pod:   pod("p"),
			spoil: func(b *bench) { b.picture = view.Snapshot{} },
			want:  map[string]int64{"n1": 50, "n2": 50, "n3": 50},
		},
		{
			name:  "an old picture: all are equal",
			pod:   pod("p"),
			spoil: func(b *bench) { b.now = t0.Add(time.Hour) },
			want:  map[string]int64{"n1": 50, "n2": 50, "n3": 50},
		},
		{
			// Known are 100 and 0.
			name: "a dead agent's node gets the median",
			pod:  pod("p", annotated(v1alpha1.AnnotationPeers, "app=db")),
			spoil: func(b *bench) {
				n := b.picture.Nodes["n2"]
				n.Alive = false
				b.picture.Nodes["n2"] = n
			},
			others: []*corev1.Pod{pod("db", on("n1"), labelled("app", "db"))},
			want:   map[string]int64{"n1": 100, "n2": 50, "n3": 0},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench()
			if tt.spoil != nil {
				tt.spoil(b)
			}
			b.start(t, tt.args, tt.others...)
			if diff := cmp.Diff(tt.want, b.scores(t, tt.pod)); diff != "" {
				t.Errorf("scores (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDelaysThatChangeMoveTheNextPod(t *testing.T) {
	b := newBench()
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	p := pod("p", annotated(v1alpha1.AnnotationPeers, "app=db"))
	b.nodes = b.nodes[1:]
	if got := b.scores(t, p); got["n2"] != 100 || got["n3"] != 0 {
		t.Fatalf("scores %v, want n2 first", got)
	}
	before := b.taken
	b.route("n1", "n2", 4*time.Millisecond)
	b.route("n1", "n3", 1*time.Millisecond)
	b.scores(t, p)
	if b.taken != before {
		t.Error("within its life one picture must serve")
	}
	b.now = b.now.Add(reuse)
	if got := b.scores(t, p); got["n3"] != 100 || got["n2"] != 0 {
		t.Errorf("scores %v, want n3 first", got)
	}
}

// The more nodes there are, the longer a picture serves.
func TestLargePicturesServeLonger(t *testing.T) {
	for nodes, want := range map[int]time.Duration{100: reuse, 2000: 400 * time.Millisecond, 8000: longestReuse} {
		b := newBench()
		for i := range nodes - len(b.picture.Nodes) {
			b.picture.Nodes[model.NodeID(fmt.Sprint("more", i))] = view.Node{}
		}
		b.start(t, "")
		first := b.plugin.look()
		b.now = t0.Add(want - 1)
		if b.plugin.look() != first {
			t.Errorf("one of %d nodes does not serve for %v", nodes, want)
		}
		b.now = t0.Add(want)
		if b.plugin.look() == first {
			t.Errorf("one of %d nodes serves for more than %v", nodes, want)
		}
	}
}

func TestMalformedPeersGetOneEventAndThePodIsScheduled(t *testing.T) {
	b := newBench()
	b.start(t, "")
	p := pod("p", annotated(v1alpha1.AnnotationPeers, "app=db:many"))
	if got := b.filter(t, p); len(got) != 0 {
		t.Errorf("nodes refused: %v", got)
	}
	select {
	case e := <-b.events:
		want := `Warning InvalidPeers annotation drover.dev/peers is malformed, so the pod is placed as one without it: term "app=db:many": the weight "many" must be a number more than 0 and at most 1000000`
		if e != want {
			t.Errorf("event %q\n want %q", e, want)
		}
	default:
		t.Error("no event")
	}
	if n := testutil.ToFloat64(b.metrics.invalid); n != 1 {
		t.Errorf("drover_scheduler_invalid_peers_total is %v, want 1", n)
	}
	b.filter(t, pod("q", annotated(v1alpha1.AnnotationPeers, "app=db")))
	select {
	case e := <-b.events:
		t.Errorf("an event on a good pod: %s", e)
	default:
	}
}

func TestFilterForReplacements(t *testing.T) {
	change := func(name model.NodeID, f func(*view.Node)) func(*bench) {
		return func(b *bench) {
			n := b.picture.Nodes[name]
			f(&n)
			b.picture.Nodes[name] = n
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*bench)
		want  map[string]string
	}{
		{name: "only the source is refused", want: map[string]string{"n1": "the pod is leaving this node"}},
		{
			name:  "cannot restore",
			spoil: change("n2", func(n *view.Node) { n.State.CannotRestore = "CRIU 3.17 is too old" }),
			want:  map[string]string{"n1": "the pod is leaving this node", "n2": "this node cannot restore the pod: CRIU 3.17 is too old"},
		},
		{
			name:  "dead agent",
			spoil: change("n2", func(n *view.Node) { n.Alive = false }),
			want:  map[string]string{"n1": "the pod is leaving this node", "n2": "no pod is moved to this node: its agent does not answer"},
		},
		{
			name:  "no agent",
			spoil: func(b *bench) { delete(b.picture.Nodes, "n2") },
			want:  map[string]string{"n1": "the pod is leaving this node", "n2": "no drover-agent is known on this node, so it cannot restore the pod"},
		},
		{
			name:  "nothing is known yet",
			spoil: func(b *bench) { b.picture = view.Snapshot{} },
			want:  map[string]string{"n1": "the pod is leaving this node"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench()
			if tt.spoil != nil {
				tt.spoil(b)
			}
			b.start(t, "")
			if diff := cmp.Diff(tt.want, b.filter(t, replacement("p", "n1"))); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
			back := replacement("p", "n1")
			back.Annotations[v1alpha1.AnnotationPinned] = "In=n1"
			if why := b.filter(t, back)["n1"]; why != "" {
				t.Errorf("a replacement that is ordered to its own node was refused there: %s", why)
			}
			if got := b.filter(t, pod("ordinary")); len(got) != 0 {
				t.Errorf("an ordinary pod was refused: %v", got)
			}
		})
	}
}

func TestUnknownScoresAreCountedByReason(t *testing.T) {
	b := newBench()
	b.picture.Nodes["n2"] = view.Node{Alive: true}
	b.start(t, "")
	b.scores(t, pod("p"))
	if n := testutil.ToFloat64(b.metrics.unknown.WithLabelValues("NoState")); n != 1 {
		t.Errorf("unknown{NoState} is %v, want 1", n)
	}
	if n := testutil.ToFloat64(b.metrics.scored); n != 3 {
		t.Errorf("scores are %v, want 3", n)
	}
	if n := testutil.ToFloat64(b.metrics.nodes); n != 3 {
		t.Errorf("nodes in the picture: %v, want 3", n)
	}
	problems, err := testutil.CollectAndLint(b.metrics)
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

func TestScoreOfANodeThatPreScoreDidNotSee(t *testing.T) {
	b := newBench()
	b.start(t, "")
	ctx, state := context.Background(), newState()
	got, status := b.plugin.Score(ctx, state, pod("p"), b.infos[0])
	if got != 50 || !status.IsSuccess() {
		t.Errorf("score %d, %v; want 50", got, status)
	}
	for _, state := range []fwk.CycleState{state, b.ranked(t, pod("p"), "n1", "n2")} {
		scores := framework.NodeScoreList{{Name: "n3", Score: got}}
		if status := b.plugin.NormalizeScore(ctx, state, pod("p"), scores); scores[0].Score != 50 || !status.IsSuccess() {
			t.Errorf("scores %v, %v; want 50", scores, status)
		}
	}
	if s := b.plugin.Filter(context.Background(), newState(), replacement("p", "n1"), b.infos[0]); !s.IsSuccess() {
		t.Errorf("filter without state: %v", s)
	}
}

// The points follow the names, whatever the order in which they are asked for.
func TestPointsInAnotherOrderThanTheNodes(t *testing.T) {
	b := newBench()
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	p := pod("p", annotated(v1alpha1.AnnotationPeers, "app=db"))
	state := b.ranked(t, p, "n3", "n1", "n2")
	got := framework.NodeScoreList{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}
	b.plugin.NormalizeScore(context.Background(), state, p, got)
	if diff := cmp.Diff(framework.NodeScoreList{{Name: "n1", Score: 100}, {Name: "n2", Score: 46}, {Name: "n3", Score: 0}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBadArgsEndTheStartWithOneLine(t *testing.T) {
	_, err := Factory(Config{Views: newBench(), Metrics: NewMetrics(), Now: time.Now})(context.Background(), &runtime.Unknown{Raw: []byte(`{"tau":0}`)}, nil)
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "RouteTimeArgs.tau") {
		t.Errorf("error %v, want one line that names the field", err)
	}
}

// In a large cluster a new picture is not computed anew at once.
func TestComputedRoutesServeSeveralPictures(t *testing.T) {
	b := newBench()
	for i := range linkstate.FullMesh {
		b.add(fmt.Sprint("more", i))
	}
	both := func(i, j model.NodeID, rtt time.Duration) {
		b.route(i, j, rtt)
		b.route(j, i, rtt)
	}
	both("n2", "n3", 3*time.Millisecond)
	both("n3", "more0", 1*time.Millisecond)
	b.start(t, "")
	for _, at := range []struct {
		after, want time.Duration
	}{{0, 4 * time.Millisecond}, {time.Second, 4 * time.Millisecond}, {10 * time.Second, 53 * time.Millisecond}} {
		b.mu.Lock()
		b.now = t0.Add(at.after)
		b.mu.Unlock()
		if got := b.plugin.look().Route("more0", "n2"); got.Time != at.want || got.Hops != 2 {
			t.Errorf("after %v it is %v over %d links, want %v over 2", at.after, got.Time, got.Hops, at.want)
		}
		both("n3", "more0", 50*time.Millisecond)
	}
}

func BenchmarkPreScoreAndScore(b *testing.B) {
	for _, n := range []int{100, 500, 5000} {
		for _, annotation := range []string{"", "app=db"} {
			b.Run(fmt.Sprintf("nodes=%d/peers=%s", n, annotation), func(b *testing.B) {
				bench := large(n)
				bench.start(b, "", pod("db", on("n1"), labelled("app", "db")))
				p := pod("p", annotated(v1alpha1.AnnotationPeers, annotation))
				ctx := context.Background()
				infos := make([]fwk.NodeInfo, len(bench.infos))
				copy(infos, bench.infos)
				scores := make(framework.NodeScoreList, len(infos))
				b.ReportAllocs()
				for b.Loop() {
					state := newState()
					bench.plugin.PreScore(ctx, state, p, infos)
					for i, info := range infos {
						points, _ := bench.plugin.Score(ctx, state, p, info)
						scores[i] = framework.NodeScore{Name: info.Node().Name, Score: points}
					}
					bench.plugin.NormalizeScore(ctx, state, p, scores)
					bench.plugin.release(state)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/node")
			})
		}
	}
}

// In a large cluster routes are gathered anew before they are too old, and no pod waits for it.
func TestRoutesAreGatheredAnewBesideTheWork(t *testing.T) {
	b := newBench()
	for i := range linkstate.FullMesh {
		b.add(fmt.Sprint("more", i))
	}
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	p := pod("p", annotated(v1alpha1.AnnotationPeers, "app=db"))
	b.scores(t, p)
	distance := func(after time.Duration) time.Duration {
		b.mu.Lock()
		b.now = t0.Add(after)
		b.mu.Unlock()
		from := placement.Viewpoint{Peers: map[model.NodeID]float64{"n1": 1}}
		return b.plugin.look().Candidates(from, "n2", "n3")[0].Route.Time
	}
	changed := b.picture.Nodes["n1"]
	changed.State.Routes = map[model.NodeID]model.RouteTime{"n2": {RTT: 7 * time.Millisecond, At: t0}}
	b.mu.Lock()
	b.picture.Nodes = maps.Clone(b.picture.Nodes)
	b.picture.Nodes["n1"] = changed
	b.mu.Unlock()
	for _, after := range []time.Duration{7 * time.Second, 8 * time.Second} {
		if got := distance(after); got != time.Millisecond {
			t.Errorf("after %v n2 is %v away, want what was gathered at first, 1ms", after, got)
		}
	}
	for renewing := true; renewing; goruntime.Gosched() { // begun by the last look
		b.plugin.mu.Lock()
		renewing = b.plugin.renewing
		b.plugin.mu.Unlock()
	}
	if got := distance(8*time.Second + reuse); got != 7*time.Millisecond {
		t.Errorf("n2 is %v away, want the 7ms that were gathered beside the work", got)
	}
}

// A counter that comes with its first count does not rise: every reason is there before.
func TestEveryReasonIsCountedFromZero(t *testing.T) {
	for _, m := range metricstest.Family(t, NewMetrics(), "drover_scheduler_unknown_scores_total") {
		if !slices.Contains(placement.Unknown, placement.Kind(m.GetLabel()[0].GetValue())) || m.GetCounter().GetValue() != 0 {
			t.Errorf("%v", m)
		}
	}
	if n := len(metricstest.Family(t, NewMetrics(), "drover_scheduler_unknown_scores_total")); n != len(placement.Unknown) {
		t.Errorf("%d reasons are there, want %d", n, len(placement.Unknown))
	}
	if all := metricstest.Family(t, NewMetrics(), "drover_scheduler_near_nodes_total"); len(all) != 3 {
		t.Errorf("near nodes: %v, want their three outcomes", all)
	}
}
