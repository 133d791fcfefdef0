// Package plugin is RouteTime, a plugin for kube-scheduler. It scores nodes by idle CPU,
// idle memory and measured route time (package placement), and keeps replacement pods off
// nodes that cannot restore them.
//
// Measurements come from an immutable picture of the cluster that is held in memory: no
// extension point does I/O. Missing and stale measurements are neutral: they never fail
// the scheduling of a pod.
package plugin

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"

	configv1alpha1 "github.com/drover-project/drover/api/config/v1alpha1"
	"github.com/drover-project/drover/internal/arrivals"
	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/plugin/args"
)

// Name of the plugin in profiles.
const Name = args.Plugin

// reuse is how long one picture serves: measurements change more slowly, and making a
// picture ready costs as much as ranking many pods by it. Among many nodes, who tell the less often, it is reuseEach
// for each of them, up to longestReuse.
const (
	reuse        = 250 * time.Millisecond
	reuseEach    = 200 * time.Microsecond
	longestReuse = time.Second
)

// Views gives the newest picture of the cluster from memory, at once.
type Views interface {
	Snapshot() view.Snapshot
}

// RouteTime is the plugin.
type RouteTime struct {
	params  placement.Params
	views   Views
	metrics *Metrics
	now     func() time.Time
	pods    corelisters.PodLister
	events  events.EventRecorder
	handle  framework.Handle
	refused refusals

	coming coming

	decisions *decision.Log
	told      bool // events
	telling   flowcontrol.PassiveRateLimiter

	mu       sync.Mutex
	survey   *placement.Survey
	taken    time.Time
	renewing bool
	renewed  *placement.Survey // takes the place of survey in what comes next; nil: none is ready

	rankings   rankings
	viewpoints viewpoints
}

var (
	_ framework.PreFilterPlugin = &RouteTime{}
	_ framework.FilterPlugin    = &RouteTime{}
	_ framework.PreScorePlugin  = &RouteTime{}
	_ framework.ScorePlugin     = &RouteTime{}
	_ framework.ScoreExtensions = &RouteTime{}
	_ framework.ReservePlugin   = &RouteTime{}
	_ framework.PostBindPlugin  = &RouteTime{}
)

// Config is what all profiles' plugins share.
type Config struct {
	Views   Views
	Metrics *Metrics
	// Decisions is where decisions are kept.
	Decisions *decision.Log
	// Events has bound pods told by an event how their nodes were scored.
	Events bool
	// Now is the clock by which Views stamps what it receives.
	Now func() time.Time
}

// Factory makes the plugin's factory for the scheduler's registry.
func Factory(c Config) frameworkruntime.PluginFactory {
	return func(ctx context.Context, obj runtime.Object, h framework.Handle) (framework.Plugin, error) {
		a, err := configv1alpha1.DecodeRouteTimeArgs(obj)
		if err != nil {
			return nil, err
		}
		pods := h.SharedInformerFactory().Core().V1().Pods()
		byLabel, err := podsByLabel(pods.Informer(), pods.Lister())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", Name, err)
		}
		r := &RouteTime{
			params:    args.Params(a),
			views:     c.Views,
			metrics:   c.Metrics,
			now:       c.Now,
			pods:      byLabel,
			events:    h.EventRecorder(),
			decisions: c.Decisions,
			told:      c.Events,
			telling:   flowcontrol.NewTokenBucketPassiveRateLimiter(toldPerSecond, toldAtOnce),
			handle:    h,
			coming:    coming{book: arrivals.NewBook()},
			refused:   refusals{pods: map[types.UID]*refusal{}},
		}
		if _, err := pods.Informer().AddEventHandler(r.handler()); err != nil {
			return nil, fmt.Errorf("%s: follow the pods: %w", Name, err)
		}
		go wait.UntilWithContext(ctx, func(ctx context.Context) { r.activate(klog.FromContext(ctx)) }, retryEvery)
		return r, nil
	}
}

// Name implements framework.Plugin.
func (r *RouteTime) Name() string { return Name }

// look gives the picture, made ready, at most reuse old, or what it is among many nodes.
func (r *RouteTime) look() *placement.Survey {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.survey != nil {
		serves := max(reuse, min(longestReuse, reuseEach*time.Duration(r.survey.Size())))
		if age := now.Sub(r.taken); age >= 0 && age < serves {
			return r.survey
		}
	}
	s, earlier := r.views.Snapshot(), r.survey
	if r.renewed != nil {
		earlier, r.renewed = r.renewed, nil
	}
	r.survey, r.taken = placement.NewSurvey(s, r.params, now).After(earlier), now
	if !r.renewing && r.survey.Ageing(now) {
		r.renewing = true
		go r.renew(s, now, r.survey)
	}
	r.metrics.age.Set(s.Age(now).Seconds())
	r.metrics.nodes.Set(float64(r.survey.Alive()))
	r.metrics.coming.Set(float64(r.coming.hear(s, now)))
	return r.survey
}

// renew computes anew what a survey has computed, beside the scheduling of pods.
func (r *RouteTime) renew(s view.Snapshot, now time.Time, earlier *placement.Survey) {
	fresh := placement.NewSurvey(s, r.params, now).Like(earlier)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renewed, r.renewing = fresh, false
}

// filterState is what Filter reads: the picture, the same for all nodes.
type filterState struct{ view view.Snapshot }

// Clone implements fwk.StateData; the state is never changed.
func (s *filterState) Clone() fwk.StateData { return s }

const (
	filterKey fwk.StateKey = "drover.dev/RouteTime/filter"
	scoreKey  fwk.StateKey = "drover.dev/RouteTime/score"
)

// PreFilter tells the user what is wrong with the annotation, once per attempt, has near nodes looked
// at, and prepares Filter for replacement pods; all others skip it.
func (r *RouteTime) PreFilter(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) (*framework.PreFilterResult, *fwk.Status) {
	seen := r.see(state, pod)
	r.tellOfPeers(ctx, pod, seen)
	r.lookNear(state, seen, len(nodes))
	if !isReplacement(pod) {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	r.refused.forget(pod)
	state.Write(filterKey, &filterState{view: r.look().View()})
	return nil, nil
}

// PreFilterExtensions implements framework.PreFilterPlugin: other pods on a node change
// nothing here.
func (r *RouteTime) PreFilterExtensions() framework.PreFilterExtensions { return nil }

// Filter keeps a replacement off nodes that are known to be unable to restore it.
func (r *RouteTime) Filter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, node fwk.NodeInfo) *fwk.Status {
	data, err := state.Read(filterKey)
	s, ok := data.(*filterState)
	if err != nil || !ok || node.Node() == nil {
		return nil
	}
	name := node.Node().Name
	if leaves(pod, name) {
		return r.reject("the pod is leaving this node")
	}
	if why := unable(s.view, sourceOf(pod), name); why != "" {
		r.refused.add(pod, name)
		return r.reject(why)
	}
	return nil
}

func (r *RouteTime) reject(why string) *fwk.Status {
	r.metrics.rejected.Inc()
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, why)
}

// ranking is memory for the ranking of one pod's nodes, and for putting together the decision that
// comes of it. Then it is used again.
type ranking struct {
	buffer *placement.Buffer
	ids    []model.NodeID
	near   []fwk.NodeInfo
	order  []int

	said   [][]framework.PluginScore // of each node, by all plugins
	totals []int64
	flat   []int64
	nodes  []decision.Node
}

// rankings are those that are not in use, few. (A sync.Pool keeps what one processor has put back from the others:
// what ranks and what puts decisions together are often on two.)
type rankings struct {
	mu   sync.Mutex
	idle []*ranking
}

const mostIdle = 4

func (r *rankings) get() *ranking {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.idle) - 1; last >= 0 {
		k := r.idle[last]
		r.idle = r.idle[:last]
		return k
	}
	return &ranking{buffer: placement.NewBuffer()}
}

func (r *rankings) put(k *ranking) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.idle) < mostIdle {
		r.idle = append(r.idle, k)
	}
}

// scoreState is what came of a ranking, and what it came from.
type scoreState struct {
	ranking *ranking          // nil once the decision was put together, as scores are
	scores  []placement.Score // in the order of the nodes
	survey  *placement.Survey
	seen    *sight
	at      time.Time // of the ranking
	cluster int       // nodes in the cluster
	// extended is what the framework gave, which extenders add to; nil where there are none.
	extended []framework.NodePluginScores

	once    sync.Once
	decided *decision.Packed
}

// Clone implements fwk.StateData; but for what is put together once the state is never changed.
func (s *scoreState) Clone() fwk.StateData { return s }

// ranked is what PreScore has left with a pod's state; nil: nothing was scored.
func ranked(state fwk.CycleState) *scoreState {
	data, err := state.Read(scoreKey)
	if s, ok := data.(*scoreState); err == nil && ok {
		return s
	}
	return nil
}

// PreScore ranks all feasible nodes by one picture.
func (r *RouteTime) PreScore(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) *fwk.Status {
	start := time.Now()
	seen, survey, k := r.see(state, pod), r.look(), r.rankings.get()
	scores := r.rank(k, survey, seen.from(), nodes)
	state.Write(scoreKey, &scoreState{ranking: k, scores: scores, survey: survey, seen: seen, at: r.now(), cluster: r.clusterSize()})
	r.metrics.observe(scores, time.Since(start))
	if log := klog.FromContext(ctx).V(5); log.Enabled() {
		log.Info("Peers", "plugin", Name, "pod", klog.KObj(pod), "peers", seen.found.By, "why", seen.found.Why(), "nodes", seen.found.Nodes)
		for _, s := range scores {
			log.Info("Score", "plugin", Name, "pod", klog.KObj(pod), "node", s.Node, "cores", s.Idle.CPU, "memoryGiB", s.Idle.Memory.GiB(),
				"routeTime", s.T, "a", s.A, "points", s.Points, "known", s.Known, "reasons", fmt.Sprint(s.Reasons))
		}
	}
	return nil
}

// rank ranks nodes, in their order, by a picture and by what the scheduler knows better.
func (r *RouteTime) rank(k *ranking, survey *placement.Survey, from placement.Viewpoint, nodes []fwk.NodeInfo) []placement.Score {
	k.ids = names(k.ids, nodes)
	candidates := k.buffer.Candidates(survey, from, k.ids)
	for i := range candidates {
		refresh(&candidates[i], nodes[i])
	}
	r.coming.count(survey, k.buffer.Numbers(), candidates)
	return k.buffer.Evaluate(r.params, candidates)
}

// clusterSize is how many nodes the cluster has; 0 where it is not known.
func (r *RouteTime) clusterSize() int {
	nodes, err := r.handle.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return 0
	}
	return len(nodes)
}

// Score says nothing of a node: to look for each in what PreScore has left would take as long as the ranking.
// NormalizeScore goes through all of them once.
func (r *RouteTime) Score(context.Context, fwk.CycleState, *corev1.Pod, fwk.NodeInfo) (int64, *fwk.Status) {
	return placement.NeutralPoints, nil
}

// ScoreExtensions implements framework.ScorePlugin.
func (r *RouteTime) ScoreExtensions() framework.ScoreExtensions { return r }

// NormalizeScore gives the points, 0 to 100, which are on their scale since PreScore. A node that PreScore did
// not see stays neutral.
func (r *RouteTime) NormalizeScore(_ context.Context, state fwk.CycleState, _ *corev1.Pod, scores framework.NodeScoreList) *fwk.Status {
	s := ranked(state)
	if s == nil {
		return nil
	}
	for i := range scores {
		at := i // they are in the order of the nodes that were ranked
		if i >= len(s.scores) || string(s.scores[i].Node) != scores[i].Name {
			at = slices.IndexFunc(s.scores, func(p placement.Score) bool { return string(p.Node) == scores[i].Name })
		}
		if at >= 0 {
			scores[i].Score = int64(s.scores[at].Points + 0.5)
		}
	}
	return nil
}
