package controller

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// Reasons of the condition Accepted when it is False.
const (
	ReasonDeleted              = "Deleted"
	ReasonPaused               = "Paused"
	ReasonPodNotFound          = "PodNotFound"
	ReasonPodReplaced          = "PodReplaced"
	ReasonPodTerminating       = movable.ReasonPodTerminating
	ReasonNotScheduled         = movable.ReasonNotScheduled
	ReasonNotOptedIn           = movable.ReasonNotOptedIn
	ReasonHoldsAddress         = movable.ReasonHoldsAddress
	ReasonWrongRuntimeClass    = movable.ReasonWrongRuntimeClass
	ReasonAlreadyMigrating     = "AlreadyMigrating"
	ReasonNotSecondStep        = "NotSecondStep"
	ReasonMalformedAnnotation  = "MalformedAnnotation"
	ReasonUnsupportedOwner     = "UnsupportedOwner"
	ReasonOwnerGone            = "OwnerGone"
	ReasonOwnerScaledToZero    = "OwnerScaledToZero"
	ReasonOwnerScaledDown      = "OwnerScaledDown"
	ReasonOwnerSuspended       = "OwnerSuspended"
	ReasonOwnerFinished        = "OwnerFinished"
	ReasonOwnerChanged         = "OwnerChanged"
	ReasonRollingUpdate        = "RollingUpdate"
	ReasonHostNamespace        = movable.ReasonHostNamespace
	ReasonUnsupportedLifecycle = movable.ReasonUnsupportedLifecycle
	ReasonUnsupportedDevice    = movable.ReasonUnsupportedDevice
	ReasonUnsupportedVolume    = movable.ReasonUnsupportedVolume
	ReasonNotRunning           = movable.ReasonNotRunning
	ReasonNoAgent              = "NoAgent"
	ReasonNodeNotFound         = "NodeNotFound"
	ReasonNodeNotReady         = "NodeNotReady"
	ReasonSameNode             = "SameNode"
	ReasonUnschedulable        = "Unschedulable"
	ReasonTooManyContainers    = "TooManyContainers"
)

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Admit judges a wish that was not accepted yet. Nil: the pod may be moved. Else the reason
// is that of the first finding, and the message says all.
func Admit(m *v1alpha1.PodMigration, f Facts) *Refusal {
	all := Judge(m, f)
	if len(all) == 0 {
		return nil
	}
	sum := movable.Sum(all)
	return &Refusal{Reason: sum.Reason, Message: sum.Message}
}

// Judge gives all that speaks against a wish that was not accepted yet.
func Judge(m *v1alpha1.PodMigration, f Facts) []movable.Finding {
	switch {
	case m.DeletionTimestamp != nil:
		return found(refuse(ReasonDeleted, "the PodMigration was deleted before the move began"))
	case f.Pod == nil:
		return found(refuse(ReasonPodNotFound, "pod %s/%s does not exist", m.Namespace, m.Spec.PodName))
	case m.Spec.PodUID != "" && f.Pod.UID != m.Spec.PodUID:
		return found(refuse(ReasonPodReplaced, "pod %s/%s has UID %s, not %s: it is another pod of the same name",
			m.Namespace, m.Spec.PodName, f.Pod.UID, m.Spec.PodUID))
	}
	var all []movable.Finding
	if f.Paused && !returnsName(m) { // what has begun comes to its end
		all = found(refuse(ReasonPaused, "all new moves are paused: ConfigMap %s says paused", v1alpha1.PauseConfigMap))
	}
	all = append(all, movable.Pod(f.Pod, f.Claims)...)
	for _, judge := range []func(*v1alpha1.PodMigration, Facts) *Refusal{admitOrder, admitOwner, admitBudget, admitRestart, admitKeep, admitHolder, admitContainers, admitSource, admitTarget} {
		all = append(all, found(judge(m, f))...)
	}
	return all
}

func admitOwner(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	return judgeOwner(f.Pod, f)
}

// admitHolder: no other move has this pod or its lineage. The claim on the pod excludes
// moves that are judged at the same time; but who may write to the pod can take it off,
// so the records are asked too.
func admitHolder(m *v1alpha1.PodMigration, f Facts) *Refusal {
	p := f.Pod
	parent := parentOf(m, f.Others, p)
	if returnsName(m) && parent == nil {
		return refuse(ReasonNotSecondStep, "keepName is %q, but pod %s/%s is not what another PodMigration has moved and owns this one for", m.Spec.KeepName, p.Namespace, p.Name)
	}
	if p.Labels[v1alpha1.LabelReplacement] != "" && parent == nil {
		return refuse(ReasonAlreadyMigrating, "pod %s/%s is the replacement in PodMigration %s, which is not finished",
			p.Namespace, p.Name, p.Annotations[v1alpha1.AnnotationMigration])
	}
	if h := f.Holder; h != nil && h.UID != m.UID && !v1alpha1.Finished(h) {
		return refuse(ReasonAlreadyMigrating, "pod %s/%s is being moved by PodMigration %s", p.Namespace, p.Name, h.Name)
	}
	for i := range f.Others {
		if o := &f.Others[i]; o.UID != m.UID && (parent == nil || o.UID != parent.UID) && !v1alpha1.Finished(o) && moves(o, p) {
			return refuse(ReasonAlreadyMigrating, "pod %s/%s is part of PodMigration %s, which is not finished", p.Namespace, p.Name, o.Name)
		}
	}
	if _, err := EpochOf(p); err != nil {
		return refuse(ReasonMalformedAnnotation, "%v", err)
	}
	return nil
}

// moves tells whether the pod is the source or the replacement of an accepted move. A wish
// for the same pod that was not judged yet moves nothing: whichever is judged first wins.
func moves(o *v1alpha1.PodMigration, p *corev1.Pod) bool {
	s, t := &o.Status.Source, &o.Status.Target
	return s.PodUID == p.UID || t.PodUID == p.UID || t.PodUID == "" && t.PodName == p.Name
}

func admitContainers(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	if n := len(movable.Containers(&f.Pod.Spec)); n > v1alpha1.MaxContainers {
		return refuse(ReasonTooManyContainers, "pod %s/%s has %d containers, and at most %d can move", f.Pod.Namespace, f.Pod.Name, n, v1alpha1.MaxContainers)
	}
	return nil
}

func admitSource(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	switch node := f.Pod.Spec.NodeName; {
	case node == "":
		return nil // said already
	case f.SourceNode == nil:
		return refuse(ReasonNodeNotFound, "node %s, on which the pod is, does not exist", node)
	case !nodeReady(f.SourceNode):
		return refuse(ReasonNodeNotReady, "node %s, on which the pod is, is not ready", node)
	case !f.AgentOnSource:
		return refuse(ReasonNoAgent, "no ready agent on node %s, on which the pod is", node)
	}
	return nil
}

func admitTarget(m *v1alpha1.PodMigration, f Facts) *Refusal {
	to := m.Spec.TargetNode
	switch {
	case to == "":
		return nil
	case f.TargetNode == nil:
		return refuse(ReasonNodeNotFound, "target node %s does not exist", to)
	case to == f.Pod.Spec.NodeName && !returnsName(m):
		return refuse(ReasonSameNode, "pod %s/%s is on node %s already", f.Pod.Namespace, f.Pod.Name, to)
	case f.TargetNode.Spec.Unschedulable:
		return refuse(ReasonUnschedulable, "target node %s is cordoned", to)
	case !nodeReady(f.TargetNode):
		return refuse(ReasonNodeNotReady, "target node %s is not ready", to)
	case !f.AgentOnTarget:
		return refuse(ReasonNoAgent, "no ready agent on target node %s", to)
	}
	return nil
}

// runningID is the runtime's ID of the container, without scheme; empty when it does not run.
func runningID(p *corev1.Pod, container string) string { return movable.RunningID(p, container) }

// ownerUID is the UID of the controlling owner, empty for a bare pod.
func ownerUID(p *corev1.Pod) types.UID {
	if ref := controllerOf(p); ref != nil {
		return ref.UID
	}
	return ""
}
