package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// A hold is an entry of the ConfigMap drover-holds. While it is there the chart's
// ValidatingAdmissionPolicy refuses the creation of certain pods by everybody but this
// controller: so an owner that is a pod short for a moment does not make one.

// nameHold holds one pod name. A namespace has no dots, so the key is nobody else's.
func nameHold(namespace, name string) string { return namespace + "." + name }

// ownerHold holds all pods of one owner.
func ownerHold(uid types.UID) string { return string(uid) }

// heldMark is part of the policy's message; the chart has it, too.
const heldMark = "held by drover"

// holder is the value of an entry.
func holder(m *v1alpha1.PodMigration) string { return m.Namespace + "/" + m.Name + "/" + string(m.UID) }

// hold makes the entry and tells whether an API server refuses probe by now. probe is
// never created. no: somebody else refuses it, before the hold is asked. Of several API servers only the one that answers is asked: the others
// take as long to hear of the entry, and what slips through is seen to by the caller.
func (r *Reconciler) hold(ctx context.Context, m *v1alpha1.PodMigration, key string, probe *corev1.Pod) (inForce bool, no, _ error) {
	var holds corev1.ConfigMap
	found, err := r.get(ctx, r.Config.Namespace, v1alpha1.HoldsConfigMap, &holds)
	if err != nil {
		return false, nil, err
	}
	if !found {
		return false, nil, fmt.Errorf("hold %s: there is no ConfigMap %s/%s: install the chart's again", key, r.Config.Namespace, v1alpha1.HoldsConfigMap)
	}
	if holds.Data[key] != holder(m) {
		if holds.Data == nil {
			holds.Data = map[string]string{}
		}
		holds.Data[key] = holder(m)
		if err := r.Writer.Update(ctx, &holds); err != nil {
			return false, nil, fmt.Errorf("hold %s: %w", key, err)
		}
	}
	err = r.Writer.Create(ctx, probe, client.DryRunAll)
	switch {
	case err != nil && strings.Contains(err.Error(), heldMark):
		return true, nil, nil
	case err == nil, apierrors.IsAlreadyExists(err):
		return false, nil, nil
	case isRefusal(err):
		return false, err, nil
	}
	return false, nil, fmt.Errorf("ask the API server whether %s is on hold, by a dry run of a creation: %w", key, err)
}

// onHold keeps the owner, if there is one, from making a pod while it is one short. held: go on.
// Should the hold not come into force the hand-over goes on without it, late: the worst is a pod
// that the owner starts and takes away again.
func (r *Reconciler) onHold(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p *corev1.Pod, hand HandOver) (held bool, _ ctrl.Result, _ error) {
	ref := ownerIn(hand)
	if ref == nil {
		return true, ctrl.Result{}, nil
	}
	probe := nameProbe(p, p.Name)
	probe.OwnerReferences = hand.Owners
	held, no, err := r.hold(ctx, m, ownerHold(ref.UID), probe)
	switch late := sinceWhole(m, f.Now) > r.Config.EndDeadline; {
	case late:
		return true, ctrl.Result{}, nil
	case err != nil:
		return false, ctrl.Result{}, err
	case no != nil:
		result, err := r.await(ctx, m, f, refuse("WaitingForHold",
			"the pod runs on node %s as %s; whether %s %s is kept from making another meanwhile is not known, for the API server refuses a pod of it (asked by a dry run); the hand-over goes on without that %s after the commit. It says: %v",
			m.Status.Target.Node, p.Name, ref.Kind, ref.Name, r.Config.EndDeadline, no))
		return false, result, err
	}
	return held, ctrl.Result{RequeueAfter: again}, nil
}

// isRefusal tells the answers of an API server that only people can change: admission says
// no, or cannot be asked, as a webhook that fails or does not take dry runs.
func isRefusal(err error) bool {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		return false
	}
	switch code := s.Status().Code; code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	default:
		return code >= http.StatusBadRequest && code <= http.StatusInternalServerError
	}
}

// unhold takes away the entries of this move but the one to keep, if any.
func (r *Reconciler) unhold(ctx context.Context, m *v1alpha1.PodMigration, keep string) error {
	var holds corev1.ConfigMap
	found, err := r.get(ctx, r.Config.Namespace, v1alpha1.HoldsConfigMap, &holds)
	if err != nil || !found {
		return err
	}
	changed := false
	for key, by := range holds.Data {
		if by == holder(m) && key != keep {
			delete(holds.Data, key)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	if err := r.Writer.Update(ctx, &holds); err != nil {
		return fmt.Errorf("end the holds of PodMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}
