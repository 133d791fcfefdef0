package deploy

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/nodeagent/migrate"
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
	word := func(verb handoff.Verb, user string) func(*st) {
		return func(s *st) {
			m := &v1alpha1.PodMigration{Status: *s}
			if err := (migrate.Word{Verb: verb, User: user, Off: s.Target.Node}).Write(m, time.Now()); err != nil {
				t.Fatal(err)
			}
			*s = m.Status
		}
	}
	abort := func(user string) func(*st) { return word(handoff.Abort, user) }
	starting := *committed.DeepCopy()
	starting.Target.Starting = true
	// Those that the record's own rules do not allow are not of a word.
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
		{"abort", jane, undecided, abort("jane"), ""},
		{"return", jane, committed, word(handoff.Return, "jane"), ""},
		{"forget", jane, starting, word(handoff.Lose, "jane"), ""},
		{"forget without the verb", lacking, starting, forget, `the verb "resolve"`},
		{"forget in another's name", jane, starting, with(forget, func(s *st) { s.LostMessage = "node n2 is gone" }), "in their own name"},
		{"forget and return", jane, committed, with(back, forget), "only if its copy was starting"},
		{"forget what has not started", jane, committed, forget, "only if its copy was starting"},
		{"return what was starting", jane, starting, back, "returns only if its target says"},
		{"abort without the verb", lacking, undecided, abort("lacking"), `the verb "resolve"`},
		{"return without the verb", lacking, committed, back, `the verb "resolve"`},
		{"abort in another's name", jane, undecided, abort("joe"), "in their own name"},
		{"abort in the controller's name", jane, undecided, with(abort("jane"), func(s *st) { s.DecisionBy = "controller" }), "in their own name"},
		{"commit", jane, undecided, func(s *st) { s.Decision, s.DecisionBy = v1alpha1.Commit, "user jane" }, "changes nothing else"},
		{"abort what is committed", jane, committed, func(s *st) { s.Decision = v1alpha1.Abort }, "cannot be changed"},
		{"return in another's name", jane, committed, with(back, func(s *st) { s.ReturnProof = "node n2 was booted since" }), "in their own name"},
		{"return under the same epoch", jane, committed, with(back, func(s *st) { s.Epoch = 2 }), "next epoch"},
		{"say that the copy runs", jane, starting, func(s *st) { s.Target.Resumed = true }, "changes nothing else"},
		{"say that the source goes on", jane, committed, with(back, func(s *st) { s.Source.Released = true }), "changes nothing else"},
		{"hand over", jane, undecided, with(abort("jane"), func(s *st) { s.HandedOver = true }), "changes nothing else"},
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

// TestResolvingChangesNothingElse: beside a word that is allowed, every single field of a
// record that has them all is changed. New fields are found by reflection.
func TestResolvingChangesNothingElse(t *testing.T) {
	c := newCluster(t)
	jane := c.user("jane", "drover-resolve")
	now, at := metav1.Now(), metav1.NowMicro()
	undecided := v1alpha1.PodMigrationStatus{
		Epoch: 2, Phase: v1alpha1.PhaseRestoring, Bytes: 7, FrozenTime: &metav1.Duration{Duration: time.Second},
		Transfer: &v1alpha1.TransferStatus{AheadBytes: 1, Rounds: 1, SentBytes: 1, TotalBytes: 2, WireBytes: 1, BytesPerSecond: 1, TimeLeft: &metav1.Duration{Duration: time.Second}},
		Source: v1alpha1.SourceStatus{Node: "n1", PodName: "p", PodUID: "u", Offered: true, Origin: "u", OwnerUID: "o", BootID: "b",
			Containers: []v1alpha1.MovingContainer{{Name: "c", ID: "i"}}},
		Target: v1alpha1.TargetStatus{Node: "n2", PodName: "q", PodUID: "v", Waiting: true, BootID: "b", Deadline: &at},
		Budget: &v1alpha1.BudgetReservation{Name: "b", UID: "u", ReservedAt: now},
		Connections: &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsProbing, Reason: "X", Message: "x", KeepFor: metav1.Duration{Duration: time.Minute},
			OldAddresses: []string{"10.0.0.1"}, HolderImage: "x", Until: &at, TurnedTo: "u9",
			Earlier: []v1alpha1.EarlierLease{{UID: "u0", Migration: "m0", Node: "n3", Addresses: []string{"10.0.2.1"}, KeepFor: metav1.Duration{Duration: time.Minute}, EndReason: "X", EndMessage: "x"}}},
		Timeline:   []v1alpha1.TimelineEntry{{Step: "Accepted", By: "controller", At: at}, {Step: "Frozen", By: "n1", At: at, Message: "x"}},
		Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", Message: "x", LastTransitionTime: now, ObservedGeneration: 1}},
	}
	committed := *undecided.DeepCopy()
	committed.Decision, committed.DecisionBy, committed.DecisionReason, committed.DecisionMessage, committed.DecidedAt = v1alpha1.Commit, "target n2", "X", "x", &at
	starting := *committed.DeepCopy()
	starting.Target.Starting = true
	full := *undecided.DeepCopy()
	for len(full.Timeline) < v1alpha1.MaxSteps {
		full.AddStep(v1alpha1.TimelineEntry{Step: "Step", By: "controller", At: metav1.NewMicroTime(at.Add(time.Duration(len(full.Timeline)) * time.Millisecond))})
	}
	for _, x := range []struct {
		name string
		from v1alpha1.PodMigrationStatus
		verb handoff.Verb
	}{
		{"abort", undecided, handoff.Abort}, {"return", committed, handoff.Return}, {"forget", starting, handoff.Lose}, {"abort-full", full, handoff.Abort},
	} {
		m := c.wish(x.name, "p", "")
		c.make(m)
		for _, s := range []v1alpha1.PodMigrationStatus{{Connections: x.from.Connections}, x.from} { // asked for before the target waits
			m.Status = *s.DeepCopy()
			if err := c.admin.Status().Update(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		c.until("the policy does not come into force", func(ctx context.Context) bool {
			other := m.DeepCopy()
			other.Status.Bytes++
			return jane.Status().Update(ctx, other, client.DryRunAll) != nil
		})
		said := m.DeepCopy()
		if err := (migrate.Word{Verb: x.verb, User: "jane", Off: "n2"}).Write(said, time.Now()); err != nil {
			t.Fatal(err)
		}
		refused := func() bool { return jane.Status().Update(t.Context(), said.DeepCopy(), client.DryRunAll) != nil }
		c.until(x.name+" is refused", func(context.Context) bool { return !refused() })
		own := fmt.Sprintf("Timeline[%d].At", len(said.Status.Timeline)-1) // when is theirs to say
		if x.name != "abort-full" {
			tamper(reflect.ValueOf(&said.Status).Elem(), "", func(path string) {
				if (path != own || x.verb == handoff.Abort) && !refused() {
					t.Errorf("%s: %s is changed beside the word", x.name, path)
				}
			})
			steps := said.Status.Timeline
			for what, s := range map[string][]v1alpha1.TimelineEntry{
				"no step": steps[:len(steps)-1], "a step twice": append(slices.Clone(steps), steps[len(steps)-1]),
				"steps in another order": {steps[1], steps[0], steps[2]}, "a step less": steps[1:],
			} {
				if said.Status.Timeline = s; !refused() {
					t.Errorf("%s: %s", x.name, what)
				}
			}
			said.Status.Timeline = steps
		}
		if err := jane.Status().Update(t.Context(), said); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// tamper changes every single value in v, one after the other, to another that the schema
// allows, and puts it back after the visit.
func tamper(v reflect.Value, path string, visit func(path string)) {
	try := func(path string, other reflect.Value) {
		was := reflect.New(v.Type()).Elem()
		was.Set(v)
		v.Set(other.Convert(v.Type()))
		visit(path)
		v.Set(was)
	}
	switch is := v.Interface().(type) {
	case metav1.Time:
		try(path, reflect.ValueOf(metav1.NewTime(is.Add(time.Hour))))
		return
	case metav1.MicroTime:
		try(path, reflect.ValueOf(metav1.NewMicroTime(is.Add(time.Hour))))
		return
	case metav1.Duration:
		try(path, reflect.ValueOf(metav1.Duration{Duration: is.Duration + time.Second}))
		return
	case v1alpha1.Phase:
		try(path, reflect.ValueOf(v1alpha1.PhaseCompleted))
		return
	case v1alpha1.Decision:
		try(path, reflect.ValueOf(map[v1alpha1.Decision]v1alpha1.Decision{v1alpha1.Abort: v1alpha1.Commit, v1alpha1.Commit: v1alpha1.Abort}[is]))
		return
	case v1alpha1.ConnectionsState:
		try(path, reflect.ValueOf(v1alpha1.ConnectionsClosed))
		return
	case metav1.ConditionStatus:
		try(path, reflect.ValueOf(metav1.ConditionUnknown))
		return
	}
	switch v.Kind() {
	case reflect.String:
		try(path, reflect.ValueOf(v.String()+"x"))
	case reflect.Int64:
		try(path, reflect.ValueOf(v.Int()+1))
	case reflect.Bool:
		try(path, reflect.ValueOf(!v.Bool()))
	case reflect.Pointer:
		if v.IsNil() {
			fresh := reflect.New(v.Type().Elem())
			if path != "DecidedAt" {
				panic("fill " + path)
			}
			try(path, fresh)
			return
		}
		tamper(v.Elem(), path, visit)
	case reflect.Slice:
		for i := range v.Len() {
			tamper(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			tamper(v.Field(i), strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."), visit)
		}
	default:
		panic(path + ": a kind of field that this test does not know: " + v.Kind().String())
	}
}
