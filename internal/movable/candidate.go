package movable

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/cpufeature"
	"github.com/drover-project/drover/internal/fit"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Candidate is a node, with all that speaks against it as the pod's next place.
type Candidate struct {
	Node    string    `json:"node"`
	Against []Finding `json:"against,omitempty"`
}

// Candidates judges every node but the pod's own, by its Node object and by what its agent
// tells the others. The scheduler has the last word.
func Candidates(p *corev1.Pod, nodes []corev1.Node, s view.Snapshot) []Candidate {
	barred := fit.Barred(p, nodes)
	var all []Candidate
	for i := range nodes {
		n := &nodes[i]
		if n.Name == p.Spec.NodeName {
			continue
		}
		c := Candidate{Node: n.Name}
		if why := barred[model.NodeID(n.Name)]; why != "" {
			c.Against = append(c.Against, Found(ReasonBarred, "%s", why))
		}
		c.Against = append(c.Against, handler(n)...)
		c.Against = append(c.Against, restores(p, n, s)...)
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Candidate) int { return strings.Compare(a.Node, b.Node) })
	return all
}

// handler: the node's container runtime has to know drover-runc. An older kubelet does not tell.
func handler(n *corev1.Node) []Finding {
	if len(n.Status.RuntimeHandlers) == 0 {
		return nil
	}
	for _, h := range n.Status.RuntimeHandlers {
		if h.Name == v1alpha1.RuntimeClassName {
			return nil
		}
	}
	return []Finding{Found(ReasonNoHandler, "its container runtime has no handler %q", v1alpha1.RuntimeClassName).
		But("set it up as docs/install.md says")}
}

// restores: what the node's agent says of it.
func restores(p *corev1.Pod, n *corev1.Node, s view.Snapshot) []Finding {
	is := s.Nodes[model.NodeID(n.Name)]
	if !is.Alive || is.Received.IsZero() {
		return []Finding{Found(ReasonNotAlive, "its agent is not heard").But("see to the agent's pod there")}
	}
	var all []Finding
	if why := is.Closed(); why != "" {
		all = append(all, Found(ReasonClosed, "no pod is moved to it: %s", why))
	}
	if why := is.State.CannotRestore; why != "" {
		all = append(all, Found(ReasonCannotRestore, "it cannot restore a pod (kernel %s): %s", n.Status.NodeInfo.KernelVersion, why))
	}
	source := s.Nodes[model.NodeID(p.Spec.NodeName)].State.CPU
	if why := cpufeature.Obstacle(source, is.State.CPU); why != "" {
		all = append(all, Found(ReasonCPUFeatures, "%s", why))
	}
	return append(all, room(p, is.State.Load)...)
}

// room: what the pod requests has to be free; the scheduler reserves it before the move.
func room(p *corev1.Pod, l model.Load) []Finding {
	wants := fit.Requests(p)
	cpu, memory := wants.CPU, wants.Memory
	var all []Finding
	if free := l.Allocatable.CPU - l.Requested.CPU; l.Allocatable.CPU > 0 && cpu > free {
		all = append(all, Found(ReasonNoRoom, "%.2f of %.2f cores are not requested yet, the pod requests %.2f", max(0, free), l.Allocatable.CPU, cpu))
	}
	if free := l.Allocatable.Memory - l.Requested.Memory; l.Allocatable.Memory > 0 && memory > free {
		all = append(all, Found(ReasonNoRoom, "%.2f of %.2f GiB are not requested yet, the pod requests %.2f", max(0, free).GiB(), l.Allocatable.Memory.GiB(), memory.GiB()))
	}
	return all
}

// Target gives what speaks against that node; with an empty name, a finding that says why for
// every node if none is left.
func Target(all []Candidate, to string) []Finding {
	var why []string
	for _, c := range all {
		if c.Node == to {
			var named []Finding
			for _, f := range c.Against {
				f.Message = "node " + c.Node + ": " + f.Message
				named = append(named, f)
			}
			return named
		}
		if len(c.Against) == 0 && to == "" {
			return nil
		}
		if len(c.Against) > 0 {
			why = append(why, fmt.Sprintf("%s: %s", c.Node, c.Against[0].Message))
		}
	}
	switch {
	case to != "":
		return nil // no such node, or the pod's own: said by the objects
	case len(all) == 0:
		return []Finding{Found(ReasonNoCandidate, "there is no other node")}
	}
	return []Finding{Found(ReasonNoCandidate, "no node can take the pod: %s", strings.Join(why, "; ")).
		But("free or set up one of them")}
}
