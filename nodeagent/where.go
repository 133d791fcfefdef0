package nodeagent

import (
	"context"
	"fmt"
	"maps"
	"net/http"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/location"
)

// serveWhere answers from what this agent has heard, so that it can be asked while the API server
// is away.
func (a *agent) serveWhere(w http.ResponseWriter, r *http.Request) {
	if !a.joined.Load() {
		http.Error(w, a.unready(), http.StatusServiceUnavailable)
		return
	}
	namespace, pod := r.PathValue("namespace"), r.PathValue("pod")
	found, err := a.where(r.Context(), namespace, pod)
	if err == nil && len(found.Places) == 0 {
		http.Error(w, fmt.Sprintf("no pod %q in namespace %q is known on node %s", pod, namespace, a.cfg.Node), http.StatusNotFound)
		return
	}
	a.answer(w, found, err)
}

func (a *agent) where(ctx context.Context, namespace, pod string) (location.Answer, error) {
	own, err := a.cluster.pods(ctx)
	if err != nil {
		return location.Answer{}, fmt.Errorf("list the node's pods: %w", err)
	}
	moves, err := a.cluster.moves(ctx, false)
	if err != nil {
		return location.Answer{}, fmt.Errorf("list the moves: %w", err)
	}
	s := a.gossip.Snapshot()
	// Of its own pods the agent knows more, and sooner, than it tells.
	here := s.Nodes[s.Self]
	here.State.Pods = holding(own)
	s.Nodes = maps.Clone(s.Nodes)
	s.Nodes[s.Self] = here
	return location.Answer{At: s.At, Self: s.Self, Places: location.Find(s, namespace, pod, successors(moves, namespace, pod))}, nil
}

// successors are the UIDs of the pods that a pod of that name or UID became by moves.
func successors(moves []v1alpha1.PodMigration, namespace, pod string) []string {
	var uids []string
	names, seen := map[string]bool{pod: true}, map[string]bool{}
	for grown := true; grown; {
		grown = false
		for i := range moves {
			m := &moves[i]
			s := &m.Status
			from := names[m.Spec.PodName] || names[string(s.Source.PodUID)]
			if m.Namespace != namespace || !from || seen[string(m.UID)+m.Name] || s.Decision != v1alpha1.Commit || s.Returned || s.Lost {
				continue
			}
			seen[string(m.UID)+m.Name], grown = true, true
			uids = append(uids, string(s.Target.PodUID))
			names[string(s.Target.PodUID)] = true
			if s.Target.PodName != "" {
				names[s.Target.PodName] = true
			}
		}
	}
	return uids
}
