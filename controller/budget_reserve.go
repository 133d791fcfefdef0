package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// lookBudgets finds the budgets of the pod.
func (r *Reconciler) lookBudgets(ctx context.Context, m *v1alpha1.PodMigration, f *Facts) error {
	if f.Pod == nil || returnsName(m) {
		return nil // a second step ends the disruption that the first one was allowed
	}
	var all policyv1.PodDisruptionBudgetList
	if err := r.Reader.List(ctx, &all, client.InNamespace(m.Namespace)); err != nil {
		return fmt.Errorf("list the PodDisruptionBudgets in %s: %w", m.Namespace, err)
	}
	f.Budgets = selecting(all.Items, f.Pod)
	return nil
}

// budgetSpent tells why no disruption of the pod is allowed now.
func budgetSpent(f Facts) *Refusal {
	if why := admitBudget(nil, f); why != nil || len(f.Budgets) == 0 {
		return why
	}
	return spent(&f.Budgets[0], f.Pod)
}

// budgeted sees to it that the source counts as disrupted in its budget: from before
// anything is frozen until it runs again or is gone. The answer tells why it cannot be.
func (r *Reconciler) budgeted(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (*Refusal, error) {
	p := f.source(m)
	if p == nil || p.DeletionTimestamp != nil || len(f.Budgets) == 0 {
		return nil, nil
	}
	if why := admitBudget(m, f); why != nil && m.Status.Decision == v1alpha1.Undecided {
		return why, nil
	}
	b := own(m, f.Budgets)
	if entered(m, b) {
		if f.Now.Sub(m.Status.Budget.ReservedAt.Time) < renewAfter {
			return nil, nil
		}
	} else if !takes(b, p) {
		return nil, nil
	}
	if why := spent(b, p); why != nil {
		return why, nil
	}
	return nil, r.reserveBudget(ctx, m, f, b)
}

// own is the budget that the move has an entry in, or the first.
func own(m *v1alpha1.PodMigration, all []policyv1.PodDisruptionBudget) *policyv1.PodDisruptionBudget {
	i := slices.IndexFunc(all, func(b policyv1.PodDisruptionBudget) bool {
		return m.Status.Budget != nil && m.Status.Budget.UID == b.UID
	})
	return &all[max(i, 0)]
}

// reserveBudget writes the entry's time into the record first, then the entry, so that
// whoever goes on after a crash knows it.
func (r *Reconciler) reserveBudget(ctx context.Context, m *v1alpha1.PodMigration, f Facts, b *policyv1.PodDisruptionBudget) error {
	at := metav1.NewTime(f.Now.Truncate(time.Second)) // as it comes back from the API server
	m.Status.Budget = &v1alpha1.BudgetReservation{Name: b.Name, UID: b.UID, ReservedAt: at}
	if err := r.save(ctx, m); err != nil {
		return err
	}
	enter(b, m.Status.Source.PodName, at)
	if err := r.Status.Status().Update(ctx, b); err != nil {
		return fmt.Errorf("reserve a disruption of pod %s in PodDisruptionBudget %s/%s: %w", m.Status.Source.PodName, b.Namespace, b.Name, err)
	}
	return nil
}

// awaitBudget waits for a budget to allow the move, for a time. Once the agents know the
// target there is no waiting: what they would freeze is not allowed.
func (r *Reconciler) awaitBudget(ctx context.Context, m *v1alpha1.PodMigration, f Facts, why *Refusal) (ctrl.Result, error) {
	changed := setCondition(m, f.Now, v1alpha1.ConditionBudgetReserved, false, why.Reason, why.Message)
	waited := since(m, f.Now, v1alpha1.ConditionBudgetReserved)
	if why.Reason != ReasonDisruptionBudget || m.Status.Target.Node != "" {
		return r.abort(ctx, m, f, why)
	}
	if waited > r.Config.BudgetDeadline {
		return r.abort(ctx, m, f, refuse(why.Reason, "%s; waited %s for it", why.Message, waited.Round(time.Second)))
	}
	if changed {
		if err := r.save(ctx, m); err != nil {
			return ctrl.Result{}, err
		}
	}
	return r.wait()
}

// releaseBudget takes this move's entry out of the budget, and no other's: an entry of
// another time is an eviction's. The disruption controller counts anew by itself.
func (r *Reconciler) releaseBudget(ctx context.Context, m *v1alpha1.PodMigration) error {
	if m.Status.Budget == nil {
		return nil
	}
	var b policyv1.PodDisruptionBudget
	found, err := r.get(ctx, m.Namespace, m.Status.Budget.Name, &b)
	if err != nil || !found || !entered(m, &b) {
		return err
	}
	delete(b.Status.DisruptedPods, m.Status.Source.PodName)
	if err := r.Status.Status().Update(ctx, &b); err != nil {
		return fmt.Errorf("give back what is reserved in PodDisruptionBudget %s/%s: %w", b.Namespace, b.Name, err)
	}
	return nil
}
