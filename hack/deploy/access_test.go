package deploy

import (
	"context"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/drover-project/drover/api/v1alpha1"
)

func TestMovingIsAVerb(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	wishes := rbacv1.PolicyRule{APIGroups: []string{"drover.dev"}, Resources: []string{"podmigrations"}, Verbs: []string{"create"}}
	one := c.role(wishes, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, ResourceNames: []string{"mine"}, Verbs: []string{"migrate"}})
	lacking := c.user("lacking", c.role(wishes))
	c.until("the policy does not come into force", func(ctx context.Context) bool {
		return lacking.Create(ctx, c.wish("probe", "p", ""), client.DryRunAll) != nil
	})
	ordered := c.wish("g", "p", "n2")
	ordered.Annotations = map[string]string{v1alpha1.AnnotationOrderedBy: "n1"}
	for _, x := range []struct {
		name string
		who  client.Client
		wish *v1alpha1.PodMigration
		says string // empty: allowed
	}{
		{"the role", c.user("mover", "drover-migrate"), c.wish("a", "p", ""), ""},
		{"no verb", lacking, c.wish("b", "p", ""), `user "lacking" may not move the pod "p" in the namespace "` + c.ns + `": the verb "migrate" on pods is missing`},
		{"one pod", c.user("owner", one), c.wish("c", "mine", ""), ""},
		{"another pod", c.user("owner2", one), c.wish("d", "yours", ""), `may not move the pod "yours"`},
		{"who may see", c.user("viewer", "drover-view"), c.wish("e", "p", ""), "cannot create"},
		{"who may resolve", c.user("resolver", "drover-resolve"), c.wish("f", "p", ""), "cannot create"},
		{"an agent, away", c.program("drover-agent", "n1"), ordered, ""},
		{"an administrator", c.admin, c.wish("h", "p", ""), ""},
	} {
		err := x.who.Create(ctx, x.wish)
		if (err == nil) != (x.says == "") || err != nil && !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want %q", x.name, err, x.says)
		}
	}
}

// TestRolesAreAggregated: who edits a namespace moves its pods, unless the operator says no.
func TestRolesAreAggregated(t *testing.T) {
	for _, on := range []bool{true, false} {
		m, err := render(t, map[string]any{"rbac": map[string]any{"aggregate": on}})
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(m, "\n---") {
			var role rbacv1.ClusterRole
			if yaml.Unmarshal([]byte(doc), &role) != nil || role.Kind != "ClusterRole" {
				continue
			}
			edits := role.Labels["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
			if want := role.Name == "drover-view" || role.Name == "drover-migrate" && on; edits != want {
				t.Errorf("aggregate %v: role %s goes to edit: %v, want %v", on, role.Name, edits, want)
			}
		}
	}
}

func TestResolvingIsAVerb(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	writes := c.role(rbacv1.PolicyRule{
		APIGroups: []string{"drover.dev"}, Resources: []string{"podmigrations", "podmigrations/status"}, Verbs: []string{"get", "update"}})
	jane, lacking := c.user("jane", "drover-resolve"), c.user("lacking", writes)
	agent := c.program("drover-agent", "n1")
	undecided := v1alpha1.PodMigrationStatus{Epoch: 2, Phase: v1alpha1.PhaseRestoring,
		Source: v1alpha1.SourceStatus{Node: "n1", PodUID: "u", Offered: true}, Target: v1alpha1.TargetStatus{Node: "n2", PodUID: "v", Waiting: true}}
	committed := *undecided.DeepCopy()
	committed.Decision, committed.DecisionBy = v1alpha1.Commit, "target n2"
	type st = v1alpha1.PodMigrationStatus
	abort := func(by string) func(*st) {
		return func(s *st) {
			at := metav1.NowMicro()
			s.Decision, s.DecisionBy, s.DecisionReason, s.DecidedAt = v1alpha1.Abort, by, "Resolved", &at
			s.Timeline = append(s.Timeline, v1alpha1.TimelineEntry{Step: "AbortDecided", By: by, At: at})
		}
	}
	starting := *committed.DeepCopy()
	starting.Target.Starting = true
	forget := func(s *st) { s.Lost, s.LostMessage = true, "user jane says that node n2 is powered off" }
	back := func(s *st) {
		s.Returned, s.Epoch, s.ReturnProof = true, 3, "user jane says that node n2 is powered off"
	}
	with := func(f, g func(*st)) func(*st) { return func(s *st) { f(s); g(s) } }
	probe := c.wish("probe", "p", "")
	c.make(probe)
	c.until("the policy does not come into force", func(ctx context.Context) bool {
		x := probe.DeepCopy()
		x.Status.Phase = v1alpha1.PhasePending
		return lacking.Status().Update(ctx, x, client.DryRunAll) != nil
	})
	for i, x := range []struct {
		what string
		who  client.Client
		from st
		do   func(*st)
		says string
	}{
		{"abort", jane, undecided, abort("user jane"), ""},
		{"return", jane, committed, back, ""},
		{"forget", jane, starting, forget, ""},
		{"forget without the verb", lacking, starting, forget, `the verb "resolve"`},
		{"forget in another's name", jane, starting, with(forget, func(s *st) { s.LostMessage = "node n2 is gone" }), "in their own name"},
		{"forget and return", jane, committed, with(back, forget), "only if its copy was starting"},
		{"forget what has not started", jane, committed, forget, "only if its copy was starting"},
		{"return what was starting", jane, starting, back, "returns only if its target says"},
		{"abort without the verb", lacking, undecided, abort("user lacking"), `the verb "resolve"`},
		{"return without the verb", lacking, committed, back, `the verb "resolve"`},
		{"abort in another's name", jane, undecided, abort("user joe"), "in their own name"},
		{"abort in the controller's name", jane, undecided, abort("controller"), "in their own name"},
		{"commit", jane, undecided, func(s *st) { s.Decision, s.DecisionBy = v1alpha1.Commit, "user jane" }, "changes nothing else"},
		{"abort what is committed", jane, committed, abort("user jane"), "cannot be changed"},
		{"return in another's name", jane, committed, with(back, func(s *st) { s.ReturnProof = "node n2 was booted since" }), "in their own name"},
		{"return under the same epoch", jane, committed, with(back, func(s *st) { s.Epoch = 2 }), "next epoch"},
		{"say that the copy runs", jane, starting, func(s *st) { s.Target.Resumed = true }, "changes nothing else"},
		{"say that the source goes on", jane, committed, with(back, func(s *st) { s.Source.Released = true }), "changes nothing else"},
		{"hand over", jane, undecided, with(abort("user jane"), func(s *st) { s.HandedOver = true }), "changes nothing else"},
		{"an agent in a user's name is still an agent", agent, committed, func(s *st) {
			s.Conditions = []metav1.Condition{{
				Type: "Complete", Status: "True", Reason: "X", LastTransitionTime: metav1.Now()}}
		}, "drover-controller alone"},
	} {
		m := c.wish("m"+string(rune('a'+i)), "p", "")
		c.make(m)
		m.Status = *x.from.DeepCopy()
		if err := c.admin.Status().Update(ctx, m); err != nil {
			t.Fatal(err)
		}
		x.do(&m.Status)
		err := x.who.Status().Update(ctx, m)
		if (err == nil) != (x.says == "") || err != nil && !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want %q", x.what, err, x.says)
		}
	}
}
