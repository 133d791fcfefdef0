package controller

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// repin takes the node requirement of the last move out of the spec (was, as in the
// annotation drover.dev/pinned; empty: none) and puts this move's in: on the target, or
// without one anywhere but on the source. It returns the annotation's new value.
func repin(s *corev1.PodSpec, was, target, source string) string {
	terms := requiredTerms(s)
	if r, ok := parsePin(was); ok {
		terms = unpin(terms, r)
	}
	r := corev1.NodeSelectorRequirement{
		Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{target},
	}
	if target == "" {
		r.Operator, r.Values = corev1.NodeSelectorOpNotIn, []string{source}
	}
	// Terms are ORed, so each needs it; no term at all means no requirement: make one.
	if len(terms) == 0 {
		terms = []corev1.NodeSelectorTerm{{}}
	}
	for i := range terms {
		terms[i].MatchFields = append(terms[i].MatchFields, *r.DeepCopy())
	}
	setRequiredTerms(s, terms)
	return string(r.Operator) + "=" + r.Values[0]
}

func parsePin(v string) (corev1.NodeSelectorRequirement, bool) {
	op, node, ok := strings.Cut(v, "=")
	return corev1.NodeSelectorRequirement{
		Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOperator(op), Values: []string{node},
	}, ok
}

// unpin removes one such requirement from each term, and a term that was nothing else.
func unpin(terms []corev1.NodeSelectorTerm, r corev1.NodeSelectorRequirement) []corev1.NodeSelectorTerm {
	var kept []corev1.NodeSelectorTerm
	for _, t := range terms {
		i := slices.IndexFunc(t.MatchFields, func(f corev1.NodeSelectorRequirement) bool {
			return f.Key == r.Key && f.Operator == r.Operator && slices.Equal(f.Values, r.Values)
		})
		if i >= 0 {
			t.MatchFields = slices.Delete(slices.Clone(t.MatchFields), i, i+1)
		}
		if i < 0 || len(t.MatchFields)+len(t.MatchExpressions) > 0 {
			kept = append(kept, t)
		}
	}
	return kept
}

// requiredTerms are the pod's required node terms, without empty ones: those match
// nothing as they stand and would match once something is added.
func requiredTerms(s *corev1.PodSpec) []corev1.NodeSelectorTerm {
	if s.Affinity == nil || s.Affinity.NodeAffinity == nil ||
		s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	all := s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	var terms []corev1.NodeSelectorTerm
	for _, t := range all {
		if len(t.MatchFields)+len(t.MatchExpressions) > 0 {
			terms = append(terms, *t.DeepCopy())
		}
	}
	return terms
}

func setRequiredTerms(s *corev1.PodSpec, terms []corev1.NodeSelectorTerm) {
	if s.Affinity == nil {
		s.Affinity = &corev1.Affinity{}
	}
	if s.Affinity.NodeAffinity == nil {
		s.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: terms}
}
