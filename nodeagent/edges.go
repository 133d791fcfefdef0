package nodeagent

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peers"
	"github.com/drover-project/drover/internal/traffic"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/nodeagent/measure"
)

// talkers is what the node's workloads have carried. It is for the publishing goroutine alone.
type talkers struct {
	ledger   *edges.Ledger
	fed      time.Time
	heaviest []model.Edge // by then
}

// talk gives the node's pods that talk and its heaviest edges at now.
func (a *agent) talk(now time.Time, pods []corev1.Pod) ([]model.End, []model.Edge) {
	t := &a.talkers
	if t.ledger == nil {
		t.ledger = edges.NewLedger()
	}
	if age := now.Sub(t.fed); age < 0 || age >= measure.ConversationInterval {
		t.ledger.Feed(now, a.conversations.Report().Talks, newOwners(pods, a.gossip.Snapshot(), a.ranged.Load()))
		t.heaviest, t.fed = t.ledger.Edges(now), now
	}
	return t.ledger.Ends(now, endsOf(pods)), t.heaviest
}

// endsOf are the pods that run, are not about to end, and have addresses of their own.
func endsOf(pods []corev1.Pod) map[model.PodID]model.End {
	all := make(map[model.PodID]model.End, len(pods))
	for i := range pods {
		p := &pods[i]
		if p.Spec.HostNetwork || !holds(p) || p.DeletionTimestamp != nil {
			continue
		}
		e := model.End{Workload: peers.WorkloadOf(p)}
		for _, ip := range p.Status.PodIPs {
			if addr, err := netip.ParseAddr(ip.IP); err == nil {
				e.Addresses = append(e.Addresses, addr.Unmap())
			}
		}
		if len(e.Addresses) > 0 {
			all[podID(p)] = e
		}
	}
	return all
}

// owners says whose an end of a talk is: of the node's own pods by their objects, of others by what their
// nodes say.
type owners struct {
	pods map[model.PodID]model.Workload
	view view.Snapshot
	// ranged: addresses tell of nodes. Else anywhere is who has which, made when it is asked for.
	ranged   bool
	anywhere map[netip.Addr]model.Workload
}

func newOwners(pods []corev1.Pod, s view.Snapshot, ranged bool) *owners {
	o := &owners{pods: make(map[model.PodID]model.Workload, len(pods)), view: s, ranged: ranged}
	for i := range pods {
		o.pods[podID(&pods[i])] = peers.WorkloadOf(&pods[i])
	}
	return o
}

// Local implements edges.Who.
func (o *owners) Local(p model.PodID) (model.Workload, bool) {
	w, ok := o.pods[p]
	return w, ok
}

// Remote implements edges.Who. A node speaks for the addresses of its own range alone. Where addresses tell
// nothing of nodes, one that two workloads are said to have is nobody's.
func (o *owners) Remote(e traffic.Endpoint) (model.Workload, bool) {
	if e.Pod != (model.PodID{}) {
		return o.Local(e.Pod)
	}
	addr, err := netip.ParseAddr(e.Address)
	if err != nil {
		return "", false
	}
	if e.Node == "" && o.ranged {
		return "", false // a Service's, or nobody's in the cluster
	}
	if e.Node == "" {
		if o.anywhere == nil {
			o.anywhere = anywhere(o.view)
		}
		w := o.anywhere[addr]
		return w, w != ""
	}
	for _, end := range o.view.Nodes[e.Node].State.Ends {
		if slices.Contains(end.Addresses, addr) {
			return end.Workload, true
		}
	}
	return "", false
}

// anywhere is whose every address is; nobody's if two workloads are said to have it.
func anywhere(s view.Snapshot) map[netip.Addr]model.Workload {
	all := map[netip.Addr]model.Workload{}
	for _, n := range s.Nodes {
		for _, end := range n.State.Ends {
			for _, addr := range end.Addresses {
				if w, told := all[addr]; told && w != end.Workload {
					all[addr] = ""
				} else {
					all[addr] = end.Workload
				}
			}
		}
	}
	return all
}
