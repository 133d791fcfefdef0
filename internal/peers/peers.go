// Package peers finds the nodes that a pod's peers are on: those that the annotation drover.dev/peers
// names, or that its workload was seen to talk to. The scheduler's plugin, the agent and the command line
// share it, so that they weigh alike.
package peers

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
)

// Limits of the annotation: more than anybody needs, little enough to look at for every pod.
const (
	maxTerms  = 32
	maxWeight = 1_000_000
)

// Term is one part of the annotation: the pods of the same namespace that carry a label,
// and how much of the pod's traffic goes to all of them together.
type Term struct {
	Selector labels.Selector
	Weight   float64
}

// Parse reads "app=db,app=cache:3": terms key=value[:weight], separated by commas. A
// weight is a decimal number greater than 0; without one it is 1. The error is one line
// that quotes the term. The empty annotation has no terms.
func Parse(annotation string) ([]Term, error) {
	if annotation == "" {
		return nil, nil
	}
	parts := strings.Split(annotation, ",")
	if len(parts) > maxTerms {
		return nil, fmt.Errorf("%d terms, at most %d are allowed", len(parts), maxTerms)
	}
	var terms []Term
	seen := map[string]float64{}
	for _, part := range parts {
		part = strings.TrimSpace(part)
		t, err := parseTerm(part)
		if err != nil {
			return nil, fmt.Errorf("term %s: %w", quote(part), err)
		}
		if weight, known := seen[t.Selector.String()]; known {
			return nil, fmt.Errorf("%s stands there twice, with the weights %v and %v: leave one", t.Selector, weight, t.Weight)
		}
		seen[t.Selector.String()] = t.Weight
		terms = append(terms, t)
	}
	return terms, nil
}

func parseTerm(term string) (Term, error) {
	label, weight, weighted := strings.Cut(term, ":")
	key, value, ok := strings.Cut(label, "=")
	if !ok || key == "" || value == "" {
		return Term{}, fmt.Errorf("want key=value or key=value:weight")
	}
	if faults := validation.IsQualifiedName(key); len(faults) > 0 {
		return Term{}, fmt.Errorf("the label key %s is not valid: %s", quote(key), faults[0])
	}
	if faults := validation.IsValidLabelValue(value); len(faults) > 0 {
		return Term{}, fmt.Errorf("the label value %s is not valid: %s", quote(value), faults[0])
	}
	t := Term{Selector: labels.SelectorFromValidatedSet(labels.Set{key: value}), Weight: 1}
	if weighted {
		w, err := strconv.ParseFloat(weight, 64)
		if err != nil || strings.Trim(weight, "0123456789.") != "" || !(w > 0 && w <= maxWeight) {
			return Term{}, fmt.Errorf("the weight %s must be a number more than 0 and at most %d", quote(weight), maxWeight)
		}
		t.Weight = w
	}
	return t, nil
}

// Nodes gives the nodes that a pod's peers run on, with the traffic to each. list gives
// the pods of the pod's namespace that a selector matches. The weight of a term is shared
// by the pods it selects: a client spreads its requests over a service's replicas. Pods
// that have no node, have ended or are ending do not count, nor does the pod itself under
// any of its names.
func Nodes(pod *corev1.Pod, terms []Term, list func(labels.Selector) ([]*corev1.Pod, error)) (map[model.NodeID]float64, error) {
	nodes := map[model.NodeID]float64{}
	for _, t := range terms {
		found, err := list(t.Selector)
		if err != nil {
			return nil, fmt.Errorf("list the peers %s of %s/%s: %w", t.Selector, pod.Namespace, pod.Name, err)
		}
		var on []string
		for _, other := range found {
			if other.Spec.NodeName != "" && !over(other) && v1alpha1.OriginOf(other) != v1alpha1.OriginOf(pod) {
				on = append(on, other.Spec.NodeName)
			}
		}
		for _, name := range on {
			nodes[model.NodeID(name)] += t.Weight / float64(len(on))
		}
	}
	return nodes, nil
}

// over tells whether a pod has ended or is about to.
func over(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// quote shows what a user wrote, on one line and not at length.
func quote(s string) string { return strconv.Quote(trim(s)) }

func trim(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}

// plain is the beginning of a text on one line, without what a terminal would obey.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, trim(s))
}
