package plugin

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedulermetrics "k8s.io/kubernetes/pkg/scheduler/metrics"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

// zoned is a cluster of n nodes in zones of 16, as far apart as the agents of such a cluster
// measure it: 0.2 to 0.5 ms within a zone, 1 to 3 ms beyond.
func zoned(n int) *bench {
	b := &bench{now: t0, picture: view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}, activated: make(chan string, 10)}
	r := rand.New(rand.NewSource(1))
	zones := map[model.NodeID]string{}
	for i := range n {
		name := fmt.Sprintf("n%04d", i)
		b.add(name)
		b.nodes[i].Status.Allocatable = b.nodes[i].Status.Capacity
		zones[model.NodeID(name)] = fmt.Sprint(i / 16)
		b.use(model.NodeID(name), model.Resources{CPU: model.Cores(r.Float64())})
	}
	for _, from := range b.picture.IDs() {
		for _, to := range linkstate.Plan(from, zones) {
			if _, known := b.picture.Nodes[from].State.Routes[to]; known {
				continue
			}
			rtt := time.Duration(1000+r.Intn(2000)) * time.Microsecond
			if zones[from] == zones[to] {
				rtt = time.Duration(200+r.Intn(300)) * time.Microsecond
			}
			b.route(from, to, rtt)
			b.route(to, from, rtt)
		}
	}
	return b
}

// sched is the whole scheduler with its default plugins, of which SchedulePod alone is used.
type sched struct {
	*scheduler.Scheduler
	framework framework.Framework
	plugin    *RouteTime
	kept      *decision.Log
}

// schedule makes it, with RouteTime or without; pods are those that run.
func schedule(t testing.TB, b *bench, routeTime, listen bool, pods ...*corev1.Pod) *sched {
	t.Helper()
	schedulermetrics.Register()
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.NewKlogr()))
	t.Cleanup(cancel)
	objs := make([]runtime.Object, len(pods))
	for i, p := range pods {
		objs[i] = p
	}
	client := fake.NewClientset(objs...)
	factory := informers.NewSharedInformerFactory(client, 0)
	defaults, err := latest.Default()
	if err != nil {
		t.Fatal(err)
	}
	profile := defaults.Profiles[0]
	profile.SchedulerName = v1alpha1.SchedulerName
	if routeTime {
		profile.Plugins.MultiPoint.Enabled = append(profile.Plugins.MultiPoint.Enabled, config.Plugin{Name: Name, Weight: 10})
	}
	s := &sched{kept: decision.NewLog(1000, model.GiB)}
	b.metrics = NewMetrics()
	registry := frameworkruntime.Registry{Name: func(ctx context.Context, obj runtime.Object, h framework.Handle) (framework.Plugin, error) {
		p, err := Factory(Config{Views: b, Metrics: b.metrics, Decisions: s.kept, Now: b.clock})(ctx, obj, h)
		s.plugin, _ = p.(*RouteTime)
		return p, err
	}}
	s.Scheduler, err = scheduler.New(ctx, client, factory, nil, func(string) events.EventRecorder { return &events.FakeRecorder{} },
		scheduler.WithProfiles(profile), scheduler.WithFrameworkOutOfTreeRegistry(registry))
	if err != nil {
		t.Fatal(err)
	}
	log := klog.FromContext(ctx)
	for _, n := range b.nodes {
		s.Cache.AddNode(log, n)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := s.WaitForHandlersSync(ctx); err != nil {
		t.Fatal(err)
	}
	s.framework = s.Profiles[v1alpha1.SchedulerName]
	if listen {
		s.framework = Listen(s.framework, s.Extenders...)
	}
	return s
}

// place has one pod scheduled, and gives the node and the names of those that were scored.
func (s *sched) place(t testing.TB, p *corev1.Pod) (node string, scored []string) {
	t.Helper()
	state := framework.NewCycleState()
	result, err := s.SchedulePod(context.Background(), s.framework, state, p)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := state.Read(scoreKey); err == nil {
		for _, score := range data.(*scoreState).scores {
			scored = append(scored, string(score.Node))
		}
	}
	return result.SuggestedHost, scored
}

// best is the node of the greatest A for a pod, of all that it fits on.
func (s *sched) best(t testing.TB, p *corev1.Pod, fits func(string) bool) string {
	t.Helper()
	infos, err := s.framework.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		t.Fatal(err)
	}
	infos = slices.DeleteFunc(slices.Clone(infos), func(n fwk.NodeInfo) bool { return !fits(n.Node().Name) })
	best := placement.Score{}
	for _, score := range s.plugin.rank(s.plugin.rankings.get(), s.plugin.look(), s.from(p), infos) {
		if score.A > best.A {
			best = score
		}
	}
	return string(best.Node)
}

// callers are pods with a peer each, and their peers, all over the cluster.
func callers(b *bench, count int) (pods, peers []*corev1.Pod) {
	for i := range count {
		name := fmt.Sprint("db", i)
		peers = append(peers, pod(name, on(b.nodes[(i*61+7)%len(b.nodes)].Name), labelled("app", name)))
		pods = append(pods, pod(fmt.Sprint("p", i), annotated(v1alpha1.AnnotationPeers, "app="+name)))
	}
	return pods, peers
}

func anywhere(string) bool { return true }

func TestTheNearNodeIsInTheSample(t *testing.T) {
	for listen, want := range map[bool]func(int) bool{
		true: func(in int) bool { return in == 40 },
		// 42 % of 1,000 nodes are scored.
		false: func(in int) bool { return in > 4 && in < 32 },
	} {
		b := zoned(1000)
		pods, peers := callers(b, 40)
		s := schedule(t, b, true, listen, peers...)
		in := 0
		for _, p := range pods {
			_, scored := s.place(t, p)
			if len(scored) != 420 || len(slices.Compact(slices.Sorted(slices.Values(scored)))) != 420 {
				t.Fatalf("%d nodes are scored, want 420 different ones", len(scored))
			}
			if slices.Contains(scored, s.best(t, p, anywhere)) {
				in++
			}
		}
		t.Logf("near nodes are brought: %v; the best node was in the sample of %d of 40 pods", listen, in)
		if !want(in) {
			t.Errorf("near nodes are brought: %v; the best node was in the sample %d times of 40", listen, in)
		}
	}
}

// What does not fit is not brought: the best of those that do is.
func TestNearNodesThatAreRefusedStayOut(t *testing.T) {
	b := zoned(300)
	peer := pod("db", on("n0000"), labelled("app", "db"))
	p := pod("p", annotated(v1alpha1.AnnotationPeers, "app=db"), requesting("1"))
	full := []*corev1.Pod{peer}
	refused := map[string]bool{}
	for i := range 8 {
		name := b.nodes[i].Name
		refused[name] = true
		if i%2 == 0 {
			full = append(full, pod(fmt.Sprint("full", i), on(name), requesting("3500m")))
		} else {
			b.nodes[i].Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
		}
	}
	s := schedule(t, b, true, true, full...)
	for range 5 { // the sample goes round
		node, scored := s.place(t, p)
		best := s.best(t, p, func(name string) bool { return !refused[name] })
		if !slices.Contains(scored, best) {
			t.Errorf("%s is the best that fits, and is not in the sample", best)
		}
		if refused[node] || slices.ContainsFunc(scored, func(name string) bool { return refused[name] }) {
			t.Errorf("the pod is on %s; a node that is full or tainted was scored", node)
		}
	}
	if n := testutil.ToFloat64(b.metrics.near.WithLabelValues("refused")); n < 5 {
		t.Errorf("%v near nodes were counted as refused, want some for each pod", n)
	}
}

// Nothing but what fits is ever scored, and no pod is lost, also where no near node has room.
func TestAClusterWhoseNearNodesAreFull(t *testing.T) {
	b := zoned(300)
	pods := []*corev1.Pod{pod("db", on("n0000"), labelled("app", "db"))}
	for i := range 290 {
		pods = append(pods, pod(fmt.Sprint("full", i), on(b.nodes[i].Name), requesting("4")))
	}
	s := schedule(t, b, true, true, pods...)
	p := pod("p", annotated(v1alpha1.AnnotationPeers, "app=db"), requesting("1"))
	node, scored := s.place(t, p)
	if slices.Sort(scored); len(scored) != 10 || scored[0] != "n0290" || node < "n0290" {
		t.Errorf("the pod is on %s, scored were %v; want the ten nodes from n0290", node, scored)
	}
}

func TestWhoGetsNearNodes(t *testing.T) {
	named := func(names ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
			in := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
			for _, name := range names {
				in.NodeSelectorTerms = append(in.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
					{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}})
			}
		}
	}
	peers := annotated(v1alpha1.AnnotationPeers, "app=db")
	for _, tt := range []struct {
		name  string
		nodes int
		pod   *corev1.Pod
		want  bool
	}{
		{"one with peers", 101, pod("p", peers), true},
		{"a replacement", 101, replacement("p", "n0003"), true},
		{"not one without", 101, pod("p"), false},
		{"not one whose peers do not run", 101, pod("p", annotated(v1alpha1.AnnotationPeers, "app=none")), false},
		{"not where all nodes are scored", 100, pod("p", peers), false},
		{"not where a plugin names the nodes", 101, pod("p", peers, named("n0050", "n0060")), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := zoned(tt.nodes)
			s := schedule(t, b, true, true, pod("db", on("n0003"), labelled("app", "db")))
			_, scored := s.place(t, tt.pod)
			looked := 0.
			for _, how := range []string{"sampled", "brought", "refused"} {
				looked += testutil.ToFloat64(b.metrics.near.WithLabelValues(how))
			}
			if got := looked > 0; got != tt.want {
				t.Errorf("near nodes are looked at: %v, want %v; scored were %d", got, tt.want, len(scored))
			}
		})
	}
}

type extender struct {
	framework.Extender
	filters, interested bool
}

func (e extender) IsFilter() bool                { return e.filters }
func (e extender) IsInterested(*corev1.Pod) bool { return e.interested }

// What an extender has filtered is not added to.
func TestNoNearNodeIsBroughtPastAnExtender(t *testing.T) {
	for _, tt := range []struct {
		name string
		extender
		want bool
	}{
		{"that filters", extender{filters: true, interested: true}, false},
		{"that does not filter", extender{interested: true}, true},
		{"that is not asked", extender{filters: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := zoned(200)
			s := schedule(t, b, true, false, pod("db", on("n0003"), labelled("app", "db")))
			p := pod("p", annotated(v1alpha1.AnnotationPeers, "app=db"))
			s.place(t, p) // takes the snapshot
			infos, err := s.framework.SnapshotSharedLister().NodeInfos().List()
			if err != nil {
				t.Fatal(err)
			}
			best := s.best(t, p, anywhere)
			far := slices.DeleteFunc(slices.Clone(infos), func(n fwk.NodeInfo) bool { return n.Node().Name < "n0032" })
			if slices.ContainsFunc(far, func(n fwk.NodeInfo) bool { return n.Node().Name == best }) {
				t.Fatalf("%s is the best", best)
			}
			state, ctx := framework.NewCycleState(), context.Background()
			f := Listen(s.framework, tt.extender)
			if _, status, _ := f.RunPreFilterPlugins(ctx, state, p); !status.IsSuccess() {
				t.Fatal(status)
			}
			if status := f.RunPreScorePlugins(ctx, state, p, far); !status.IsSuccess() {
				t.Fatal(status)
			}
			if got := slices.ContainsFunc(far, func(n fwk.NodeInfo) bool { return n.Node().Name == best }); got != tt.want {
				t.Errorf("%s was brought: %v, want %v", best, got, tt.want)
			}
		})
	}
}

// Pods of one Deployment do not pile up on the few nodes that are brought.
func TestNearNodesAreChosenByWhatTheSchedulerKnows(t *testing.T) {
	b := zoned(300)
	s := schedule(t, b, true, true, pod("db", on("n0000"), labelled("app", "db")))
	ctx, on := context.Background(), map[string]int{}
	for i := range 30 {
		p := pod(fmt.Sprint("p", i), annotated(v1alpha1.AnnotationPeers, "app=db"), func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}
		})
		state := framework.NewCycleState()
		result, err := s.SchedulePod(ctx, s.framework, state, p)
		if err != nil {
			t.Fatal(err)
		}
		if want := s.best(t, p, anywhere); !slices.ContainsFunc(func() []placement.Score { d, _ := state.Read(scoreKey); return d.(*scoreState).scores }(),
			func(score placement.Score) bool { return string(score.Node) == want }) {
			t.Errorf("pod %d: the best node %s was not in the sample", i, want)
		}
		assumed := p.DeepCopy()
		assumed.Spec.NodeName = result.SuggestedHost
		if err := s.Cache.AssumePod(klog.Background(), assumed); err != nil {
			t.Fatal(err)
		}
		on[result.SuggestedHost]++
	}
	for name, n := range on {
		if n > 4 {
			t.Errorf("%d pods of a core each are on %s, of 4 cores", n, name)
		}
	}
}

// BenchmarkCycle is one scheduling cycle of kube-scheduler with its default plugins: alone, with
// RouteTime, and with peers. What is beyond the first is RouteTime's share.
func BenchmarkCycle(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		picture := zoned(n)
		pods, peers := callers(picture, 40)
		for _, with := range []string{"default", "routetime", "routetime+peers"} {
			b.Run(fmt.Sprintf("nodes=%d/%s", n, with), func(b *testing.B) {
				s := schedule(b, picture, with != "default", true, peers...)
				which := pods
				if with != "routetime+peers" {
					which = []*corev1.Pod{pod("p")}
				}
				s.place(b, which[0])
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					state := framework.NewCycleState()
					if _, err := s.SchedulePod(context.Background(), s.framework, state, which[i%len(which)]); err != nil {
						b.Fatal(err)
					}
					if s.plugin != nil {
						s.plugin.release(state)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "us/pod")
			})
		}
	}
}

// from is from where a pod is seen.
func (s *sched) from(p *corev1.Pod) placement.Viewpoint {
	return s.plugin.see(newState(), p).from()
}
