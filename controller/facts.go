package controller

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// Refusal is why a move is not begun, or is aborted: a CamelCase word and a sentence.
type Refusal struct {
	Reason  string
	Message string
}

// Facts is what was read for one judgement. What does not exist is nil.
type Facts struct {
	// Now by this program's clock.
	Now time.Time
	// Paused: the switch for the whole cluster is on.
	Paused bool
	// Pod of the spec's name, whatever its UID.
	Pod *corev1.Pod
	// ReplicaSet and Deployment are the objects of the names that the pod's chain of
	// controlling owners gives, whatever their UIDs.
	ReplicaSet *appsv1.ReplicaSet
	Deployment *appsv1.Deployment
	// Claims are those of the pod's volumes.
	Claims movable.Claims
	// StatefulSet of the name that the pod's controlling owner gives, whatever its UID.
	StatefulSet *appsv1.StatefulSet
	// Job of the name that the pod's controlling owner gives, whatever its UID.
	Job *batchv1.Job
	// Budgets are the PodDisruptionBudgets that select the pod.
	Budgets []policyv1.PodDisruptionBudget
	// Takers select pods by labels and count them for something, Policies by what they may send and
	// receive. Read only for pods that ask to keep their connections.
	Takers, Policies []adopter
	// Foreign names a policy of a kind that is not known here; empty: none was found. Untold is why one
	// may be there nevertheless: the API server does not tell. As above.
	Foreign, Untold string
	// CarryEarlier: addresses that the pod has by earlier moves may go along (Config.CarryEarlierAddresses).
	CarryEarlier bool
	// UnderWay: a later move is committed that takes the old address of this one along, and has not come to its
	// end. Set by whereNow alone.
	UnderWay bool
	// SourceNode is the pod's node.
	SourceNode *corev1.Node
	// TargetNode is the spec's before the replacement has a node, then the replacement's.
	TargetNode *corev1.Node
	// AgentOnSource, AgentOnTarget: a ready agent runs there.
	AgentOnSource, AgentOnTarget bool
	// Holder is the PodMigration that the pod's annotation drover.dev/moving names.
	Holder *v1alpha1.PodMigration
	// Others are the PodMigrations of the namespace, this one and finished ones among them.
	Others []v1alpha1.PodMigration
	// Replacement is the pod of the name that this move's replacement has.
	Replacement *corev1.Pod
}

// source is the pod that moves: nil when it is gone, or its name is another pod's by now.
func (f Facts) source(m *v1alpha1.PodMigration) *corev1.Pod {
	if f.Pod == nil || f.Pod.UID != m.Status.Source.PodUID {
		return nil
	}
	return f.Pod
}

// replacement is this move's own: nil when it is gone or the name is another pod's.
func (f Facts) replacement(m *v1alpha1.PodMigration) *corev1.Pod {
	p := f.Replacement
	switch {
	case p == nil:
		return nil
	case m.Status.Target.PodUID != "":
		if p.UID != m.Status.Target.PodUID {
			return nil
		}
		return p
	case p.Labels[v1alpha1.LabelReplacement] != string(m.UID):
		return nil
	}
	return p
}

func podReady(p *corev1.Pod) bool { return podCondition(p, corev1.PodReady) }

// podCondition tells whether the condition is True.
func podCondition(p *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
