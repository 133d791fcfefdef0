package controller

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Reasons of the condition Accepted when it is False.
const (
	ReasonDeleted              = "Deleted"
	ReasonPaused               = "Paused"
	ReasonPodNotFound          = "PodNotFound"
	ReasonPodReplaced          = "PodReplaced"
	ReasonPodTerminating       = "PodTerminating"
	ReasonNotScheduled         = "NotScheduled"
	ReasonNotOptedIn           = "NotOptedIn"
	ReasonWrongRuntimeClass    = "WrongRuntimeClass"
	ReasonAlreadyMigrating     = "AlreadyMigrating"
	ReasonMalformedAnnotation  = "MalformedAnnotation"
	ReasonUnsupportedOwner     = "UnsupportedOwner"
	ReasonOwnerGone            = "OwnerGone"
	ReasonOwnerScaledToZero    = "OwnerScaledToZero"
	ReasonOwnerChanged         = "OwnerChanged"
	ReasonRollingUpdate        = "RollingUpdate"
	ReasonSeveralContainers    = "SeveralContainers"
	ReasonHostNamespace        = "HostNamespace"
	ReasonUnsupportedLifecycle = "UnsupportedLifecycle"
	ReasonUnsupportedDevice    = "UnsupportedDevice"
	ReasonUnsupportedVolume    = "UnsupportedVolume"
	ReasonNotRunning           = "NotRunning"
	ReasonNoAgent              = "NoAgent"
	ReasonNodeNotFound         = "NodeNotFound"
	ReasonNodeNotReady         = "NodeNotReady"
	ReasonSameNode             = "SameNode"
	ReasonUnschedulable        = "Unschedulable"
)

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Admit judges a wish that was not accepted yet. Nil: the pod may be moved.
func Admit(m *v1alpha1.PodMigration, f Facts) *Refusal {
	switch {
	case m.DeletionTimestamp != nil:
		return refuse(ReasonDeleted, "the PodMigration was deleted before the move began")
	case f.Paused:
		return refuse(ReasonPaused, "all new moves are paused: ConfigMap %s says paused", v1alpha1.PauseConfigMap)
	case f.Pod == nil:
		return refuse(ReasonPodNotFound, "pod %s/%s does not exist", m.Namespace, m.Spec.PodName)
	case m.Spec.PodUID != "" && f.Pod.UID != m.Spec.PodUID:
		return refuse(ReasonPodReplaced, "pod %s/%s has UID %s, not %s: it is another pod of the same name",
			m.Namespace, m.Spec.PodName, f.Pod.UID, m.Spec.PodUID)
	}
	for _, judge := range []func(*v1alpha1.PodMigration, Facts) *Refusal{
		admitWill, admitOwner, admitShape, admitVolumes, admitState, admitHolder, admitSource, admitTarget,
	} {
		if r := judge(m, f); r != nil {
			return r
		}
	}
	return nil
}

// admitWill: the pod's owner wants it to be movable, and it is there to be moved.
func admitWill(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	p := f.Pod
	switch {
	case p.DeletionTimestamp != nil:
		return refuse(ReasonPodTerminating, "pod %s/%s is being deleted", p.Namespace, p.Name)
	case p.Spec.NodeName == "":
		return refuse(ReasonNotScheduled, "pod %s/%s is on no node yet", p.Namespace, p.Name)
	case p.Annotations[v1alpha1.AnnotationMigrate] != "true":
		return refuse(ReasonNotOptedIn, "pod %s/%s has not opted in: annotation %s is %q, want \"true\"",
			p.Namespace, p.Name, v1alpha1.AnnotationMigrate, p.Annotations[v1alpha1.AnnotationMigrate])
	case p.Spec.RuntimeClassName == nil || *p.Spec.RuntimeClassName != v1alpha1.RuntimeClassName:
		has := ""
		if p.Spec.RuntimeClassName != nil {
			has = *p.Spec.RuntimeClassName
		}
		return refuse(ReasonWrongRuntimeClass, "pod %s/%s has runtimeClassName %q, want %q",
			p.Namespace, p.Name, has, v1alpha1.RuntimeClassName)
	}
	return nil
}

func admitOwner(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	return judgeOwner(f.Pod, f.ReplicaSet, f.Deployment)
}

// admitShape: what of a pod's spec can be carried over today.
func admitShape(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	p, s := f.Pod, &f.Pod.Spec
	if len(s.Containers) != 1 || len(s.EphemeralContainers) != 0 || sidecar(s) != "" {
		n := len(s.Containers) + len(s.EphemeralContainers)
		if sidecar(s) != "" {
			n++
		}
		return refuse(ReasonSeveralContainers, "pod %s/%s has %d containers that run side by side: only pods of one container can be moved",
			p.Namespace, p.Name, n)
	}
	switch {
	case s.HostNetwork, s.HostPID, s.HostIPC:
		return refuse(ReasonHostNamespace, "pod %s/%s uses its node's network, processes or IPC: they cannot be taken along", p.Namespace, p.Name)
	case s.ShareProcessNamespace != nil && *s.ShareProcessNamespace:
		return refuse(ReasonHostNamespace, "pod %s/%s has shareProcessNamespace: its processes cannot be taken along without the sandbox's", p.Namespace, p.Name)
	case s.Containers[0].Lifecycle != nil && s.Containers[0].Lifecycle.PostStart != nil:
		return refuse(ReasonUnsupportedLifecycle, "container %s has a postStart hook: it would run a second time after the move", s.Containers[0].Name)
	case len(s.ResourceClaims) > 0:
		return refuse(ReasonUnsupportedDevice, "pod %s/%s claims devices (%s): their state cannot be taken along", p.Namespace, p.Name, s.ResourceClaims[0].Name)
	}
	return nil
}

// sidecar names the first init container that keeps running.
func sidecar(s *corev1.PodSpec) string {
	for _, c := range s.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			return c.Name
		}
	}
	return ""
}

// admitVolumes lets those through that kubelet makes anew on the target with the same content.
func admitVolumes(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	for _, v := range f.Pod.Spec.Volumes {
		if v.ConfigMap == nil && v.Secret == nil && v.DownwardAPI == nil && v.Projected == nil {
			return refuse(ReasonUnsupportedVolume, "volume %s is %s: only configMap, secret, downwardAPI and projected volumes can be taken along", v.Name, volumeKind(v))
		}
	}
	return nil
}

func volumeKind(v corev1.Volume) string {
	switch {
	case v.EmptyDir != nil:
		return "an emptyDir"
	case v.HostPath != nil:
		return "a hostPath"
	case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
		return "a persistentVolumeClaim"
	}
	return "of another kind"
}

// admitState: there is a running container to take the memory of.
func admitState(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	p := f.Pod
	if p.Status.Phase != corev1.PodRunning {
		return refuse(ReasonNotRunning, "pod %s/%s is %s, not Running", p.Namespace, p.Name, p.Status.Phase)
	}
	name := p.Spec.Containers[0].Name
	if runningID(p, name) == "" {
		return refuse(ReasonNotRunning, "container %s of pod %s/%s is not running", name, p.Namespace, p.Name)
	}
	return nil
}

// admitHolder: no other move has this pod or its lineage. The claim on the pod excludes
// moves that are judged at the same time; but who may write to the pod can take it off,
// so the records are asked too.
func admitHolder(m *v1alpha1.PodMigration, f Facts) *Refusal {
	p := f.Pod
	if p.Labels[v1alpha1.LabelReplacement] != "" {
		return refuse(ReasonAlreadyMigrating, "pod %s/%s is the replacement in PodMigration %s, which is not finished",
			p.Namespace, p.Name, p.Annotations[v1alpha1.AnnotationMigration])
	}
	if h := f.Holder; h != nil && h.UID != m.UID && !v1alpha1.Finished(h) {
		return refuse(ReasonAlreadyMigrating, "pod %s/%s is being moved by PodMigration %s", p.Namespace, p.Name, h.Name)
	}
	for i := range f.Others {
		if o := &f.Others[i]; o.UID != m.UID && !v1alpha1.Finished(o) && moves(o, p) {
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

func admitSource(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	switch node := f.Pod.Spec.NodeName; {
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
	case to == f.Pod.Spec.NodeName:
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
func runningID(p *corev1.Pod, container string) string {
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == container && s.State.Running != nil {
			return bareID(s.ContainerID)
		}
	}
	return ""
}

// ownerUID is the UID of the controlling owner, empty for a bare pod.
func ownerUID(p *corev1.Pod) types.UID {
	if ref := controllerOf(p); ref != nil {
		return ref.UID
	}
	return ""
}
