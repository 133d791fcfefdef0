package plugin

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// ReasonRouteTime is the reason of the event on a pod that tells how its node was scored.
const ReasonRouteTime = "RouteTime"

// The events of decisions that are told at most: so many a second, and so many at once. Each is a write
// to the API server, as the binding itself is.
const (
	toldPerSecond = 20
	toldAtOnce    = 100
)

const pluginsKey fwk.StateKey = "drover.dev/RouteTime/plugins"

// pluginScores is what all plugins said of each node, in any order: the scheduler sorts them
// while it chooses. The first so many of each
// node's scores are the profile's plugins', the rest are extenders'.
type pluginScores struct {
	nodes   []framework.NodePluginScores
	plugins int
}

// Clone implements fwk.StateData; the state is never changed.
func (s *pluginScores) Clone() fwk.StateData { return s }

// listener is a profile's framework that leaves with the pod's state what its Score plugins
// said: no extension point is told of the others' scores. It also brings near nodes among
// those that are scored.
type listener struct {
	framework.Framework
	extenders []framework.Extender
}

// Listen has RouteTime hear what the other plugins of a profile say, and choose some of the nodes
// that are scored; a profile without it is given back as it is. The extenders are all that the
// scheduler has.
func Listen(f framework.Framework, extenders ...framework.Extender) framework.Framework {
	if !slices.ContainsFunc(f.ListPlugins().PostBind.Enabled, func(p config.Plugin) bool { return p.Name == Name }) {
		return f
	}
	return listener{f, extenders}
}

// RunScorePlugins implements framework.PluginsRunner. The scheduler adds extenders' scores to
// what it returns, and so to what is left here.
func (l listener) RunScorePlugins(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) ([]framework.NodePluginScores, *fwk.Status) {
	scores, status := l.Framework.RunScorePlugins(ctx, state, pod, nodes)
	if status.IsSuccess() && len(scores) > 0 {
		state.Write(pluginsKey, &pluginScores{nodes: scores, plugins: len(scores[0].Scores)})
	}
	return scores, status
}

// PostBind keeps the decision, which is final now, counts it, and tells the pod's user. It
// runs beside the scheduling of the next pods.
func (r *RouteTime) PostBind(_ context.Context, state fwk.CycleState, pod *corev1.Pod, node string) {
	d := r.decided(state, pod, node)
	r.release(state)
	r.decisions.Add(d)
	r.metrics.decided(d)
	chosen := d.Chosen()
	if !r.told || chosen == nil || r.events == nil {
		return
	}
	if !r.telling.TryAccept() {
		r.metrics.untold.Inc()
		return
	}
	r.events.Eventf(pod, nil, corev1.EventTypeNormal, ReasonRouteTime, "Scheduling", "%s", sentence(d, chosen))
}

// release lets the memory of the pod's ranking be used again. Nothing reads the state after it.
func (r *RouteTime) release(state fwk.CycleState) {
	if data, err := state.Read(scoreKey); err == nil {
		if s, ok := data.(*scoreState); ok {
			state.Delete(scoreKey)
			r.rankings.Put(s.ranking)
		}
	}
}

// decided puts together what PreScore has left with the pod's state, and the framework.
func (r *RouteTime) decided(state fwk.CycleState, pod *corev1.Pod, node string) *decision.Decision {
	d := &decision.Decision{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Profile: pod.Spec.SchedulerName,
		Bound: r.now(), Params: r.params, Nodes: []decision.Node{}, Winner: model.NodeID(node),
	}
	data, err := state.Read(scoreKey)
	s, ok := data.(*scoreState)
	if err != nil || !ok {
		return d
	}
	view := s.survey.View()
	d.Ranked, d.Peers, d.Source = s.at, s.from.Peers, s.from.Source
	d.PeersBy, d.PeersWhy = string(s.peers.By), s.peers.Why()
	d.ViewAge, d.Cluster = view.Age(s.at), s.cluster
	d.Nodes = make([]decision.Node, len(s.scores))
	told := 0
	for i := range s.scores {
		told += len(s.scores[i].Reasons)
	}
	reasons := make([]placement.Reason, 0, told)
	for i := range s.scores {
		n := &d.Nodes[i]
		n.Score, n.Age = s.scores[i], decision.NotHeard
		if len(n.Reasons) > 0 {
			from := len(reasons)
			reasons = append(reasons, n.Reasons...)
			n.Reasons = reasons[from:len(reasons):len(reasons)]
		}
		if heard := view.Nodes[n.Node].Received; !heard.IsZero() {
			n.Age = max(0, s.at.Sub(heard))
		}
	}
	if data, err := state.Read(pluginsKey); err == nil {
		if said, ok := data.(*pluginScores); ok && len(said.nodes) == len(d.Nodes) {
			say(d, said)
		}
	}
	return d
}

// say adds what all plugins said. Extenders' points are in the totals alone: one may leave
// nodes out.
func say(d *decision.Decision, said *pluginScores) {
	for _, s := range said.nodes[0].Scores[:said.plugins] {
		d.Plugins = append(d.Plugins, s.Name)
	}
	of := make(map[model.NodeID]*decision.Node, len(d.Nodes))
	for i := range d.Nodes {
		of[d.Nodes[i].Node] = &d.Nodes[i]
	}
	flat := make([]int64, 0, len(said.nodes)*said.plugins)
	for _, n := range said.nodes {
		from := len(flat)
		for _, s := range n.Scores[:said.plugins] {
			flat = append(flat, s.Score)
		}
		if to := of[model.NodeID(n.Name)]; to != nil {
			to.Said, to.Total = flat[from:len(flat):len(flat)], n.TotalScore
		}
	}
}

// sentence is the event: how the node was scored, and the best where it is another.
func sentence(d *decision.Decision, chosen *decision.Node) string {
	if !chosen.Known {
		return fmt.Sprintf("%s got the neutral %.0f of 100 points among %d nodes: %s", chosen.Node, chosen.Points, len(d.Nodes), chosen.WhyUnknown())
	}
	text := fmt.Sprintf("%s got %.0f of 100 points among %d nodes: A %.2f, C %.2f cores, M %.2f GiB", chosen.Node, chosen.Points, len(d.Nodes), chosen.A, chosen.Idle.CPU, chosen.Idle.Memory.GiB())
	if chosen.Route.Known {
		text += fmt.Sprintf(", T %.3f ms", float64(chosen.T)/float64(time.Millisecond))
	}
	if best := d.Best(); best != nil && best.A > chosen.A {
		text += fmt.Sprintf("; the best by A is %s with %.2f, other plugins decided", best.Node, best.A)
	}
	return text
}
