package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	kubescheduler "k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedulermetrics "k8s.io/kubernetes/pkg/scheduler/metrics"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/plugin"
	"github.com/drover-project/drover/test/bench/report"
)

const (
	goalPerNode = 120 // ns
	goalShare   = 60  // µs
	goalFirst   = 10_000

	// warm is of how many peers' nodes the routes are asked for again and again.
	warm = 20
)

// scoreAlone measures the ranking itself: the formula, and with it the gathering of what is known of all
// nodes as seen from one and from three peers' nodes.
func scoreAlone(sizes []int) (metrics []report.Metric) {
	for _, n := range sizes {
		w, now := newWorld(n), time.Now()
		survey := placement.NewSurvey(w.Snapshot(), placement.Defaults(), now)
		ids := w.Snapshot().IDs()
		from := func(peers int) placement.Viewpoint {
			at := placement.Viewpoint{Peers: map[model.NodeID]float64{}}
			for _, p := range w.peers()[:peers] {
				at.Peers[model.NodeID(p.Spec.NodeName)] = 1
			}
			return at
		}
		b := placement.NewBuffer()
		of := func(what string, f func()) {
			f()
			r := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					f()
				}
			})
			name := fmt.Sprintf("%s/nodes=%d", what, n)
			metrics = append(metrics,
				report.AtMost(name+"/time", float64(r.T.Nanoseconds())/float64(r.N)/float64(n), "ns/node", goalPerNode, 0),
				report.AtMost(name+"/allocations", float64(r.AllocsPerOp()), "1", 0, 0))
		}
		candidates := b.Candidates(survey, from(1), ids)
		of("score", func() { b.Evaluate(placement.Defaults(), candidates) })
		for _, peers := range []int{1, peerNodes} {
			at, gather := from(peers), placement.NewBuffer()
			of(fmt.Sprintf("gather-and-score/peers=%d", peers), func() { gather.Evaluate(placement.Defaults(), gather.Candidates(survey, at, ids)) })
		}
	}
	return metrics
}

// cycles is kube-scheduler with a profile, of which only the scheduling of single pods is used.
type cycles struct {
	*kubescheduler.Scheduler
	framework framework.Framework
	kept      *decision.Log
}

// newCycles makes it with all default plugins, with RouteTime or without, and near nodes brought
// into the sample or not.
func newCycles(ctx context.Context, w *world, routeTime, near bool, pods []*corev1.Pod) (*cycles, error) {
	schedulermetrics.Register()
	objects := make([]runtime.Object, len(pods))
	for i, p := range pods {
		objects[i] = p
	}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	defaults, err := latest.Default()
	if err != nil {
		return nil, err
	}
	profile := defaults.Profiles[0]
	profile.SchedulerName = schedulerName
	if routeTime {
		profile.Plugins.MultiPoint.Enabled = append(profile.Plugins.MultiPoint.Enabled, config.Plugin{Name: plugin.Name, Weight: 10})
	}
	c := &cycles{kept: decision.NewLog(1, model.GiB)}
	c.Scheduler, err = kubescheduler.New(ctx, fake.NewClientset(), factory, nil, func(string) events.EventRecorder { return &events.FakeRecorder{} },
		kubescheduler.WithProfiles(profile), kubescheduler.WithFrameworkOutOfTreeRegistry(frameworkruntime.Registry{
			plugin.Name: plugin.Factory(plugin.Config{Views: w, Metrics: plugin.NewMetrics(), Decisions: c.kept, Now: time.Now}),
		}))
	if err != nil {
		return nil, fmt.Errorf("make a scheduler: %w", err)
	}
	for i := range w.names {
		c.Cache.AddNode(klog.FromContext(ctx), w.node(i))
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := c.WaitForHandlersSync(ctx); err != nil {
		return nil, err
	}
	c.framework = c.Profiles[schedulerName]
	if near {
		c.framework = plugin.Listen(c.framework, c.Extenders...)
	}
	return c, nil
}

// place schedules one pod, and gives how long that took, and the decision where RouteTime kept one.
func (c *cycles) place(ctx context.Context, p *corev1.Pod) (time.Duration, *decision.Decision, error) {
	state := framework.NewCycleState()
	start := time.Now()
	result, err := c.SchedulePod(ctx, c.framework, state, p)
	if err != nil {
		return 0, nil, fmt.Errorf("schedule %s: %w", p.Name, err)
	}
	c.framework.RunReservePluginsReserve(ctx, state, p, result.SuggestedHost)
	took := time.Since(start)
	c.framework.RunReservePluginsUnreserve(ctx, state, p, result.SuggestedHost)
	c.framework.RunPostBindPlugins(ctx, state, p, result.SuggestedHost)
	if kept := c.kept.Of(p.Namespace, p.Name); len(kept) > 0 {
		return took, kept[0], nil
	}
	return took, nil, nil
}

// shares measures RouteTime's share of a cycle, as what a cycle takes longer with it than without, of the
// first pod with peers on a node by itself, and how often the best node is in the sample.
func shares(ctx context.Context, sizes []int, rounds, pods int) (metrics []report.Metric, err error) {
	for _, n := range sizes {
		w := newWorld(n)
		peers, callers := spread(w, pods)
		without, err := newCycles(ctx, w, false, false, peers)
		if err != nil {
			return nil, err
		}
		with, err := newCycles(ctx, w, true, true, peers)
		if err != nil {
			return nil, err
		}
		sampled, err := newCycles(ctx, w, true, false, peers)
		if err != nil {
			return nil, err
		}
		took := map[string][]float64{}
		// The first round computes routes, the others find them.
		for round := range 1 + rounds {
			for _, caller := range callers[:min(len(callers), warm)] {
				plain := newPod(caller.Name, "")
				for what, run := range map[string]struct {
					by  *cycles
					pod *corev1.Pod
				}{"default": {without, plain}, "no peers": {with, plain}, "peers": {with, caller}} {
					d, _, err := run.by.place(ctx, run.pod)
					if err != nil {
						return nil, err
					}
					if round == 0 {
						what = "first"
						if run.pod != caller {
							continue
						}
					}
					took[what] = append(took[what], float64(d)/float64(time.Microsecond))
				}
			}
		}
		base := median(took["default"])
		for _, what := range []string{"no peers", "peers"} {
			metrics = append(metrics, report.AtMost(fmt.Sprintf("share-of-cycle/nodes=%d/%s", n, what), median(took[what])-base, "us/pod", goalShare, base))
		}
		metrics = append(metrics, report.AtMost(fmt.Sprintf("share-of-cycle/nodes=%d/first pod with a peer", n), median(took["first"])-base, "us/pod", goalFirst, base))
		bestWith, err := with.best(ctx, w, callers)
		if err != nil {
			return nil, err
		}
		bestWithout, err := sampled.best(ctx, w, callers)
		if err != nil {
			return nil, err
		}
		metrics = append(metrics, report.AtLeast(fmt.Sprintf("best-in-sample/nodes=%d", n), bestWith, "ratio", 1, bestWithout))
	}
	return metrics, nil
}

// spread gives pods with a peer each, and the peers, all over the cluster.
func spread(w *world, count int) (peers, callers []*corev1.Pod) {
	for i := range count {
		app := fmt.Sprint("db-", i)
		p := newPod(app, "")
		p.UID, p.Labels, p.Spec.NodeName, p.Status.Phase = types.UID(app), map[string]string{"app": app}, w.names[(i*61+7)%len(w.names)], corev1.PodRunning
		peers = append(peers, p)
		caller := newPod(fmt.Sprint("web-", i), "app="+app)
		caller.UID = types.UID(caller.Name)
		callers = append(callers, caller)
	}
	return peers, callers
}

// best is how often the node of the greatest A in the whole cluster was among those that were scored.
func (c *cycles) best(ctx context.Context, w *world, callers []*corev1.Pod) (float64, error) {
	in, survey := 0, placement.NewSurvey(w.Snapshot(), placement.Defaults(), time.Now())
	for _, p := range callers {
		_, d, err := c.place(ctx, p)
		if err != nil {
			return 0, err
		}
		if d == nil {
			return 0, fmt.Errorf("no decision about %s is kept", p.Name)
		}
		candidates := survey.Candidates(placement.Viewpoint{Peers: d.Peers})
		infos := c.framework.SnapshotSharedLister().NodeInfos()
		for j := range candidates {
			info, err := infos.Get(string(candidates[j].Node))
			if err != nil {
				return 0, err
			}
			candidates[j].Load.Requested = requested(info)
		}
		best := placement.Rank(placement.Defaults(), candidates)[0].Node
		if slices.ContainsFunc(d.Nodes, func(n decision.Node) bool { return n.Node == best }) {
			in++
		}
	}
	return float64(in) / float64(len(callers)), nil
}

func requested(n fwk.NodeInfo) model.Resources {
	r := n.GetRequested()
	return model.Resources{CPU: model.Cores(float64(r.GetMilliCPU()) / 1000), Memory: model.Bytes(r.GetMemory())}
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile of values, the nearest rank; 0 of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
