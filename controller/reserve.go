package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/drover-project/drover/api/v1alpha1"
)

// reserve is all that happens before the decision: the replacement is made and its
// identity and node are written down for the agents; meanwhile anything that speaks
// against the move aborts it.
func (r *Reconciler) reserve(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	if why := AbortReason(m, f, r.Config); why != nil {
		return r.abort(ctx, m, f, why)
	}
	own := f.replacement(m)
	if own == nil {
		if why := budgetSpent(f); why != nil {
			return r.awaitBudget(ctx, m, f, why)
		}
		return r.makeReplacement(ctx, m, f)
	}
	if m.Status.Target.PodUID == "" {
		if why, err := r.inspect(m, f, own); err != nil {
			return ctrl.Result{}, err
		} else if why != nil {
			return r.abort(ctx, m, f, why)
		}
		m.Status.Target.PodUID = own.UID
		if err := r.save(ctx, m); err != nil {
			return ctrl.Result{}, err
		}
	}
	if own.Spec.NodeName == "" {
		return r.wait()
	}
	if why, err := r.budgeted(ctx, m, f); err != nil {
		return ctrl.Result{}, err
	} else if why != nil {
		return r.awaitBudget(ctx, m, f, why)
	}
	return r.name(ctx, m, f, own)
}

// name writes down on which node the replacement is. Until then no agent knows that its
// node is the target, so no create counts as waiting and nothing is frozen.
func (r *Reconciler) name(ctx context.Context, m *v1alpha1.PodMigration, f Facts, own *corev1.Pod) (ctrl.Result, error) {
	if m.Status.Target.Node != "" {
		return r.wait()
	}
	m.Status.Target.Node = own.Spec.NodeName
	m.Status.Phase = v1alpha1.PhasePreparing
	if b := m.Status.Budget; b != nil {
		setCondition(m, f.Now, v1alpha1.ConditionBudgetReserved, true, "Reserved",
			fmt.Sprintf("PodDisruptionBudget %s counts pod %s as disrupted until the move has ended", b.Name, m.Status.Source.PodName))
	}
	setCondition(m, f.Now, v1alpha1.ConditionReserved, true, "Bound", fmt.Sprintf("replacement %s is bound to node %s", own.Name, own.Spec.NodeName))
	note(m, f.Now, "Reserved", own.Spec.NodeName)
	if err := r.save(ctx, m); err != nil {
		return ctrl.Result{}, err
	}
	return r.wait()
}

// makeReplacement creates it under its one name. That it exists already is found out by
// looking again: it is either this move's, or speaks against the move.
func (r *Reconciler) makeReplacement(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	p, _, err := asked(m, f)
	if err != nil {
		return ctrl.Result{}, err
	}
	if why, err := r.label(ctx, m, f, p); err != nil {
		return ctrl.Result{}, err
	} else if why != nil {
		return r.abort(ctx, m, f, why)
	}
	err = r.Writer.Create(ctx, p)
	switch {
	case apierrors.IsAlreadyExists(err), err == nil:
		return ctrl.Result{RequeueAfter: again}, nil
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return r.abort(ctx, m, f, refused(err))
	}
	return ctrl.Result{}, fmt.Errorf("create replacement %s/%s: %w", p.Namespace, p.Name, err)
}

// abort decides against the move by compare-and-swap. If somebody else decided first, or
// the answer is lost, the record is read again and its decision counts.
func (r *Reconciler) abort(ctx context.Context, m *v1alpha1.PodMigration, f Facts, why *Refusal) (ctrl.Result, error) {
	at := metav1.NewMicroTime(f.Now)
	m.Status.Decision = v1alpha1.Abort
	m.Status.DecisionBy = by
	m.Status.DecisionReason = why.Reason
	m.Status.DecisionMessage = v1alpha1.Cut(why.Message)
	m.Status.DecidedAt = &at
	setCondition(m, f.Now, v1alpha1.ConditionDecided, true, why.Reason, why.Message)
	note(m, f.Now, "AbortDecided", why.Message)
	if err := r.save(ctx, m); err != nil {
		return ctrl.Result{}, err
	}
	r.event(m, corev1.EventTypeWarning, "MigrationAborting", why.Message, f.source(m))
	return ctrl.Result{RequeueAfter: again}, nil
}
