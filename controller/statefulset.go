package controller

import (
	"context"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/drover-project/drover/api/v1alpha1"
)

// ofStatefulSet tells whether the reference is to a StatefulSet.
func ofStatefulSet(ref *metav1.OwnerReference) bool { return ref != nil && isKind(ref, "StatefulSet") }

func (r *Reconciler) statefulSet(ctx context.Context, namespace, name string) (*appsv1.StatefulSet, error) {
	var set appsv1.StatefulSet
	found, err := r.get(ctx, namespace, name, &set)
	if err != nil || !found {
		return nil, err
	}
	return &set, nil
}

// judgeStatefulSet tells whether the set wants the pod of this name and revision.
func judgeStatefulSet(name, revision string, ref *metav1.OwnerReference, set *appsv1.StatefulSet) *Refusal {
	switch {
	case set == nil, set.UID != ref.UID:
		return refuse(ReasonOwnerGone, "StatefulSet %s, the owner of pod %s, does not exist any more", ref.Name, name)
	case set.DeletionTimestamp != nil:
		return refuse(ReasonOwnerGone, "StatefulSet %s, the owner of pod %s, is being deleted", set.Name, name)
	}
	ordinal, ok := ordinalOf(set, name)
	first, replicas := 0, 1
	if set.Spec.Ordinals != nil {
		first = int(set.Spec.Ordinals.Start)
	}
	if set.Spec.Replicas != nil {
		replicas = int(*set.Spec.Replicas)
	}
	switch {
	case !ok:
		return refuse(ReasonUnsupportedOwner, "pod %s is not named as StatefulSet %s names its pods", name, set.Name)
	case ordinal < first || ordinal >= first+replicas:
		return refuse(ReasonOwnerScaledDown, "StatefulSet %s wants %d pods from ordinal %d on: pod %s is not one of them", set.Name, replicas, first, name)
	case replaces(set, ordinal) && revision != set.Status.UpdateRevision:
		return refuse(ReasonRollingUpdate, "StatefulSet %s is about to replace pod %s: it is of revision %s, the new one is %s",
			set.Name, name, revision, set.Status.UpdateRevision)
	}
	return nil
}

// ordinalOf is the pod's number in the set.
func ordinalOf(set *appsv1.StatefulSet, name string) (int, bool) {
	number, ok := strings.CutPrefix(name, set.Name+"-")
	n, err := strconv.Atoi(number)
	return n, ok && err == nil && n >= 0
}

// replaces tells whether the set by itself replaces pods of that ordinal that are not of
// the newest revision.
func replaces(set *appsv1.StatefulSet, ordinal int) bool {
	u := set.Spec.UpdateStrategy
	if u.Type == appsv1.OnDeleteStatefulSetStrategyType || set.Status.UpdateRevision == "" {
		return false
	}
	return u.RollingUpdate == nil || u.RollingUpdate.Partition == nil || ordinal >= int(*u.RollingUpdate.Partition)
}

// adoptBySet gives a StatefulSet the pod that has its name again. The set takes no other in
// its place and deletes it itself if it wants it no more, so nothing is waited for.
func (r *Reconciler) adoptBySet(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p *corev1.Pod, hand HandOver) (done bool, _ ctrl.Result, _ error) {
	ref := ownerIn(hand)
	set, err := r.statefulSet(ctx, m.Namespace, ref.Name)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	if gone := set == nil || set.UID != ref.UID || set.DeletionTimestamp != nil; gone && !orphans(set, ref) {
		result, err := r.discard(ctx, m, f, p, setGone(m, ref))
		return false, result, err
	} else if gone {
		hand.Owners = nil
	}
	if err := r.give(ctx, p, hand); err != nil {
		return false, ctrl.Result{}, err
	}
	return true, ctrl.Result{}, nil
}

// orphans tells that the set is being deleted without its pods.
func orphans(set *appsv1.StatefulSet, ref *metav1.OwnerReference) bool {
	return set != nil && set.UID == ref.UID && slices.Contains(set.Finalizers, metav1.FinalizerOrphanDependents)
}

func setGone(m *v1alpha1.PodMigration, ref *metav1.OwnerReference) *Refusal {
	return refuse(ReasonOwnerGone, "moved to node %s, but StatefulSet %s, the owner of pod %s, was deleted meanwhile: the pod was deleted with it",
		m.Status.Target.Node, ref.Name, m.Status.Source.PodName)
}
