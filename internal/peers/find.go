package peers

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

// By is how a pod's peers are known.
type By string

// The ways, in the order in which they count.
const (
	Annotated By = "annotation"
	Observed  By = "observed" // what the pods of its workload have carried
	None      By = "none"
)

// maxNodes is how many nodes with observed peers count, which nobody has asked for: every candidate's way to each
// of them is looked up. The mean over the heaviest says about the same as that over all. Of those that the annotation names
// it is placement.MostPeers.
const maxNodes = 8

// Found is where a pod's peers are.
type Found struct {
	// Nodes with the weight of the traffic to each, the heaviest; none if By is None. On is how many
	// there are in all.
	Nodes map[model.NodeID]float64
	On    int
	By    By
	// Terms are those of the annotation.
	Terms []Term

	pod      *corev1.Pod
	invalid  error // the annotation
	refused  bool  // it names nobody
	absent   bool  // there are peers, but nowhere
	observed []edges.Peer
}

// Find looks for a pod's peers: those that its annotation names, which are none if it is there and empty; else,
// without a valid annotation, those that pods of its workload were seen to talk to. list gives the pods of the pod's namespace that a
// selector matches; it is asked for the annotation alone, and its error is the only one.
func Find(pod *corev1.Pod, list func(labels.Selector) ([]*corev1.Pod, error), s view.Snapshot) (Found, error) {
	f := Found{By: None, pod: pod}
	annotation, annotated := pod.Annotations[v1alpha1.AnnotationPeers]
	terms, err := Parse(annotation)
	f.Terms, f.invalid, f.refused = terms, err, annotated && annotation == ""
	switch {
	case f.refused:
		return f, nil
	case len(terms) > 0:
		if f.Nodes, err = Nodes(pod, terms, list); err != nil {
			return f, err
		}
		return f.known(Annotated, placement.MostPeers), nil
	}
	w := WorkloadOf(pod)
	f.observed = s.Talk.Peers(w)
	if len(f.observed) == 0 {
		return f, nil
	}
	f.Nodes = map[model.NodeID]float64{}
	own := leaves(pod, s)
	for _, p := range f.observed {
		addHosts(f.Nodes, p, s, w, own)
	}
	return f.known(Observed, maxNodes), nil
}

// addHosts shares a peer's weight among its pods, as the replicas of a service share requests. Of a
// workload that talks to itself the pod does not count that is placed anew.
func addHosts(nodes map[model.NodeID]float64, p edges.Peer, s view.Snapshot, own model.Workload, leaves model.NodeID) {
	pods := func(h edges.Host) int {
		switch n, known := s.Nodes[h.Node]; {
		case !known || n.Phase == model.Dead || n.Phase == model.Left:
			return 0
		case p.Workload == own && h.Node == leaves:
			return h.Pods - 1
		}
		return h.Pods
	}
	hosts, all := s.Talk.Hosts(p.Workload), 0
	for _, h := range hosts {
		all += pods(h)
	}
	for _, h := range hosts {
		if n := pods(h); n > 0 {
			nodes[h.Node] += p.Share * float64(n) / float64(all)
		}
	}
}

// leaves is the node that a pod is on, or that it takes over from, which it may have done long ago; empty:
// none, or that node does not tell of the pod.
func leaves(pod *corev1.Pod, s view.Snapshot) model.NodeID {
	id := model.NodeID(cmp.Or(pod.Spec.NodeName, pod.Annotations[v1alpha1.AnnotationMigratingFrom]))
	if len(pod.Status.PodIPs) == 0 { // the source's are not known
		return id
	}
	for _, ip := range pod.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		told := func(e model.End) bool { return slices.Contains(e.Addresses, addr.Unmap()) }
		if err == nil && slices.ContainsFunc(s.Nodes[id].State.Ends, told) {
			return id
		}
	}
	return ""
}

// known settles by what the nodes are known, if there are any, and leaves the heaviest.
func (f Found) known(by By, most int) Found {
	f.On = len(f.Nodes)
	if f.On == 0 {
		f.Nodes, f.absent = nil, true
		return f
	}
	if f.By = by; f.On > most {
		f.Nodes = edges.Heaviest(f.Nodes, most)
	}
	return f
}

// Invalid is what is wrong with the annotation, if anything is.
func (f Found) Invalid() error { return f.invalid }

// Why says by what the peers are known, or why there are none.
func (f Found) Why() string {
	if f.By == Annotated {
		return plain(f.pod.Annotations[v1alpha1.AnnotationPeers])
	}
	var why []string
	if f.invalid != nil {
		why = append(why, fmt.Sprintf("annotation %s is malformed: %v", v1alpha1.AnnotationPeers, f.invalid))
	}
	switch {
	case f.By == Observed:
		why = append(why, fmt.Sprintf("%s was seen to talk to %s", WorkloadOf(f.pod), listed(f.observed)))
	case len(f.observed) > 0:
		why = append(why, fmt.Sprintf("none runs of those that %s was seen to talk to: %s", WorkloadOf(f.pod), listed(f.observed)))
	case f.refused:
		why = append(why, "the annotation names nobody")
	case f.absent:
		why = append(why, "none runs of those that the annotation names: "+plain(f.pod.Annotations[v1alpha1.AnnotationPeers]))
	case f.pod != nil:
		why = append(why, fmt.Sprintf("%s was not seen to talk to any pod", WorkloadOf(f.pod)))
	}
	return strings.Join(why, "; ")
}

// listed names the heaviest with their shares.
func listed(all []edges.Peer) string {
	const most = 3
	var told []string
	for _, p := range all[:min(most, len(all))] {
		told = append(told, fmt.Sprintf("%s (%.0f %%)", p.Workload, 100*p.Share))
	}
	if more := len(all) - most; more > 0 {
		told = append(told, fmt.Sprintf("%d more", more))
	}
	return strings.Join(told, ", ")
}
