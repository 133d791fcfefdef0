package decide

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/cpufeature"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/pressure"
	"github.com/drover-project/drover/internal/view"
)

// candidates are all nodes but this one that pods may come to.
func candidates(in Input, pod Pod, now time.Time) []placement.Candidate {
	others := slices.DeleteFunc(in.View.Alive(), func(id model.NodeID) bool { return id == in.Here || in.View.Nodes[id].Closed() != "" })
	if len(others) == 0 {
		return nil // Candidates without nodes would mean all
	}
	return placement.NewSurvey(in.View, in.Params, now).Candidates(placement.Viewpoint{
		Peers: pod.Peers, Source: in.Here,
		Needs: model.Resources{CPU: max(pod.Requests.CPU, pod.Run), Memory: max(pod.Requests.Memory, pod.Memory)},
	}, others...)
}

// bounded gives the nodes with no more than their Node objects give.
func bounded(nodes map[model.NodeID]view.Node, most map[model.NodeID]model.Resources) map[model.NodeID]view.Node {
	all := maps.Clone(nodes)
	for id, n := range all {
		l := &n.State.Load.Allocatable
		l.CPU, l.Memory = min(l.CPU, most[id].CPU), min(l.Memory, most[id].Memory)
		all[id] = n
	}
	return all
}

// foreseen gives nodes, a copy of the caller's, with what comes to them counted as if it were there.
func foreseen(nodes map[model.NodeID]view.Node, coming map[model.NodeID]Coming) map[model.NodeID]view.Node {
	for id, c := range coming {
		n, known := nodes[id]
		if !known {
			continue
		}
		l := &n.State.Load
		l.Requested, l.Used = l.Requested.Plus(c.Requests), l.Used.Plus(c.Use)
		nodes[id] = n
	}
	return nodes
}

// othersShare is the part of a node's CPU (0..1) that all but the pod use; not a number
// when the load makes no sense.
//
// A pod that wants the CPU finds it taken as often as others use it, so its wait is held to
// grow with this share. Queues grow faster than that when a node is nearly full: the
// prediction for an idle node is too high rather than too low.
func othersShare(l model.Load, own model.Cores) float64 {
	share := float64((l.Used.CPU - own) / l.Allocatable.CPU)
	if math.IsNaN(share) || math.IsInf(share, 0) || l.Allocatable.CPU <= 0 {
		return math.NaN()
	}
	return min(1, max(0, share))
}

// stall is what a pod suffers for, with the share of time (0..1) for which others keep it from that.
type stall struct {
	resource model.Resource
	share    float64
}

// stalls are all that the pod suffers for, the worst first.
func (p Pod) stalls() []stall {
	all := []stall{{p.Resource, p.Wait}}
	for _, r := range pressure.Resources {
		if share, also := p.Also[r]; also && r != p.Resource {
			all = append(all, stall{r, share})
		}
	}
	return all
}

// waits tells whether the pod suffers for the resource.
func (p Pod) waits(r model.Resource) bool {
	return slices.ContainsFunc(p.stalls(), func(s stall) bool { return s.resource == r })
}

// predict is the share that a stall would have on a node; not a number where that is not
// known.
//
// For the CPU it is held to change with what others use. For memory and IO it is held to be
// what the node says that some task stalls: whether its memory holds the pod as well is
// looked at beside it.
func predict(s stall, there model.Load, othersHere float64) float64 {
	if s.resource == model.OnCPU {
		return s.share * othersShare(there, 0) / othersHere
	}
	if !told(there, s.resource) {
		return math.NaN()
	}
	return there.Pressures[s.resource]
}

func told(l model.Load, r model.Resource) bool {
	_, ok := l.Pressures[r]
	return ok
}

// unfit says why a pod should not go to a candidate; empty when it should.
func unfit(config Config, in Input, pod Pod, score placement.Score, othersHere float64) string {
	state := in.View.Nodes[score.Node].State
	load := state.Load
	idle := load.Allocatable.CPU - load.Used.CPU
	switch {
	case slices.ContainsFunc(score.Reasons, isAboutLoad):
		i := slices.IndexFunc(score.Reasons, isAboutLoad)
		return score.Reasons[i].String()
	case pod.Barred[score.Node] != "":
		return pod.Barred[score.Node]
	case state.CannotRestore != "":
		return "it cannot restore a pod: " + state.CannotRestore
	case cpufeature.Obstacle(in.View.Nodes[in.Here].State.CPU, state.CPU) != "":
		return "it cannot restore the pod: " + cpufeature.Obstacle(in.View.Nodes[in.Here].State.CPU, state.CPU)
	case slices.ContainsFunc(state.Suffering, model.Contention.Severe):
		return fmt.Sprintf("%s suffers there itself", state.Suffering[slices.IndexFunc(state.Suffering, model.Contention.Severe)].Pod)
	case load.Requested.CPU+pod.Requests.CPU > load.Allocatable.CPU:
		return fmt.Sprintf("%.2f cores are requested of %.2f, %.2f more do not fit", load.Requested.CPU, load.Allocatable.CPU, pod.Requests.CPU)
	case load.Requested.Memory+pod.Requests.Memory > load.Allocatable.Memory:
		return fmt.Sprintf("%.2f GiB are requested of %.2f, %.2f more do not fit", load.Requested.Memory.GiB(), load.Allocatable.Memory.GiB(), pod.Requests.Memory.GiB())
	case load.Used.Memory+pod.Memory > load.Allocatable.Memory:
		return fmt.Sprintf("%.2f GiB are in use of %.2f, the pod's %.2f do not fit", load.Used.Memory.GiB(), load.Allocatable.Memory.GiB(), pod.Memory.GiB())
	case pod.waits(model.OnMemory) && float64(load.Used.Memory+pod.Memory) > (1-pressure.Short)*float64(load.Allocatable.Memory):
		return fmt.Sprintf("it would be short of memory there, too: %.2f GiB are in use of %.2f, with the pod's %.2f less than a part of %g is left",
			load.Used.Memory.GiB(), load.Allocatable.Memory.GiB(), pod.Memory.GiB(), pressure.Short)
	case idle-pod.Run < config.Headroom:
		return fmt.Sprintf("%.2f cores are idle; with the pod's %.2f less than %.2f would be left", idle, pod.Run, config.Headroom)
	}
	for _, s := range pod.stalls() {
		if why := noBetter(config, s, load, othersHere); why != "" {
			return why
		}
	}
	return ""
}

// noBetter says why a pod would not be clearly better off there with one thing that it suffers
// for; empty when it would.
func noBetter(config Config, s stall, there model.Load, othersHere float64) string {
	predicted := predict(s, there, othersHere)
	switch {
	case s.resource != model.OnCPU && !told(there, s.resource):
		return fmt.Sprintf("it does not tell how much is waited there for %s", s.resource)
	case !(predicted >= 0) || math.IsInf(predicted, 0):
		return fmt.Sprintf("a wait of %v there for %s makes no sense", predicted, s.resource)
	case !(predicted*config.Margin <= s.share) || s.share == 0:
		return fmt.Sprintf("it would wait about %.2f there for %s, not %g times less", predicted, s.resource, config.Margin)
	}
	return ""
}

// isAboutLoad tells the reasons that forbid a move from those that only blur the ranking.
func isAboutLoad(r placement.Reason) bool {
	switch r.Kind {
	case placement.KindNoState, placement.KindNotAlive, placement.KindStaleState, placement.KindNoLoad, placement.KindBadLoad, placement.KindBadParams:
		return true
	}
	return false
}
