package nodeagent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/internal/lifecycle"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// ownNode is the agent's own Node, as it was last where it has been deleted.
func (a *agent) ownNode(ctx context.Context) (node *corev1.Node, deleted bool, err error) {
	node, err = a.cluster.self(ctx)
	if last := a.lastNode.Load(); apierrors.IsNotFound(err) && last != nil {
		return last, true, nil
	}
	if err == nil {
		a.lastNode.Store(node)
	}
	return node, false, err
}

// phase is what the node says of itself. That its agent ends says nothing: agents are replaced
// without their node going anywhere.
func (a *agent) phase(n *corev1.Node, deleted bool) model.Phase {
	switch {
	case deleted || leaving(n):
		return model.Leaving
	case a.unable.Load() == nil: // the load is measured before a state is published
		return model.Joining
	}
	return model.Normal
}

// leavingTaints are those by which node autoscalers say that they are about to remove a node.
var leavingTaints = []string{"ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"}

// leaving tells whether the Node is to go: it is closed to new pods, or being deleted.
func leaving(n *corev1.Node) bool {
	return n.DeletionTimestamp != nil || n.Spec.Unschedulable ||
		slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return slices.Contains(leavingTaints, t.Key) })
}

// unproven says why a node without a Node object cannot be held for gone; empty: it can.
func unproven(s view.Snapshot, settled bool, id model.NodeID) string {
	n, known := s.Nodes[id]
	switch {
	case known && n.Phase == model.Dead:
		return ""
	case known && n.Alive:
		return "its agent lives"
	case known:
		return fmt.Sprintf("it is held for %s: %s", n.Phase, n.Why)
	case !settled:
		return "this agent has not been among the others for long enough to know whether it lives; alone it never will be: see kubectl drover resolve"
	}
	return ""
}

// tellPhases records an Event on a Node when what it is held for changes, until ctx ends.
func (a *agent) tellPhases(ctx context.Context) error {
	changes, cancel := a.gossip.Subscribe()
	defer cancel()
	told := map[model.NodeID]model.Phase{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
		}
		for _, e := range phaseEvents(told, a.gossip.Snapshot()) {
			a.events.Event(a.nodeReference(ctx, e.node), e.kind, e.reason, e.message)
		}
	}
}

type phaseEvent struct {
	node                  model.NodeID
	kind, reason, message string
}

// phaseEvents are those that the picture's owner has to tell after what it knew, which is brought
// up to date: of its own node, and of those that cannot for themselves if it is the first, by
// name, that can. Pictures differ for moments, so now and then two tell the same.
func phaseEvents(told map[model.NodeID]model.Phase, s view.Snapshot) []phaseEvent {
	var all []phaseEvent
	for _, id := range s.IDs() {
		n, before := s.Nodes[id], told[id]
		if n.Phase == model.Suspected && s.At.Sub(n.Missing) < lifecycle.Quiet {
			continue // an agent that is being replaced
		}
		told[id] = n.Phase
		mine := id == s.Self || before != "" && s.Self == speaker(s, id)
		if e, is := phaseEventOf(n, before, id == s.Self); is && mine {
			e.node = id
			all = append(all, e)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(told)) {
		if _, known := s.Nodes[id]; known {
			continue
		}
		if s.Self == speaker(s, id) {
			all = append(all, phaseEvent{id, corev1.EventTypeNormal, "DroverNodeLeft", "forgotten: it was " + string(told[id]) + ", and answers nobody"})
		}
		delete(told, id)
	}
	return all
}

// phaseEventOf says what is worth telling of a node that was held for something else before.
func phaseEventOf(n view.Node, before model.Phase, self bool) (phaseEvent, bool) {
	switch {
	case n.Phase == before:
	case n.Phase == model.Suspected:
		return phaseEvent{"", corev1.EventTypeWarning, "DroverNodeSuspected", "drover-agent is not heard: " + n.Why}, true
	case n.Phase == model.Dead:
		return phaseEvent{"", corev1.EventTypeWarning, "DroverNodeDead", "held for dead: " + n.Why}, true
	case before == model.Suspected || before == model.Dead:
		return phaseEvent{"", corev1.EventTypeNormal, "DroverNodeBack", "heard again; it was held for " + string(before)}, true
	case self && n.Phase == model.Leaving:
		return phaseEvent{"", corev1.EventTypeNormal, "DroverNodeLeaving", "no pod is moved to this node any more: it is closed to new pods, or to be deleted"}, true
	case self && n.Phase == model.Normal:
		return phaseEvent{"", corev1.EventTypeNormal, "DroverNodeNormal", "its load and what it can do are known to the others"}, true
	}
	return phaseEvent{}, false
}

// speaker is who tells what becomes of a node.
func speaker(s view.Snapshot, of model.NodeID) model.NodeID {
	for _, id := range s.IDs() {
		if id != of && s.Nodes[id].Alive {
			return id
		}
	}
	return ""
}

// nodeReference is the Node object, or one that stands for it once it is gone.
func (a *agent) nodeReference(ctx context.Context, id model.NodeID) runtime.Object {
	nodes, err := a.cluster.nodes(ctx)
	if err == nil {
		for i := range nodes {
			if nodes[i].Name == string(id) {
				return &nodes[i]
			}
		}
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: string(id), UID: types.UID(id)}}
}
