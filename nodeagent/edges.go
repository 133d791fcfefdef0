package nodeagent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peers"
	"github.com/drover-project/drover/internal/traffic"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/nodeagent/measure"
)

// talkers is what the node's workloads have carried. All but saving is for the publishing goroutine alone.
type talkers struct {
	ledger     *edges.Ledger
	fed, saved time.Time
	saving     sync.Mutex
	heaviest   []model.Edge // when it was fed
}

// saveEdges is how often what is known is written down, for an agent that is restarted.
const saveEdges = 5 * time.Minute

// talk gives the node's pods that talk and its heaviest edges at now.
func (a *agent) talk(now time.Time, pods []corev1.Pod) ([]model.End, []model.Edge) {
	t := &a.talkers
	if t.ledger == nil {
		t.ledger, t.saved = edges.NewLedger(), now
		t.ledger.Remember(now, a.rememberedEdges())
	}
	if age := now.Sub(t.fed); age < 0 || age >= measure.ConversationInterval {
		talks := a.conversations.Report().Talks
		t.ledger.Feed(now, talks, newOwners(pods, talks, a.gossip.Snapshot(), a.ranged.Load()))
		t.heaviest, t.fed = t.ledger.Edges(now), now
	}
	if age := now.Sub(t.saved); age < 0 || age >= saveEdges {
		t.saved = now
		if len(t.heaviest) > 0 {
			go a.rememberEdges(t.ledger.Memory(now)) // a disk that hangs is not to silence the node
		}
	}
	return t.ledger.Ends(now, endsOf(pods)), t.heaviest
}

func (a *agent) edgesFile() string { return filepath.Join(a.cfg.Layout.State, "edges.json") }

// rememberedEdges reads what an earlier life of the agent has written down.
func (a *agent) rememberedEdges() (kept []edges.Remembered) {
	raw, err := os.ReadFile(a.edgesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &kept)
	}
	if err != nil {
		a.log.Warn("what workloads talked to before the agent was restarted is not known", "error", err)
		return nil
	}
	return kept
}

// rememberEdges does nothing while it is at it still.
func (a *agent) rememberEdges(kept []edges.Remembered) {
	if !a.talkers.saving.TryLock() {
		return
	}
	defer a.talkers.saving.Unlock()
	raw, err := json.Marshal(kept)
	if err == nil {
		err = durable.WriteFile(a.edgesFile(), raw, 0o600)
	}
	if err != nil {
		a.log.Warn("what workloads talk to was not written down for when the agent is restarted", "error", err)
	}
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

// owners says whose the ends of talks are: of the node's own pods by their objects, of others by what their
// nodes say.
type owners struct {
	pods map[model.PodID]model.Workload
	view view.Snapshot
	// anywhere is whose the addresses are that tell of no node.
	anywhere map[netip.Addr]model.Workload
}

// newOwners is for these talks alone. ranged: addresses tell of nodes.
func newOwners(pods []corev1.Pod, talks []traffic.Talk, s view.Snapshot, ranged bool) *owners {
	o := &owners{pods: make(map[model.PodID]model.Workload, len(pods)), view: s}
	for i := range pods {
		o.pods[podID(&pods[i])] = peers.WorkloadOf(&pods[i])
	}
	if !ranged { // else they are a Service's, or nobody's in the cluster
		o.anywhere = anywhere(s, talks)
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
	if e.Node == "" {
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

// anywhere is whose those addresses are at the far ends of talks that are on no node that is known; nobody's
// if two workloads are said to have one. What is gone with its node has none.
func anywhere(s view.Snapshot, talks []traffic.Talk) map[netip.Addr]model.Workload {
	asked := map[netip.Addr]struct{}{}
	for _, t := range talks {
		if t.Remote.Node != "" {
			continue
		}
		if addr, err := netip.ParseAddr(t.Remote.Address); err == nil {
			asked[addr] = struct{}{}
		}
	}
	all := make(map[netip.Addr]model.Workload, len(asked))
	if len(asked) == 0 {
		return all
	}
	for _, n := range s.Nodes {
		if n.Phase == model.Dead || n.Phase == model.Left {
			continue
		}
		for _, end := range n.State.Ends {
			for _, addr := range end.Addresses {
				if _, is := asked[addr]; !is {
					continue
				}
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
