package controller_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/controller"
)

// These tests need a kube-apiserver and an etcd, without nodes: KUBEBUILDER_ASSETS names
// the directory that holds both.
const assets = "KUBEBUILDER_ASSETS"

const (
	ns     = "default"
	system = "drover-system"
	bound  = time.Minute
)

// api starts an API server with the CRD and gives an administrator's client and the
// configuration of a user that has the roles below and no others.
func api(t *testing.T) (client.Client, *rest.Config) {
	t.Helper()
	if os.Getenv(assets) == "" {
		t.Skipf("%s is not set: no kube-apiserver to test with", assets)
	}
	env := &envtest.Environment{CRDDirectoryPaths: []string{"../manifests/drover/crds"}, ErrorIfCRDPathMissing: true}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	admin, err := client.New(config, client.Options{Scheme: scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	user, err := env.AddUser(envtest.User{Name: "drover-controller"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	create(t, admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}})
	create(t, admin, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.RuntimeClassName}, Handler: "drover"})
	for _, o := range roles() {
		create(t, admin, o)
	}
	return admin, user.Config()
}

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func rule(group, resource, verbs string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		APIGroups: []string{group}, Resources: strings.Fields(resource), Verbs: strings.Fields(verbs), ResourceNames: names,
	}
}

// roles are all that the controller needs, without the signing of certificates.
func roles() []client.Object {
	to := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "drover-controller"}}
	name := metav1.ObjectMeta{Name: "drover-controller"}
	local := metav1.ObjectMeta{Name: "drover-controller", Namespace: system}
	return []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: name, Rules: []rbacv1.PolicyRule{
			rule("", "pods", "get list watch create patch delete"),
			rule("", "nodes persistentvolumeclaims", "get"),
			rule("", "events", "create patch"),
			rule("apps", "replicasets deployments statefulsets", "get"),
			rule("apps", "replicasets/finalizers statefulsets/finalizers", "update"),
			rule("apps", "replicasets statefulsets daemonsets", "list"),
			rule("batch", "jobs", "list"),
			rule("", "replicationcontrollers services", "list"),
			rule("networking.k8s.io", "networkpolicies", "list"),
			rule("batch", "jobs", "get"),
			rule("batch", "jobs/finalizers", "update"),
			rule("policy", "poddisruptionbudgets", "get list"),
			rule("policy", "poddisruptionbudgets/status", "update"),
			rule("drover.dev", "podmigrations", "get list watch create update delete"),
			rule("drover.dev", "podmigrations/status", "update"),
		}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: name, Subjects: to, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name.Name}},
		&rbacv1.Role{ObjectMeta: local, Rules: []rbacv1.PolicyRule{
			rule("", "configmaps", "get", v1alpha1.PauseConfigMap),
			rule("", "configmaps", "get update", v1alpha1.HoldsConfigMap),
			rule("coordination.k8s.io", "leases", "get create update"),
		}},
		&rbacv1.RoleBinding{ObjectMeta: local, Subjects: to, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: local.Name}},
	}
}

// create creates an object with its status, which a plain creation drops.
func create(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	full := o.DeepCopyObject().(client.Object)
	if err := c.Create(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	switch o.(type) {
	case *corev1.Pod, *corev1.Node, *appsv1.Deployment:
		full.SetResourceVersion(o.GetResourceVersion())
		full.SetUID(o.GetUID())
		if err := c.Status().Update(context.Background(), full); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordsRules(t *testing.T) {
	admin, _ := api(t)
	ctx := context.Background()
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "m"}, Spec: v1alpha1.PodMigrationSpec{PodName: "p"}}
	create(t, admin, m)
	stale := m.DeepCopy()
	change := func(do func(*v1alpha1.PodMigration)) error {
		var now v1alpha1.PodMigration
		if err := admin.Get(ctx, client.ObjectKeyFromObject(m), &now); err != nil {
			t.Fatal(err)
		}
		do(&now)
		return admin.Status().Update(ctx, &now)
	}
	for _, c := range []struct {
		what string
		do   func(*v1alpha1.PodMigration)
		says string // empty: allowed
	}{
		{"commit before the offer", func(m *v1alpha1.PodMigration) { m.Status.Decision = v1alpha1.Commit }, "after its source has offered"},
		{"resume before the commit", func(m *v1alpha1.PodMigration) { m.Status.Target.Starting, m.Status.Target.Resumed = true, true }, "only after a commit"},
		{"start before the commit", func(m *v1alpha1.PodMigration) { m.Status.Target.Starting = true }, "only after a commit"},
		{"return before the commit", func(m *v1alpha1.PodMigration) { m.Status.Returned = true }, "only after a commit"},
		{"unknown decision", func(m *v1alpha1.PodMigration) { m.Status.Decision = "Maybe" }, "Unsupported value"},
		{"identity", func(m *v1alpha1.PodMigration) {
			m.Status.Epoch, m.Status.Source.PodUID, m.Status.Target.PodUID = 2, "s", "t"
			m.Status.Source.KeepUntilAdopted = true
		}, ""},
		{"epoch back", func(m *v1alpha1.PodMigration) { m.Status.Epoch = 1 }, "cannot go back"},
		{"another source", func(m *v1alpha1.PodMigration) { m.Status.Source.PodUID = "x" }, "source cannot be changed"},
		{"another replacement", func(m *v1alpha1.PodMigration) { m.Status.Target.PodUID = "x" }, "replacement cannot be changed"},
		{"not kept any more", func(m *v1alpha1.PodMigration) { m.Status.Source.KeepUntilAdopted = false }, "kept until it is adopted cannot be changed"},
		{"adopted before the resume", func(m *v1alpha1.PodMigration) { m.Status.Adopted = true }, "only after it has resumed"},
		{"offer", func(m *v1alpha1.PodMigration) { m.Status.Source.Offered = true }, ""},
		{"commit", func(m *v1alpha1.PodMigration) { m.Status.Decision = v1alpha1.Commit }, ""},
		{"abort after the commit", func(m *v1alpha1.PodMigration) { m.Status.Decision = v1alpha1.Abort }, "cannot be changed"},
		{"undecide", func(m *v1alpha1.PodMigration) { m.Status.Decision = v1alpha1.Undecided }, "cannot be changed"},
		{"an empty status", func(m *v1alpha1.PodMigration) { m.Status = v1alpha1.PodMigrationStatus{} }, "cannot be changed"},
		{"resume before the start", func(m *v1alpha1.PodMigration) { m.Status.Target.Resumed = true }, "starting before it resumes"},
		{"loss before the start", func(m *v1alpha1.PodMigration) { m.Status.Lost = true }, "only if its copy was starting"},
		{"start", func(m *v1alpha1.PodMigration) { m.Status.Target.Starting = true }, ""},
		{"start taken back", func(m *v1alpha1.PodMigration) { m.Status.Target.Starting = false }, "cannot be taken back"},
		{"return after the start", func(m *v1alpha1.PodMigration) { m.Status.Returned, m.Status.Epoch = true, 3 }, "only if its target says that it failed"},
		{"resume", func(m *v1alpha1.PodMigration) { m.Status.Target.Resumed = true }, ""},
		{"loss after the resume", func(m *v1alpha1.PodMigration) { m.Status.Lost = true }, "neither resumed nor returned"},
		{"end before the adoption", func(m *v1alpha1.PodMigration) { m.Status.Source.Ended = true }, "cannot end before"},
		{"adopt", func(m *v1alpha1.PodMigration) { m.Status.Adopted = true }, ""},
		{"adopt no more", func(m *v1alpha1.PodMigration) { m.Status.Adopted = false }, "cannot be taken back"},
		{"end", func(m *v1alpha1.PodMigration) { m.Status.Source.Ended = true }, ""},
		{"return after the resume", func(m *v1alpha1.PodMigration) { m.Status.Returned, m.Status.Epoch = true, 3 }, "cannot return"},
	} {
		switch err := change(c.do); {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, want a refusal that says %q", c.what, err, c.says)
		}
	}
	stale.Status.Phase = v1alpha1.PhaseAborted
	if err := admin.Status().Update(ctx, stale); !apierrors.IsConflict(err) {
		t.Errorf("a status based on an old record: %v, want a conflict", err)
	}
	gone := client.RawPatch(types.MergePatchType, []byte(`{"status":null}`))
	if err := admin.Status().Patch(ctx, m.DeepCopy(), gone); err == nil {
		t.Error("the record was taken away")
	}
	if err := admin.Patch(ctx, m.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"podName":"q"}}`))); err == nil {
		t.Error("the spec was changed")
	}
}

// What only moves with postCopy have, and when.
func TestPostCopyRules(t *testing.T) {
	admin, _ := api(t)
	ctx := t.Context()
	resumed := v1alpha1.PodMigrationStatus{Epoch: 2, Decision: v1alpha1.Commit, Source: v1alpha1.SourceStatus{PodUID: "s", Offered: true},
		Target: v1alpha1.TargetStatus{PodUID: "t", Waiting: true, Starting: true, Resumed: true}}
	committed := resumed
	committed.Target.Resumed = false
	type st = v1alpha1.PodMigrationStatus
	for i, c := range []struct {
		what     string
		postCopy bool
		from     st
		do       []func(*st) // all but the last are allowed
		says     string      // empty: allowed
	}{
		{"a source that ends before", true, resumed, []func(*st){func(s *st) { s.Source.Ended = true }}, "kept until all of the memory is loaded"},
		{"a hand-over before", true, resumed, []func(*st){func(s *st) { s.HandedOver = true }}, "kept until all of the memory is loaded"},
		{"one that is loaded", true, resumed, []func(*st){func(s *st) { s.Target.Loaded = true }, func(s *st) { s.Source.Ended = true }}, ""},
		{"one that is lost", true, committed, []func(*st){func(s *st) { s.Lost = true }, func(s *st) { s.Source.Ended = true }}, ""},
		{"loaded before it runs", true, committed, []func(*st){func(s *st) { s.Target.Loaded = true }}, "only after the copy has resumed"},
		{"loaded no more", true, resumed, []func(*st){func(s *st) { s.Target.Loaded = true }, func(s *st) { s.Target.Loaded = false }}, "cannot be taken back"},
		{"lost before the commit", true, st{Epoch: 2}, []func(*st){func(s *st) { s.Source.Forfeited = true }}, "only after a commit"},
		{"lost no more", true, committed, []func(*st){func(s *st) { s.Source.Forfeited = true }, func(s *st) { s.Source.Forfeited = false }}, "cannot be taken back"},
		{"loaded without postCopy", false, resumed, []func(*st){func(s *st) { s.Target.Loaded = true }}, "move with postCopy"},
		{"lost without postCopy", false, resumed, []func(*st){func(s *st) { s.Source.Forfeited = true }}, "move with postCopy"},
		{"a source that ends without postCopy", false, resumed, []func(*st){func(s *st) { s.Source.Ended = true }}, ""},
	} {
		m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "post-copy-" + strconv.Itoa(i)},
			Spec: v1alpha1.PodMigrationSpec{PodName: "p", PostCopy: c.postCopy}}
		create(t, admin, m)
		m.Status = *c.from.DeepCopy()
		err := admin.Status().Update(ctx, m)
		for n, do := range c.do {
			if err != nil {
				t.Fatalf("%s: step %d: %v", c.what, n, err)
			}
			do(&m.Status)
			err = admin.Status().Update(ctx, m)
		}
		if (c.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
	}
}

// One good move against a real API server by a user with the roles above alone; the
// scheduler, the kubelets and the agents are played.
func TestMoveWithRealServer(t *testing.T) {
	admin, config := api(t)
	for _, o := range cluster() {
		create(t, admin, o)
	}
	rs := &appsv1.ReplicaSet{}
	get(t, admin, "web-5d4", rs)
	source := runningPod(ns, "web-5d4-abcde", "n1")
	source.Labels = rs.Spec.Template.Labels
	source.Annotations = map[string]string{v1alpha1.AnnotationMigrate: "true"}
	source.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	source.Spec.RuntimeClassName = ptr(v1alpha1.RuntimeClassName)
	source.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.ScheduleAnyway,
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, MatchLabelKeys: []string{"pod-template-hash"},
	}}
	create(t, admin, source)

	runController(t, config)
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "m"}, Spec: v1alpha1.PodMigrationSpec{PodName: source.Name}}
	create(t, admin, m)
	until(t, "the replacement is there", func() bool {
		get(t, admin, "m", m)
		return m.Status.Target.PodUID != ""
	})
	replacement := &corev1.Pod{}
	get(t, admin, m.Status.Target.PodName, replacement)
	if err := admin.SubResource("binding").Create(context.Background(), replacement,
		&corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n2"}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the node is written down", func() bool {
		get(t, admin, "m", m)
		return m.Status.Target.Node == "n2" && m.Status.Phase == v1alpha1.PhasePreparing
	})
	at := metav1.NowMicro()
	for _, say := range []func(){
		func() { m.Status.Target.Waiting = true },
		func() { m.Status.Source.Offered = true },
		func() {
			m.Status.Decision, m.Status.DecisionBy, m.Status.DecidedAt = v1alpha1.Commit, "target n2", &at
		},
		func() { m.Status.Target.Starting = true },
		func() { m.Status.Target.Resumed = true },
		func() { m.Status.Source.Ended = true },
	} {
		until(t, "the agents have written", func() bool {
			get(t, admin, "m", m)
			say()
			return admin.Status().Update(context.Background(), m) == nil
		})
	}
	get(t, admin, replacement.Name, replacement)
	replacement.Status = runningPod(ns, "", "n2").Status
	if err := admin.Status().Update(context.Background(), replacement); err != nil {
		t.Fatal(err)
	}
	until(t, "the move has ended", func() bool {
		get(t, admin, "m", m)
		return v1alpha1.Finished(m) && len(m.Finalizers) == 0
	})
	if m.Status.Phase != v1alpha1.PhaseCompleted || !m.Status.HandedOver {
		t.Fatalf("phase %s, conditions %+v", m.Status.Phase, m.Status.Conditions)
	}
	get(t, admin, replacement.Name, replacement)
	if !metav1.IsControlledBy(replacement, rs) || replacement.Labels["app"] != "web" || replacement.Labels[v1alpha1.LabelReplacement] != "" {
		t.Errorf("labels %v, owners %v: not the owner's", replacement.Labels, replacement.OwnerReferences)
	}
	if c, has := replacement.Annotations[corev1.PodDeletionCost]; has {
		t.Errorf("the deletion cost %s was left", c)
	}
	err := admin.Get(context.Background(), client.ObjectKeyFromObject(source), &corev1.Pod{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the source pod: %v, want not found", err)
	}
	rejectedByServer(t, admin)
}

// rejectedByServer: a wish for a pod that does not exist.
func rejectedByServer(t *testing.T, admin client.Client) {
	t.Helper()
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "none"}, Spec: v1alpha1.PodMigrationSpec{PodName: "none"}}
	create(t, admin, m)
	until(t, "it is rejected", func() bool {
		get(t, admin, "none", m)
		return m.Status.Phase == v1alpha1.PhaseRejected
	})
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAccepted)
	if c == nil || c.Reason != controller.ReasonPodNotFound || len(m.Finalizers) != 0 {
		t.Errorf("condition %+v, finalizers %v", c, m.Finalizers)
	}
}

func runController(t *testing.T, config *rest.Config) {
	t.Helper()
	// controller-runtime takes one controller of a name, and its metrics, a process.
	metrics.Registry = prometheus.NewRegistry()
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Controller: ctrlconfig.Controller{SkipNameValidation: ptr(true)},
		Scheme:     scheme(t), Metrics: metricsserver.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "drover-controller", LeaderElectionNamespace: system,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := controller.Setup(mgr, controller.Config{Namespace: system, PauseImage: pauseImage}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the controller: %v", err)
		}
	})
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(context.Background(), 20*time.Millisecond, bound, true,
		func(context.Context) (bool, error) { return ok(), nil })
	if err != nil {
		t.Fatalf("%s: not within %s", what, bound)
	}
}

func get(t *testing.T, c client.Client, name string, o client.Object) {
	t.Helper()
	if err := c.Get(context.Background(), types.NamespacedName{Namespace: ns, Name: name}, o); err != nil {
		t.Fatal(err)
	}
}

func ptr[T any](v T) *T { return &v }
