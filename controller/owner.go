package controller

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// whyNot explains owners that are not supported yet.
var whyNot = map[string]string{
	"DaemonSet":             "it belongs to its node",
	"Node":                  "it is a static pod and belongs to its node",
	"ReplicationController": "use a Deployment",
}

func controllerOf(o metav1.Object) *metav1.OwnerReference { return metav1.GetControllerOf(o) }

// isKind tells whether the reference is to that kind of the group apps, whatever version.
func isKind(ref *metav1.OwnerReference, kind string) bool { return isOf(ref, appsv1.GroupName, kind) }

func isOf(ref *metav1.OwnerReference, group, kind string) bool {
	return ref.Kind == kind && strings.HasPrefix(ref.APIVersion, group+"/")
}

// judgeOwner tells whether the pod's owner can be given another pod in its place.
func judgeOwner(p *corev1.Pod, f Facts) *Refusal {
	if _, static := p.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return unsupported(p, "Node", p.Spec.NodeName)
	}
	ref := controllerOf(p)
	if ref == nil {
		return nil
	}
	switch {
	case ofJob(p):
		return judgeJob(p, f.Job)
	case ofStatefulSet(ref):
		return judgeStatefulSet(p.Name, p.Labels[appsv1.ControllerRevisionHashLabelKey], ref, f.StatefulSet)
	case isKind(ref, "ReplicaSet"):
		return judgeSet(p, ref, f.ReplicaSet, f.Deployment)
	}
	return unsupported(p, ref.Kind, ref.Name)
}

// judgeSet: rs and dep are the objects that the chain of controllers names; nil: they do
// not exist.
func judgeSet(p *corev1.Pod, ref *metav1.OwnerReference, rs *appsv1.ReplicaSet, dep *appsv1.Deployment) *Refusal {
	switch {
	case rs == nil, rs.UID != ref.UID:
		return refuse(ReasonOwnerGone, "ReplicaSet %s, the owner of pod %s, does not exist any more", ref.Name, p.Name)
	case rs.DeletionTimestamp != nil:
		return refuse(ReasonOwnerGone, "ReplicaSet %s, the owner of pod %s, is being deleted", ref.Name, p.Name)
	case rs.Spec.Replicas != nil && *rs.Spec.Replicas == 0:
		return refuse(ReasonOwnerScaledToZero, "ReplicaSet %s, the owner of pod %s, is scaled to 0", ref.Name, p.Name)
	}
	up := controllerOf(rs)
	if up == nil {
		return nil
	}
	if !isKind(up, "Deployment") {
		return unsupported(p, up.Kind, up.Name)
	}
	return judgeDeployment(p, rs, up, dep)
}

// judgeDeployment: the set must be the current one and the only one with pods, for in a
// rolling update the replacement would go with its old set.
func judgeDeployment(p *corev1.Pod, rs *appsv1.ReplicaSet, ref *metav1.OwnerReference, dep *appsv1.Deployment) *Refusal {
	switch {
	case dep == nil, dep.UID != ref.UID:
		return refuse(ReasonOwnerGone, "Deployment %s, the owner of pod %s, does not exist any more", ref.Name, p.Name)
	case dep.DeletionTimestamp != nil:
		return refuse(ReasonOwnerGone, "Deployment %s, the owner of pod %s, is being deleted", ref.Name, p.Name)
	case !sameTemplate(&rs.Spec.Template, &dep.Spec.Template):
		return refuse(ReasonRollingUpdate, "pod %s is of ReplicaSet %s, which is not the current one of Deployment %s", p.Name, rs.Name, dep.Name)
	case dep.Status.Replicas != dep.Status.UpdatedReplicas:
		return refuse(ReasonRollingUpdate, "Deployment %s is in a rolling update: %d of %d pods are of the current set",
			dep.Name, dep.Status.UpdatedReplicas, dep.Status.Replicas)
	}
	return nil
}

// sameTemplate compares as the Deployment controller does: without the hash label.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	delete(a.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(b.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(a, b)
}

func unsupported(p *corev1.Pod, kind, name string) *Refusal {
	why, known := whyNot[kind]
	if !known {
		why = "nothing is known of how it takes another pod for its own"
	}
	return refuse(ReasonUnsupportedOwner, "pod %s belongs to %s %s: only pods of Deployments, ReplicaSets, StatefulSets and Jobs and pods without owner can be moved (%s)",
		p.Name, kind, name, why)
}
