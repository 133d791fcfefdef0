package plugin

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
)

const (
	// allScored is up to how many nodes kube-scheduler looks at all of them (its
	// minFeasibleNodesToFind).
	allScored = 100
	// mostNear is how many of the best nodes are to be in the sample, mostAsked how many are asked
	// for it. More than one: other plugins have a say.
	mostNear, mostAsked = 4, 32
)

// What became of a near node, as drover_scheduler_near_nodes_total has it.
const (
	nearSampled = "sampled"
	nearBrought = "brought"
	nearRefused = "refused"
)

const nearKey fwk.StateKey = "drover.dev/RouteTime/near"

// nearState has the listener bring the nodes near to a viewpoint among those that are scored.
type nearState struct {
	plugin *RouteTime
	seen   *sight
}

// Clone implements fwk.StateData; the state is never changed.
func (s *nearState) Clone() fwk.StateData { return s }

// lookNear has near nodes looked at for a pod that has some, in a cluster of which kube-scheduler
// looks at a part.
func (r *RouteTime) lookNear(state fwk.CycleState, seen *sight, cluster int) {
	if cluster > allScored && (len(seen.found.Nodes) > 0 || seen.source != "") {
		state.Write(nearKey, &nearState{r, seen})
	}
}

// RunPreFilterPlugins implements framework.Framework. Where a plugin has named the nodes that come
// into question none is brought among them.
func (l listener) RunPreFilterPlugins(ctx context.Context, state fwk.CycleState, pod *corev1.Pod) (*framework.PreFilterResult, *fwk.Status, sets.Set[string]) {
	result, status, by := l.Framework.RunPreFilterPlugins(ctx, state, pod)
	if !result.AllNodes() {
		state.Delete(nearKey)
	}
	return result, status, by
}

// RunPreScorePlugins implements framework.PluginsRunner. The scheduler hands over the slice of
// the feasible nodes that it found, and goes on with what is in it.
func (l listener) RunPreScorePlugins(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) *fwk.Status {
	if data, err := state.Read(nearKey); err == nil {
		// Extenders have filtered already, and are not asked again.
		asked := slices.ContainsFunc(l.extenders, func(e framework.Extender) bool { return e.IsFilter() && e.IsInterested(pod) })
		if near, ok := data.(*nearState); ok && !asked {
			near.plugin.bring(ctx, l.Framework, state, pod, near.seen, nodes)
		}
	}
	return l.Framework.RunPreScorePlugins(ctx, state, pod, nodes)
}

// bring puts those of the best nodes that pass all filters in the place of others in a sample of
// the feasible nodes. Which others is no matter: the sample is any nodes.
func (r *RouteTime) bring(ctx context.Context, f framework.Framework, state fwk.CycleState, pod *corev1.Pod, seen *sight, sample []fwk.NodeInfo) {
	survey, k := r.look(), r.rankings.get()
	defer r.rankings.put(k)
	k.near = k.near[:0]
	all := r.handle.SnapshotSharedLister().NodeInfos()
	for _, id := range r.viewpoints.bestFrom(seen, survey, k.buffer) {
		if info, err := all.Get(string(id)); err == nil { // a node may be gone
			k.near = append(k.near, info)
		}
	}
	// Once more, by what the scheduler knows better than the picture.
	scores := r.rank(k, survey, seen.from(), k.near)
	k.order = k.order[:0]
	for i := range scores {
		if scores[i].A > 0 {
			k.order = append(k.order, i)
		}
	}
	slices.SortFunc(k.order, func(i, j int) int { return cmp.Compare(scores[j].A, scores[i].A) })
	in := 0 // those that are in the sample for their A come first in it
	for _, i := range k.order {
		if in == min(mostNear, len(sample)) {
			return
		}
		near := k.near[i]
		switch at := slices.Index(sample, near); {
		case at >= 0:
			sample[at], sample[in] = sample[in], near
			r.metrics.near.WithLabelValues(nearSampled).Inc()
		case f.RunFilterPluginsWithNominatedPods(ctx, state, pod, near).IsSuccess():
			sample[in] = near
			r.metrics.near.WithLabelValues(nearBrought).Inc()
		default:
			r.metrics.near.WithLabelValues(nearRefused).Inc()
			continue
		}
		in++
	}
}
