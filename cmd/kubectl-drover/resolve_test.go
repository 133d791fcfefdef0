package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/nodeagent/migrate"
)

func record(change func(*v1alpha1.PodMigrationStatus)) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "m"}, Spec: v1alpha1.PodMigrationSpec{PodName: "web"}}
	m.Status = v1alpha1.PodMigrationStatus{Epoch: 2, Phase: v1alpha1.PhaseRestoring,
		Source: v1alpha1.SourceStatus{Node: "n1", PodName: "web", Offered: true}, Target: v1alpha1.TargetStatus{Node: "n2", Waiting: true}}
	change(&m.Status)
	return m
}

func commit(s *v1alpha1.PodMigrationStatus) { s.Decision, s.DecisionBy = v1alpha1.Commit, "target n2" }

// server is an API server that knows the user's name, with these objects.
func server(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(s).WithObjects(objects...).WithStatusSubresource(&v1alpha1.PodMigration{}).
		WithInterceptorFuncs(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if r, ok := o.(*authenticationv1.SelfSubjectReview); ok {
				r.Status.UserInfo.Username = "jane"
				return nil
			}
			return c.Create(ctx, o, opts...)
		}}).Build()
}

func node(name string, ready corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
}

func TestForce(t *testing.T) {
	down := []end{{node: "n1", role: migrate.RoleSource}, {node: "n2", role: migrate.RoleTarget, err: errors.New("no route to host")}}
	up := []end{down[0], {node: "n2", role: migrate.RoleTarget}}
	grumbling := []end{down[0], {node: "n2", role: migrate.RoleTarget, err: agentclient.Refusal{Path: "/v1", Status: "404", Said: "no such move"}}}
	abort, back, forget := word{abort: true}, word{back: true, off: "n2"}, word{forget: true, off: "n2"}
	starting := func(s *v1alpha1.PodMigrationStatus) { commit(s); s.Target.Starting = true }
	for _, c := range []struct {
		name   string
		record *v1alpha1.PodMigration
		node   *corev1.Node
		ends   []end
		word   word
		says   string // of the error; empty: decided
	}{
		{"abort an undecided one", record(func(*v1alpha1.PodMigrationStatus) {}), node("n2", "True"), up, abort, ""},
		{"abort a committed one", record(commit), nil, down, abort, "does not allow it"},
		{"abort an aborted one", record(func(s *v1alpha1.PodMigrationStatus) { s.Decision = v1alpha1.Abort }), nil, down, abort, "does not allow it"},
		{"return a committed one", record(commit), node("n2", "Unknown"), down, back, ""},
		{"return, the Node object is gone", record(commit), nil, down, back, ""},
		{"return an undecided one", record(func(*v1alpha1.PodMigrationStatus) {}), nil, down, back, "does not allow it"},
		{"return what runs", record(func(s *v1alpha1.PodMigrationStatus) { commit(s); s.Target.Resumed = true }), nil, down, back, "does not allow it"},
		{"return twice", record(func(s *v1alpha1.PodMigrationStatus) { commit(s); s.Returned = true }), nil, down, back, "does not allow it"},
		{"return what may have run", record(starting), nil, down, back, "does not allow it"},
		{"forget what may have run", record(starting), node("n2", "Unknown"), down, forget, ""},
		{"forget what has not", record(commit), nil, down, forget, "does not allow it"},
		{"forget, and the agent answers", record(starting), nil, up, forget, "its agent answers"},
		{"the agent answers", record(commit), node("n2", "Unknown"), up, back, "its agent answers"},
		{"the agent grumbles", record(commit), node("n2", "Unknown"), grumbling, back, "its agent answers"},
		{"the kubelet is ready", record(commit), node("n2", "True"), down, back, "it is ready"},
		{"another node is off", record(commit), nil, down, word{back: true, off: "n3"}, `node "n2"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects := []client.Object{c.record}
			if c.node != nil {
				objects = append(objects, c.node)
			}
			k := server(t, objects...)
			key := client.ObjectKeyFromObject(c.record)
			var before, after v1alpha1.PodMigration
			if err := k.Get(t.Context(), key, &before); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			tool := &tool{IOStreams: genericclioptions.IOStreams{Out: &out}}
			err := tool.force(t.Context(), k, before.DeepCopy(), c.ends, c.word)
			if err := k.Get(t.Context(), key, &after); err != nil {
				t.Fatal(err)
			}
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) || after.ResourceVersion != before.ResourceVersion {
					t.Errorf("%v, want %q and the record as it was", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := after.Status
			aborted := s.Decision == v1alpha1.Abort && s.DecisionBy == "user jane" && s.DecisionReason == "Resolved" && s.DecidedAt != nil && s.Epoch == 2 && !s.Returned
			returned := s.Decision == v1alpha1.Commit && s.Returned && s.Epoch == 3 && s.ReturnProof == "user jane says that node n2 is powered off"
			lost := s.Decision == v1alpha1.Commit && s.Lost && s.Epoch == 2 && s.LostMessage == "user jane says that node n2 is powered off"
			if aborted != c.word.abort || returned != c.word.back || lost != c.word.forget || s.Timeline[0].By != "user jane" || !strings.HasPrefix(out.String(), "decided: ") {
				t.Errorf("the record is %+v", s)
			}
			// Whoever acts on what was shown before is refused.
			if err := tool.force(t.Context(), k, before.DeepCopy(), c.ends, c.word); err == nil || !strings.Contains(err.Error(), "nothing was decided") {
				t.Errorf("decided again on an old record: %v", err)
			}
		})
	}
}

func TestResolveFlags(t *testing.T) {
	for _, c := range []struct {
		word  word
		named bool
		says  string
	}{
		{word{}, false, ""}, {word{}, true, ""}, {word{abort: true}, true, ""}, {word{back: true, off: "n2"}, true, ""},
		{word{abort: true}, false, "name the PodMigration"},
		{word{abort: true, back: true, off: "n2"}, true, "exclude"},
		{word{back: true}, true, "two copies"}, {word{forget: true}, true, "two copies"}, {word{forget: true, off: "n2"}, true, ""},
		{word{back: true, forget: true, off: "n2"}, true, "exclude"},
		{word{abort: true, off: "n2"}, true, "--return"}, {word{off: "n2"}, true, "--return"},
	} {
		err := c.word.validate(c.named)
		if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, errUsage) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v, want %q", c.word, err, c.says)
		}
	}
}

func TestResolveShowsBothEnds(t *testing.T) {
	now := t0
	ends := []end{
		{node: "n1", role: migrate.RoleSource, found: &migrate.Found{Node: "n1", Role: migrate.RoleSource, Driven: true, Alive: true, Frozen: true, Fence: 2, HeldSince: now.Add(-time.Minute)}},
		{node: "n2", role: migrate.RoleTarget, err: errors.New("no route\nto host")},
	}
	m := record(commit)
	m.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionHeld, Status: "True", LastTransitionTime: metav1.NewTime(now.Add(-90 * time.Second)), Message: "waits for n2"}}
	for _, c := range []struct {
		change func(*v1alpha1.PodMigration)
		want   []string
		not    string
	}{
		{func(*v1alpha1.PodMigration) {}, []string{
			"the record    epoch 2, committed by target n2, a create waits on the target, the source has offered",
			"held          for 1m30s: waits for n2", "source        on n1: processes, frozen, held for 1m0s, a fence of epoch 2\n",
			"target        on n2: not known: no route; to host", "--return", "--i-am-sure-node-is-off n2", "two copies",
		}, "--abort"},
		{func(m *v1alpha1.PodMigration) { m.Status.Decision = "" }, []string{"undecided", "--abort", "No risk"}, "--return"},
		{func(m *v1alpha1.PodMigration) { m.Status.Target.Starting = true }, []string{"the copy was about to run", "--forget", "memory of pod web is lost"}, "--return"},
		{func(m *v1alpha1.PodMigration) { m.Status.Target.Resumed = true }, []string{"it runs on node n2"}, "--"},
		{func(m *v1alpha1.PodMigration) { m.Status.Decision = v1alpha1.Abort }, []string{"carry out what the record says"}, "--"},
		{func(m *v1alpha1.PodMigration) {
			m.Status.Conditions = append(m.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionComplete, Status: "True"})
		}, []string{"the move has ended"}, "--"},
	} {
		var out bytes.Buffer
		is := m.DeepCopy()
		c.change(is)
		printMove(&out, is, ends, now)
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("lacks %q:\n%s", want, out.String())
			}
		}
		if strings.Contains(out.String(), c.not) {
			t.Errorf("says %q:\n%s", c.not, out.String())
		}
	}
	var out bytes.Buffer
	printUnfinished(&out, "shop", []v1alpha1.PodMigration{*m}, now)
	if !strings.Contains(out.String(), "1m30s") || !strings.Contains(out.String(), "waits for n2") {
		t.Errorf("the list is\n%s", out.String())
	}
	out.Reset()
	m.Status.Conditions = append(m.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionComplete, Status: metav1.ConditionTrue})
	if printUnfinished(&out, "shop", []v1alpha1.PodMigration{*m}, now); out.String() != "every move in namespace shop has ended\n" {
		t.Errorf("the list is\n%s", out.String())
	}
}
