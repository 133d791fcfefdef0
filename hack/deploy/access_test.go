package deploy

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/drover-project/drover/api/v1alpha1"
)

// access is an API server with the chart's policies and roles, and nobody bound but who a
// test binds.
type access struct {
	t      *testing.T
	config *rest.Config
	scheme *runtime.Scheme
	admin  client.Client
}

func newAccess(t *testing.T) *access {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set: no kube-apiserver to test with")
	}
	env := &envtest.Environment{CRDDirectoryPaths: []string{"../../manifests/drover/crds"}}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { env.Stop() })
	a := &access{t: t, config: config, scheme: runtime.NewScheme()}
	clientgoscheme.AddToScheme(a.scheme)
	v1alpha1.AddToScheme(a.scheme)
	if a.admin, err = client.New(config, client.Options{Scheme: a.scheme}); err != nil {
		t.Fatal(err)
	}
	m, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(m, "\n---") {
		var kind metav1.TypeMeta
		yaml.Unmarshal([]byte(doc), &kind)
		var o client.Object
		switch kind.Kind {
		case "ValidatingAdmissionPolicy":
			o = &admissionv1.ValidatingAdmissionPolicy{}
		case "ValidatingAdmissionPolicyBinding":
			o = &admissionv1.ValidatingAdmissionPolicyBinding{}
		case "ClusterRole":
			o = &rbacv1.ClusterRole{}
		default:
			continue
		}
		if err := yaml.Unmarshal([]byte(doc), o); err != nil {
			t.Fatal(err)
		}
		a.create(o)
	}
	return a
}

func (a *access) create(o client.Object) {
	a.t.Helper()
	if err := a.admin.Create(context.Background(), o); err != nil {
		a.t.Fatal(err)
	}
}

// user is a client as that user with these ClusterRoles in the namespace "default".
func (a *access) user(name string, roles ...string) client.Client {
	a.t.Helper()
	for _, role := range roles {
		a.create(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(name+"-"+role, ":", "-")},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}})
	}
	c := rest.CopyConfig(a.config)
	c.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:authenticated"},
		Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"n1"}}}
	k, err := client.New(c, client.Options{Scheme: a.scheme})
	if err != nil {
		a.t.Fatal(err)
	}
	return k
}

func wish(name, pod, to string) *v1alpha1.PodMigration {
	return &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1alpha1.PodMigrationSpec{PodName: pod, TargetNode: to}}
}

func TestMovingIsAVerb(t *testing.T) {
	a, ctx := newAccess(t), context.Background()
	rule := func(name string, rules ...rbacv1.PolicyRule) string {
		a.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules})
		return name
	}
	wishes := rbacv1.PolicyRule{APIGroups: []string{"drover.dev"}, Resources: []string{"podmigrations"}, Verbs: []string{"create"}}
	onlyWishes := rule("wishes", wishes)
	one := rule("one-pod", wishes, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, ResourceNames: []string{"mine"}, Verbs: []string{"migrate"}})
	lacking := a.user("lacking", onlyWishes)
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return lacking.Create(ctx, wish("probe", "p", ""), client.DryRunAll) != nil, nil
	})
	if err != nil {
		t.Fatal("the policy does not come into force:", err)
	}
	ordered := wish("g", "p", "n2")
	ordered.Annotations = map[string]string{v1alpha1.AnnotationOrderedBy: "n1"}
	for _, c := range []struct {
		name string
		who  client.Client
		wish *v1alpha1.PodMigration
		says string // empty: allowed
	}{
		{"the role", a.user("mover", "drover-migrate"), wish("a", "p", ""), ""},
		{"no verb", lacking, wish("b", "p", ""), `user "lacking" may not move the pod "p" in the namespace "default": the verb "migrate" on pods is missing`},
		{"one pod", a.user("owner", one), wish("c", "mine", ""), ""},
		{"another pod", a.user("owner2", one), wish("d", "yours", ""), `may not move the pod "yours"`},
		{"who may see", a.user("viewer", "drover-view"), wish("e", "p", ""), "cannot create"},
		{"who may resolve", a.user("resolver", "drover-resolve"), wish("f", "p", ""), "cannot create"},
		{"an agent, away", a.user("system:serviceaccount:"+Namespace+":drover-agent", "drover-agent"), ordered, ""},
		{"an administrator", a.admin, wish("h", "p", ""), ""},
	} {
		err := c.who.Create(ctx, c.wish)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
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
	a, ctx := newAccess(t), context.Background()
	a.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "writes"}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"drover.dev"}, Resources: []string{"podmigrations", "podmigrations/status"}, Verbs: []string{"get", "update"}}}})
	jane, lacking := a.user("jane", "drover-resolve"), a.user("lacking", "writes")
	agent := a.user("system:serviceaccount:"+Namespace+":drover-agent", "drover-agent")
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
	probe := wish("probe", "p", "")
	a.create(probe)
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		x := probe.DeepCopy()
		x.Status.Phase = v1alpha1.PhasePending
		return lacking.Status().Update(ctx, x, client.DryRunAll) != nil, nil
	})
	if err != nil {
		t.Fatal("the policy does not come into force:", err)
	}
	for i, c := range []struct {
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
		m := wish("m"+string(rune('a'+i)), "p", "")
		a.create(m)
		m.Status = *c.from.DeepCopy()
		if err := a.admin.Status().Update(ctx, m); err != nil {
			t.Fatal(err)
		}
		c.do(&m.Status)
		err := c.who.Status().Update(ctx, m)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
	}
}
