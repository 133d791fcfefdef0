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
)

// ReasonRouteTime is the reason of the event on a pod that tells how its node was scored.
const ReasonRouteTime = "RouteTime"

// The events of decisions that are told at most: so many a second, and so many at once. Each is a write
// to the API server, as the binding itself is.
const (
	toldPerSecond = 5
	toldAtOnce    = 20
)

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

// RunScorePlugins implements framework.PluginsRunner. While the scheduler chooses, it adds extenders' scores to what
// this returns, and sorts it; what plugins said of one node stays together.
func (l listener) RunScorePlugins(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) ([]framework.NodePluginScores, *fwk.Status) {
	scores, status := l.Framework.RunScorePlugins(ctx, state, pod, nodes)
	if s := ranked(state); s != nil && status.IsSuccess() && len(scores) == len(s.scores) {
		said := s.ranking.said[:0]
		for i := range scores {
			said = append(said, scores[i].Scores)
		}
		if s.ranking.said = said; len(l.extenders) > 0 {
			s.extended = scores
		}
	}
	return scores, status
}

// PostBind keeps the decision, which is final now, counts it, and tells the pod's user. It
// runs beside the scheduling of the next pods.
func (r *RouteTime) PostBind(_ context.Context, state fwk.CycleState, pod *corev1.Pod, node string) {
	d := r.decided(ranked(state), pod, node)
	d.Bound = r.now()
	r.metrics.decided(d)
	r.decisions.Add(d)
	if !r.told || d.Chosen == nil || r.events == nil {
		return
	}
	if !r.telling.TryAccept() {
		r.metrics.untold.Inc()
		return
	}
	r.events.Eventf(pod, nil, corev1.EventTypeNormal, ReasonRouteTime, "Scheduling", "%s", sentence(d))
}

// decided is what was decided about a pod, by what is left with its state, if anything is: put together once, by who
// comes first.
func (r *RouteTime) decided(s *scoreState, pod *corev1.Pod, node string) *decision.Packed {
	d := &decision.Decision{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Profile: pod.Spec.SchedulerName,
		Params: r.params, Winner: model.NodeID(node),
	}
	if s == nil {
		return r.decisions.Pack(d)
	}
	s.once.Do(func() {
		k := s.ranking
		s.tell(d)
		s.decided = r.decisions.Pack(d)
		clear(k.said)
		k.said = k.said[:0]
		s.ranking, s.scores, s.extended = nil, nil, nil
		r.rankings.put(k)
	})
	return s.decided
}

// mostTold is of how many nodes a decision tells at most: those for which all plugins together said the most, and
// the winner and the best by A, wherever these are. To keep hundreds of nodes takes as long as to rank them.
const mostTold = 64

// tell adds to a decision what it came from, in the ranking's memory.
func (s *scoreState) tell(d *decision.Decision) {
	k, found := s.ranking, &s.seen.found
	d.Ranked, d.Peers, d.Source = s.at, found.Nodes, s.seen.source
	d.PeersBy, d.PeersWhy = string(found.By), found.Why()
	d.ViewAge, d.Cluster, d.Scored = s.survey.View().Age(s.at), s.cluster, len(s.scores)
	if len(k.said) > 0 {
		for _, p := range k.said[0] {
			d.Plugins = append(d.Plugins, p.Name)
		}
	}
	s.add()
	chosen, numbers := s.foremost(d.Winner), k.buffer.Numbers()
	d.Nodes, k.flat = slices.Grow(k.nodes[:0], len(chosen)), slices.Grow(k.flat[:0], len(chosen)*len(d.Plugins))
	for _, i := range chosen {
		n := decision.Node{Score: s.scores[i], Age: decision.NotHeard}
		if number := numbers[i]; number >= 0 {
			if heard := s.survey.Heard(number); !heard.IsZero() {
				n.Age = max(0, s.at.Sub(heard))
			}
		}
		if len(k.said) > 0 {
			from := len(k.flat)
			for _, p := range k.said[i] {
				k.flat = append(k.flat, p.Score)
			}
			n.Said, n.Total = k.flat[from:len(k.flat):len(k.flat)], k.totals[i]
		}
		d.Nodes = append(d.Nodes, n)
	}
	k.nodes = d.Nodes
}

// add adds up what was said of each node; where nothing was, its points stand for that. Extenders' points are
// in the totals alone: one may leave nodes out.
func (s *scoreState) add() {
	k := s.ranking
	k.totals = slices.Grow(k.totals[:0], len(s.scores))
	for i := range s.scores {
		if len(k.said) == 0 {
			k.totals = append(k.totals, int64(s.scores[i].Points))
			continue
		}
		sum := int64(0)
		for _, p := range k.said[i] {
			sum += p.Score
		}
		k.totals = append(k.totals, sum)
	}
	if len(s.extended) == 0 {
		return
	}
	extended := make(map[model.NodeID]int64, len(s.extended))
	for _, n := range s.extended {
		extended[model.NodeID(n.Name)] = n.TotalScore
	}
	for i := range s.scores {
		if total, ok := extended[s.scores[i].Node]; ok {
			k.totals[i] = total
		}
	}
}

// foremost are the places of the nodes of which the decision tells, in the scheduler's order.
func (s *scoreState) foremost(winner model.NodeID) []int {
	const place = 1<<20 - 1 // of one word with the total: that is sorted several times as fast
	k := s.ranking
	order, best, won := slices.Grow(k.order[:0], len(s.scores)+2), -1, -1
	for i := range s.scores {
		n := &s.scores[i]
		order = append(order, -int(k.totals[i])<<20|i&place)
		if n.Known && (best < 0 || n.A > s.scores[best].A) {
			best = i
		}
		if n.Node == winner {
			won = i
		}
	}
	if len(order) > mostTold {
		slices.Sort(order)
		order = order[:mostTold]
	}
	for i := range order {
		order[i] &= place
	}
	for _, i := range []int{best, won} {
		if i >= 0 && !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	slices.Sort(order)
	k.order = order
	return order
}

// sentence is the event: how the node was scored, and the best where it is another.
func sentence(d *decision.Packed) string {
	chosen := d.Chosen
	if !chosen.Known {
		return fmt.Sprintf("%s got the neutral %.0f of 100 points among %d nodes: %s", chosen.Node, chosen.Points, d.Scored, chosen.WhyUnknown())
	}
	text := fmt.Sprintf("%s got %.0f of 100 points among %d nodes: A %.2f, C %.2f cores, M %.2f GiB", chosen.Node, chosen.Points, d.Scored, chosen.A, chosen.Idle.CPU, chosen.Idle.Memory.GiB())
	if chosen.Route.Known {
		text += fmt.Sprintf(", T %.3f ms", float64(chosen.T)/float64(time.Millisecond))
	}
	if best := d.Best; best != nil && best.A > chosen.A {
		text += fmt.Sprintf("; the best by A is %s with %.2f, other plugins decided", best.Node, best.A)
	}
	return text
}
