package plugin

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultbinder"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/queuesort"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedulermetrics "k8s.io/kubernetes/pkg/scheduler/metrics"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// bench is the scheduler's framework with RouteTime in it, three nodes of 4 cores and
// 8 GiB, and a picture in which n1-n2 is 1 ms, n2-n3 3 ms and n1-n3 4 ms.
type bench struct {
	mu      sync.Mutex // of picture and now, once the plugin has started
	picture view.Snapshot
	now     time.Time
	taken   int // how often the picture was asked for
	nodes   []*corev1.Node

	infos     []fwk.NodeInfo
	client    kubernetes.Interface
	framework framework.Framework
	plugin    *RouteTime
	metrics   *Metrics
	kept      *decision.Log
	quiet     bool             // no events about decisions
	other     map[string]int64 // what a plugin of weight 3 beside RouteTime says of nodes, if any
	events    chan string
	activated chan string // pods that the plugin wants to be tried again
}

// Activate implements framework.PodActivator.
func (b *bench) Activate(_ klog.Logger, pods map[string]*corev1.Pod) {
	for name := range pods {
		b.activated <- name
	}
}

const otherName = "Other"

// Name, Score and ScoreExtensions make the bench the plugin beside RouteTime.
func (b *bench) Name() string { return otherName }

func (b *bench) Score(_ context.Context, _ fwk.CycleState, _ *corev1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	return b.other[node.Node().Name], nil
}

func (b *bench) ScoreExtensions() framework.ScoreExtensions { return nil }

func newBench() *bench {
	b := &bench{now: t0, picture: view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}, activated: make(chan string, 10)}
	for _, name := range []string{"n1", "n2", "n3"} {
		b.add(name)
	}
	b.route("n1", "n2", 1*time.Millisecond)
	b.route("n2", "n3", 3*time.Millisecond)
	b.route("n1", "n3", 4*time.Millisecond)
	return b
}

func (b *bench) add(name string) { b.addSized(name, 4, 8) }

// addSized adds a node of so many cores and GiB.
func (b *bench) addSized(name string, cores, gib int) {
	b.nodes = append(b.nodes, st.MakeNode().Name(name).Capacity(map[corev1.ResourceName]string{
		"cpu": fmt.Sprint(cores), "memory": fmt.Sprint(gib, "Gi"), "pods": "110"}).Obj())
	b.picture.Nodes[model.NodeID(name)] = view.Node{
		Received: t0, Alive: true,
		State: model.NodeState{
			Node:   model.NodeID(name),
			Load:   model.Load{Allocatable: model.Resources{CPU: model.Cores(cores), Memory: model.Bytes(gib) * model.GiB}, At: t0},
			Routes: map[model.NodeID]model.RouteTime{},
		},
	}
}

func (b *bench) route(i, j model.NodeID, rtt time.Duration) {
	b.picture.Nodes[i].State.Routes[j] = model.RouteTime{RTT: rtt, At: t0}
}

func (b *bench) use(name model.NodeID, used model.Resources) {
	n := b.picture.Nodes[name]
	n.State.Load.Used = used
	b.picture.Nodes[name] = n
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// Snapshot implements Views.
func (b *bench) Snapshot() view.Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken++
	return b.picture
}

// start makes the framework with the given arguments (JSON, may be empty) and pods.
func (b *bench) start(t testing.TB, args string, pods ...*corev1.Pod) {
	t.Helper()
	schedulermetrics.Register()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)

	objs := make([]runtime.Object, len(pods))
	for i, p := range pods {
		objs[i] = p
	}
	client := fake.NewClientset(objs...)
	b.client = client
	factory := informers.NewSharedInformerFactory(client, 0)
	snapshot := cache.NewSnapshot(pods, b.nodes)
	recorder := events.NewFakeRecorder(10)
	b.events, b.metrics, b.kept = recorder.Events, NewMetrics(), decision.NewLog(100, model.GiB)

	registry := frameworkruntime.Registry{
		Name: func(ctx context.Context, obj runtime.Object, h framework.Handle) (framework.Plugin, error) {
			p, err := Factory(Config{Views: b, Metrics: b.metrics, Decisions: b.kept, Events: !b.quiet, Now: b.clock})(ctx, obj, h)
			b.plugin, _ = p.(*RouteTime)
			return p, err
		},
		queuesort.Name:     queuesort.New,
		defaultbinder.Name: defaultbinder.New,
	}
	enabled := func(names ...string) (s config.PluginSet) {
		for _, n := range names {
			s.Enabled = append(s.Enabled, config.Plugin{Name: n, Weight: 1})
		}
		return s
	}
	all := enabled(Name)
	if b.other != nil {
		registry[otherName] = func(context.Context, runtime.Object, framework.Handle) (framework.Plugin, error) { return b, nil }
		all.Enabled = append(all.Enabled, config.Plugin{Name: otherName, Weight: 3})
	}
	profile := &config.KubeSchedulerProfile{
		SchedulerName: v1alpha1.SchedulerName,
		Plugins: &config.Plugins{
			QueueSort:  enabled(queuesort.Name),
			Bind:       enabled(defaultbinder.Name),
			MultiPoint: all,
		},
	}
	if args != "" {
		profile.PluginConfig = []config.PluginConfig{{Name: Name, Args: &runtime.Unknown{Raw: []byte(args)}}}
	}
	fw, err := frameworkruntime.NewFramework(ctx, registry, profile,
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithSnapshotSharedLister(snapshot),
		frameworkruntime.WithEventRecorder(recorder),
		frameworkruntime.WithPodActivator(b),
	)
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	b.framework = Listen(fw)
	if b.infos, err = snapshot.NodeInfos().List(); err != nil {
		t.Fatal(err)
	}
}

func newState() fwk.CycleState { return framework.NewCycleState() }

// scores runs PreScore, Score and NormalizeScore as the scheduler does, on the nodes that
// the test has left.
func (b *bench) scores(t *testing.T, p *corev1.Pod) map[string]int64 {
	t.Helper()
	return b.scored(t, newState(), p)
}

// scored is scores with the pod's state.
func (b *bench) scored(t *testing.T, state fwk.CycleState, p *corev1.Pod) map[string]int64 {
	t.Helper()
	ctx := context.Background()
	var infos []fwk.NodeInfo
	for _, node := range b.nodes {
		for _, info := range b.infos {
			if info.Node().Name == node.Name {
				infos = append(infos, info)
			}
		}
	}
	if s := b.framework.RunPreScorePlugins(ctx, state, p, infos); !s.IsSuccess() {
		t.Fatalf("PreScore: %v", s)
	}
	all, s := b.framework.RunScorePlugins(ctx, state, p, infos)
	if !s.IsSuccess() {
		t.Fatalf("Score: %v", s)
	}
	got := map[string]int64{}
	for _, n := range all {
		got[n.Name] = n.TotalScore
	}
	return got
}

// ranked is the state of a pod for which some nodes were ranked.
func (b *bench) ranked(t testing.TB, p *corev1.Pod, names ...string) fwk.CycleState {
	t.Helper()
	state := newState()
	var infos []fwk.NodeInfo
	for _, name := range names {
		at := slices.IndexFunc(b.infos, func(n fwk.NodeInfo) bool { return n.Node().Name == name })
		infos = append(infos, b.infos[at])
	}
	if s := b.plugin.PreScore(context.Background(), state, p, infos); !s.IsSuccess() {
		t.Fatal(s)
	}
	return state
}

// release gives the memory of a pod's ranking back, of which no decision comes.
func (r *RouteTime) release(state fwk.CycleState) { r.rankings.put(ranked(state).ranking) }

// filter runs PreFilter and Filter and gives the refused nodes with the reason.
func (b *bench) filter(t *testing.T, p *corev1.Pod) map[string]string {
	t.Helper()
	ctx, state := context.Background(), newState()
	if _, s, _ := b.framework.RunPreFilterPlugins(ctx, state, p); !s.IsSuccess() {
		t.Fatalf("PreFilter: %v", s)
	}
	refused := map[string]string{}
	for _, info := range b.infos {
		if s := b.framework.RunFilterPlugins(ctx, state, p, info); !s.IsSuccess() {
			if s.Code() != fwk.UnschedulableAndUnresolvable {
				t.Errorf("%s: code %v", info.Node().Name, s.Code())
			}
			refused[info.Node().Name] = s.Message()
		}
	}
	return refused
}

// large is a cluster of n nodes, each with fresh routes to 20 others and to n1.
func large(n int) *bench {
	b := &bench{now: t0, picture: view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}}
	for i := range n {
		b.add(fmt.Sprint("n", i))
	}
	for i := range n {
		from := model.NodeID(fmt.Sprint("n", i))
		for k := range 20 {
			b.route(from, model.NodeID(fmt.Sprint("n", (i*7+k*131+1)%n)), time.Duration(200+(i*37+k*91)%5000)*time.Microsecond)
		}
		b.route(from, "n1", time.Duration(200+i*13%5000)*time.Microsecond)
	}
	return b
}

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: name, UID: types.UID("uid-" + name),
		Labels: map[string]string{}, Annotations: map[string]string{},
	}}
	for _, c := range change {
		c(p)
	}
	return p
}

func replacement(name, from string) *corev1.Pod {
	return pod(name, annotated(v1alpha1.AnnotationMigration, "m"), annotated(v1alpha1.AnnotationMigratingFrom, from))
}

// on is a pod that runs there.
func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = node, corev1.PodRunning }
}

func inNamespace(ns string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Namespace = ns } }

func labelled(k, v string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Labels[k] = v } }

func annotated(k, v string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations[k] = v }
}

func requesting(cpu string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers = st.MakePod().Req(map[corev1.ResourceName]string{"cpu": cpu}).Obj().Spec.Containers
	}
}
