package controller

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func TestUnlisted(t *testing.T) {
	web := labels.Set{"app": "web", "tier": "front", "pod-template-hash": "5d4"}
	for _, c := range []struct {
		name         string
		has          labels.Set
		by, policies []string
		off          []string
		reason, says string // of a refusal
	}{
		{"nobody selects it", web, []string{"app=db"}, nil, nil, "", ""},
		{"a set", web, []string{"app=web,pod-template-hash=5d4"}, nil, []string{"pod-template-hash"}, "", ""},
		{"a set, its Deployment and a Service", web, []string{"app=web,pod-template-hash=5d4", "app=web", "app=web"}, nil, []string{"pod-template-hash", "app"}, "", ""},
		{"the label goes that no policy needs", web, []string{"app=web,tier=front"}, []string{"app=web"}, []string{"tier"}, "", ""},
		{"a policy of others", web, []string{"app=web"}, []string{"app=db", "tier=front"}, []string{"app"}, "", ""},
		{"a policy of all", web, []string{"app=web"}, []string{""}, []string{"app"}, "", ""},
		{"a policy that would begin to select it", web, []string{"tier=front,app=web"}, []string{"!app"}, []string{"tier"}, "", ""},
		{"a policy of the same label", web, []string{"app=web"}, []string{"app=web"}, nil, ReasonPolicyNeedsLabel, "app=web needs the label app"},
		{"a policy of what is not there", web, []string{"app=web"}, []string{"!app"}, nil, ReasonPolicyNeedsLabel, "!app needs the label app"},
		{"a budget of all", web, []string{""}, nil, nil, ReasonAlwaysSelected, ""},
		{"no labels", nil, []string{"app=web"}, []string{"app=web"}, nil, "", ""},
		{"no labels, a budget of all", nil, []string{""}, nil, nil, ReasonAlwaysSelected, ""},
	} {
		all := func(texts []string) (out []adopter) {
			for _, s := range texts {
				out = append(out, selects(t, s))
			}
			return out
		}
		before := labels.Merge(c.has, nil)
		off, why := unlisted(c.has, all(c.by), all(c.policies))
		if diff := cmp.Diff(c.off, off); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		switch {
		case c.reason == "" && why != nil, c.reason != "" && (why == nil || why.Reason != c.reason || !strings.Contains(why.Message, c.says)):
			t.Errorf("%s: refused: %+v, want %q", c.name, why, c.reason)
		}
		if diff := cmp.Diff(before, labels.Merge(c.has, nil)); diff != "" {
			t.Errorf("%s: the pod's own labels were changed:\n%s", c.name, diff)
		}
	}
}

func TestSelectorsOfPolicies(t *testing.T) {
	by := func(v string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": v}}
	}
	p := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
		PodSelector: *by("own"),
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: by("from")}, {IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}}}},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{PodSelector: by("to"), NamespaceSelector: &metav1.LabelSelector{}}}}},
	}}
	for namespace, want := range map[string][]string{
		testNamespace: {"app=own", "app=from", "app=to"},
		"elsewhere":   {"app=to"}, // who is meant in another namespace than the policy's
	} {
		p.Namespace = testNamespace
		var got []string
		for _, a := range selectorsOf(p, namespace) {
			got = append(got, a.selector.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pods in %s (-want +got):\n%s", namespace, diff)
		}
	}
}
