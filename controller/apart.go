package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// keepsApart tells that the pod's spec may keep a second pod of its labels off its node.
func keepsApart(p *corev1.Pod) bool {
	for _, c := range p.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == corev1.DoNotSchedule {
			return true
		}
	}
	a := p.Spec.Affinity
	return a != nil && a.PodAntiAffinity != nil && len(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0
}

// unlabel takes the labels off the moved pod before the second step, if by them it would
// keep itself off its own node. What it hands over is written down in it.
func (r *Reconciler) unlabel(ctx context.Context, p *corev1.Pod) error {
	if !keepsApart(p) {
		return nil
	}
	labels := map[string]any{}
	for k := range p.Labels {
		if k != v1alpha1.LabelReplacement {
			labels[k] = nil
		}
	}
	if len(labels) == 0 {
		return nil
	}
	return r.patch(ctx, p, map[string]any{"labels": labels})
}
