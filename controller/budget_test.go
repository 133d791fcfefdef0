package controller

import (
	"strings"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// A disruption is allowed as the API server allows an eviction of the same pod.
func TestSpent(t *testing.T) {
	always, healthy := policyv1.AlwaysAllow, policyv1.IfHealthyBudget
	for _, c := range []struct {
		name   string
		policy *policyv1.UnhealthyPodEvictionPolicyType
		status policyv1.PodDisruptionBudgetStatus
		ready  bool
		takes  bool
		says   string // empty: allowed
	}{
		{"one is left", nil, policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1, CurrentHealthy: 3, DesiredHealthy: 2, ExpectedPods: 3}, true, true, ""},
		{"none is left", nil, policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 2, DesiredHealthy: 2, ExpectedPods: 3}, true, true, "allows 0 disruptions: of 3 pods it wants 2 healthy, and 2 are"},
		{"a policy does not free a ready pod", &always, policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 2, DesiredHealthy: 2}, true, true, "allows 0"},
		{"unready, budget healthy", nil, policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 2, DesiredHealthy: 2}, false, false, ""},
		{"unready, budget unhealthy", nil, policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 2}, false, true, "allows 0"},
		{"unready, budget unhealthy, by name", &healthy, policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 2}, false, true, "allows 0"},
		{"unready, nothing wanted", nil, policyv1.PodDisruptionBudgetStatus{}, false, true, "allows 0"},
		{"unready, always allowed", &always, policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 2}, false, false, ""},
		{"counted as disrupted already", nil, policyv1.PodDisruptionBudgetStatus{DisruptedPods: map[string]metav1.Time{oldName: {}}}, true, true, ""},
		{"not counted anew yet", nil, policyv1.PodDisruptionBudgetStatus{ObservedGeneration: -1, DisruptionsAllowed: 1}, true, true, "not counted anew"},
	} {
		b, p := budget(1), sourcePod()
		b.Spec.UnhealthyPodEvictionPolicy, b.Status = c.policy, c.status
		if !c.ready {
			p.Status.Conditions = nil
		}
		if got := takes(b, p); got != c.takes {
			t.Errorf("%s: takes one: %t, want %t", c.name, got, c.takes)
		}
		why := spent(b, p)
		if (why != nil) != (c.says != "") {
			t.Errorf("%s: %+v, want %q", c.name, why, c.says)
		} else if why != nil && (why.Reason != ReasonDisruptionBudget || !strings.Contains(why.Message, c.says) || !strings.Contains(why.Message, b.Name)) {
			t.Errorf("%s: %+v, want %q and the budget's name", c.name, why, c.says)
		}
	}
}

func TestSelecting(t *testing.T) {
	nothing, everything, other, broken := budget(1), budget(1), budget(1), budget(1)
	nothing.Spec.Selector, everything.Spec.Selector = nil, &metav1.LabelSelector{}
	other.Spec.Selector.MatchLabels = map[string]string{"app": "db"}
	broken.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Nope"}}}
	all := []policyv1.PodDisruptionBudget{*nothing, *everything, *other, *broken, *budget(1)}
	if got := selecting(all, sourcePod()); len(got) != 2 {
		t.Errorf("%d budgets select the pod, want 2: that of all pods and that of its app", len(got))
	}
	f := goodFacts()
	f.Budgets = selecting(all, f.Pod)
	if r := Admit(wish(), f); r == nil || r.Reason != ReasonSeveralDisruptionBudgets {
		t.Errorf("a pod with two budgets: %+v, want %s", r, ReasonSeveralDisruptionBudgets)
	}
}

// The disruption controller drops an entry after two minutes: a source that is held for
// longer counts as disrupted all the same (guarded, at every round).
func TestLongHoldIsRenewed(t *testing.T) {
	s := named("with a budget")
	s.players = players{slow: 150}
	w := s.begin(t, fault{})
	s.check(t, w, w.run())
}

// An entry that is not this move's is an eviction's, and stays.
func TestReleaseLeavesOthersEntry(t *testing.T) {
	b := budget(1)
	b.Status.DisruptedPods[oldName] = metav1.NewTime(start.Add(time.Minute))
	w := newWorld(t, b, wish())
	m := w.move()
	m.Status.Source.PodName = oldName
	for _, c := range []struct {
		at   time.Time
		left bool
	}{{start, true}, {start.Add(time.Minute), false}} {
		m.Status.Budget = &v1alpha1.BudgetReservation{Name: b.Name, UID: b.UID, ReservedAt: metav1.NewTime(c.at)}
		if err := w.r.releaseBudget(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if _, left := w.pdb("web").Status.DisruptedPods[oldName]; left != c.left {
			t.Errorf("reserved at %s: the entry is left: %t, want %t", c.at.Sub(start), left, c.left)
		}
	}
}
