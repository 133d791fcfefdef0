package controller

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Reasons of a move that its pod's PodDisruptionBudget does not allow.
const (
	ReasonDisruptionBudget         = "DisruptionBudget"
	ReasonSeveralDisruptionBudgets = "SeveralDisruptionBudgets"
)

const (
	// renewAfter is when an entry in a budget is written again: the disruption controller
	// drops that of a pod which is still there after 2 minutes, by its own clock.
	renewAfter = 40 * time.Second
	// mostDisrupted is how many entries a budget may have, as for an eviction.
	mostDisrupted = 2000
)

// selecting are the budgets that guard a pod, found as an eviction finds them.
func selecting(all []policyv1.PodDisruptionBudget, p *corev1.Pod) []policyv1.PodDisruptionBudget {
	var out []policyv1.PodDisruptionBudget
	for i := range all {
		s, err := metav1.LabelSelectorAsSelector(all[i].Spec.Selector)
		if err == nil && s.Matches(labels.Set(p.Labels)) {
			out = append(out, all[i])
		}
	}
	return out
}

// admitBudget: an eviction knows no way to take from two budgets at once, nor does a move.
func admitBudget(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	if len(f.Budgets) < 2 {
		return nil
	}
	return refuse(ReasonSeveralDisruptionBudgets,
		"pod %s/%s has more than one PodDisruptionBudget (%s, %s): it can be moved as little as evicted; leave one that selects it",
		f.Pod.Namespace, f.Pod.Name, f.Budgets[0].Name, f.Budgets[1].Name)
}

// takes tells whether a disruption of this pod is one that the budget has to allow. One of
// a pod that is not ready may be free, by the budget's policy, as for an eviction.
func takes(b *policyv1.PodDisruptionBudget, p *corev1.Pod) bool {
	if podReady(p) {
		return true
	}
	if policy := b.Spec.UnhealthyPodEvictionPolicy; policy != nil && *policy == policyv1.AlwaysAllow {
		return false
	}
	return b.Status.CurrentHealthy < b.Status.DesiredHealthy || b.Status.DesiredHealthy == 0
}

// spent tells why the budget allows no disruption of the pod now. Nil: it does, or the pod
// counts as disrupted already.
func spent(b *policyv1.PodDisruptionBudget, p *corev1.Pod) *Refusal {
	s := &b.Status
	if _, has := s.DisruptedPods[p.Name]; has || !takes(b, p) {
		return nil
	}
	switch {
	case s.ObservedGeneration < b.Generation:
		return refuse(ReasonDisruptionBudget, "PodDisruptionBudget %s was changed and is not counted anew yet", b.Name)
	case s.DisruptionsAllowed < 1:
		return refuse(ReasonDisruptionBudget, "PodDisruptionBudget %s allows %d disruptions: of %d pods it wants %d healthy, and %d are",
			b.Name, s.DisruptionsAllowed, s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy)
	case len(s.DisruptedPods) > mostDisrupted:
		return refuse(ReasonDisruptionBudget, "PodDisruptionBudget %s has %d disrupted pods that are not gone yet, more than %d",
			b.Name, len(s.DisruptedPods), mostDisrupted)
	}
	return nil
}

// entered tells whether the budget has this move's entry.
func entered(m *v1alpha1.PodMigration, b *policyv1.PodDisruptionBudget) bool {
	has := m.Status.Budget
	at, is := b.Status.DisruptedPods[m.Status.Source.PodName]
	return is && has != nil && has.UID == b.UID && at.Equal(&has.ReservedAt)
}

// enter puts the entry into the budget's status, as an eviction does. A pod that counts
// as disrupted already is not counted twice.
func enter(b *policyv1.PodDisruptionBudget, pod string, at metav1.Time) {
	s := &b.Status
	if _, has := s.DisruptedPods[pod]; !has {
		s.DisruptionsAllowed--
	}
	if s.DisruptedPods == nil {
		s.DisruptedPods = map[string]metav1.Time{}
	}
	s.DisruptedPods[pod] = at
}
