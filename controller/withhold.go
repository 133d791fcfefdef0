package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// adopter is an object whose controller takes a pod without owner for its own as soon as
// the pod's labels match.
type adopter struct {
	kind, name string
	selector   labels.Selector
}

// withheldFirst are labels that say whose a pod is and nothing else: nobody chooses pods
// by them but their owners.
var withheldFirst = []string{
	appsv1.DefaultDeploymentUniqueLabelKey, appsv1.ControllerRevisionHashLabelKey,
	batchv1.ControllerUidLabel, "controller-uid",
}

// withhold gives the labels that a replacement has from the beginning: all of the source's
// but the fewest by which nobody takes it for its own. What selects by the others (Services,
// NetworkPolicies, budgets, affinities) sees it as what it will be.
func withhold(all map[string]string, by []adopter) (map[string]string, *Refusal) {
	kept := maps.Clone(all)
	if kept == nil {
		kept = map[string]string{}
	}
	for _, a := range by {
		if !a.selector.Matches(labels.Set(kept)) {
			continue
		}
		keys := telling(a.selector)
		if len(keys) == 0 {
			return nil, refuse(ReasonUnsupportedOwner,
				"%s %s selects pods by labels that they do not have: it would take a replacement for its own before it runs", a.kind, a.name)
		}
		delete(kept, keys[0])
	}
	return kept, nil
}

// telling are the labels without any of which a pod is not selected, those first that say
// the least else. There may be none.
func telling(s labels.Selector) []string {
	all, _ := s.Requirements()
	var keys []string
	for _, r := range all {
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals, selection.Exists, selection.GreaterThan, selection.LessThan:
			keys = append(keys, r.Key())
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	return keys
}

// rank is the place of a label among those to withhold first.
func rank(key string) int {
	if i := slices.Index(withheldFirst, key); i >= 0 {
		return i
	}
	return len(withheldFirst)
}

// label gives the new replacement those labels of the source that it can have.
func (r *Reconciler) label(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p *corev1.Pod) (*Refusal, error) {
	if returnsName(m) && keepsApart(f.Pod) {
		return nil, nil // see unlabel
	}
	by, err := r.adopters(ctx, m.Namespace, p.Name)
	if err != nil {
		return nil, err
	}
	kept, why := withhold(handOverOf(f.Pod).Labels, by)
	if why != nil {
		return why, nil
	}
	maps.Copy(kept, p.Labels)
	p.Labels = kept
	return nil, nil
}

// adopters are all whose controllers would look at a pod of that name without owner. A
// StatefulSet takes only pods with its own names.
func (r *Reconciler) adopters(ctx context.Context, namespace, pod string) ([]adopter, error) {
	var (
		own     appsv1.StatefulSetList
		sets    appsv1.ReplicaSetList
		daemons appsv1.DaemonSetList
		jobs    batchv1.JobList
		old     corev1.ReplicationControllerList
		out     []adopter
	)
	for _, list := range []client.ObjectList{&own, &sets, &daemons, &jobs, &old} {
		if err := r.Reader.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, fmt.Errorf("list %T in %s: %w", list, namespace, err)
		}
	}
	add := func(kind, name string, s *metav1.LabelSelector) {
		if selector, err := metav1.LabelSelectorAsSelector(s); err == nil && !selector.Empty() {
			out = append(out, adopter{kind, name, selector})
		}
	}
	for i := range own.Items {
		if _, is := ordinalOf(&own.Items[i], pod); is {
			add("StatefulSet", own.Items[i].Name, own.Items[i].Spec.Selector)
		}
	}
	for i := range sets.Items {
		add("ReplicaSet", sets.Items[i].Name, sets.Items[i].Spec.Selector)
	}
	for i := range daemons.Items {
		add("DaemonSet", daemons.Items[i].Name, daemons.Items[i].Spec.Selector)
	}
	for i := range jobs.Items {
		add("Job", jobs.Items[i].Name, jobs.Items[i].Spec.Selector)
	}
	for i := range old.Items {
		add("ReplicationController", old.Items[i].Name, &metav1.LabelSelector{MatchLabels: old.Items[i].Spec.Selector})
	}
	return out, nil
}
