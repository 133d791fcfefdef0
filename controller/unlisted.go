package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// A pod that is kept for its address alone counts for nobody: not for its owner and what
// scales that, not for a budget, not for a Service. By labels they know it, and so do
// NetworkPolicies, which shall know it as before: what they allow and forbid is what the pod on
// the target has through that address.

// unlisted gives the labels, as few as may be, without which none of by selects a pod that has
// all. Every policy selects it then if it did before, and only then.
func unlisted(all map[string]string, by, policies []adopter) (off []string, _ *Refusal) {
	kept := labels.Set(maps.Clone(all))
	for _, a := range by {
		if !a.selector.Matches(kept) {
			continue
		}
		keys, needs := telling(a.selector), ""
		at := slices.IndexFunc(keys, func(key string) bool {
			next := maps.Clone(kept)
			delete(next, key)
			i := slices.IndexFunc(policies, func(p adopter) bool { return p.selector.Matches(kept) != p.selector.Matches(next) })
			if i >= 0 && needs == "" {
				needs = fmt.Sprintf("%s %s needs the label %s", policies[i].kind, policies[i].name, key)
			}
			return i < 0
		})
		switch {
		case len(keys) == 0:
			return nil, refuse(ReasonAlwaysSelected,
				"%s %s selects the pod by labels that it does not have, so it would count the object that holds the old address, too", a.kind, a.name)
		case at < 0:
			return nil, refuse(ReasonPolicyNeedsLabel,
				"the object that holds the old address would have to lose a label, for %s %s not to count it, and to keep it, for %s: have one of them select by another label", a.kind, a.name, needs)
		}
		delete(kept, keys[at])
		off = append(off, keys[at])
	}
	return off, nil
}

// lookSelectors reads who selects pods by labels, if the pod asks to keep its connections: the
// controller's judgement wants it, but not that of users, who may not see all namespaces; and the
// moment in which the source is let go.
func (r *Reconciler) lookSelectors(ctx context.Context, m *v1alpha1.PodMigration, f *Facts) error {
	if f.Pod == nil {
		return nil
	}
	if keep, err := movable.KeepOf(f.Pod); err != nil || keep.For == 0 {
		return nil
	}
	return r.readSelectors(ctx, m, f)
}

func (r *Reconciler) readSelectors(ctx context.Context, m *v1alpha1.PodMigration, f *Facts) (err error) {
	if f.Takers, err = r.adopters(ctx, m.Namespace, f.Pod.Name); err != nil {
		return err
	}
	take := func(kind, name string, s *metav1.LabelSelector) {
		if selector, err := metav1.LabelSelectorAsSelector(s); err == nil {
			f.Takers = append(f.Takers, adopter{kind, name, selector})
		}
	}
	if d := f.Deployment; d != nil {
		take("Deployment", d.Name, d.Spec.Selector) // what scales it counts pods by it, without a hash
	}
	for i := range f.Budgets {
		take("PodDisruptionBudget", f.Budgets[i].Name, f.Budgets[i].Spec.Selector)
	}
	var services corev1.ServiceList
	if err := r.Reader.List(ctx, &services, client.InNamespace(m.Namespace)); err != nil {
		return fmt.Errorf("list the Services in %s: %w", m.Namespace, err)
	}
	for i := range services.Items {
		if s := &services.Items[i]; len(s.Spec.Selector) > 0 {
			f.Takers = append(f.Takers, adopter{"Service", s.Name, labels.SelectorFromSet(s.Spec.Selector)})
		}
	}
	return r.readPolicies(ctx, m.Namespace, f)
}
