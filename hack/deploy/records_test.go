package deploy

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/drover-project/drover/api/v1alpha1"
)

func TestRecordsPolicy(t *testing.T) {
	ctx := context.Background()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set: no kube-apiserver to test with")
	}
	env := &envtest.Environment{CRDDirectoryPaths: []string{"../../manifests/drover/crds"}}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer env.Stop()
	s := runtime.NewScheme()
	clientgoscheme.AddToScheme(s)
	v1alpha1.AddToScheme(s)
	as := func(user, node string, groups ...string) client.Client {
		c := rest.CopyConfig(config)
		c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
		if node != "" {
			c.Impersonate.Extra = map[string][]string{"authentication.kubernetes.io/node-name": {node}}
		}
		k, err := client.New(c, client.Options{Scheme: s})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	admin, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "all"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:authenticated"}}}); err != nil {
		t.Fatal(err)
	}
	m, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, doc := range strings.Split(m, "\n---") {
		var kind metav1.TypeMeta
		yaml.Unmarshal([]byte(doc), &kind)
		var o client.Object
		switch kind.Kind {
		case "ValidatingAdmissionPolicy":
			o = &admissionv1.ValidatingAdmissionPolicy{}
		case "ValidatingAdmissionPolicyBinding":
			o = &admissionv1.ValidatingAdmissionPolicyBinding{}
		default:
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
			t.Fatal(err)
		}
		if err := admin.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n == 0 || n%2 != 0 {
		t.Fatalf("%d policies and bindings: want as many of either", n)
	}
	sa := "system:serviceaccount:" + Namespace + ":drover-"
	controller, tenant := as(sa+"controller", "", "system:serviceaccounts"), as("tenant", "")
	src, dst, other := as(sa+"agent", "n1"), as(sa+"agent", "n2"), as(sa+"agent", "n3")
	unbound := as(sa+"agent", "")
	pm := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}, Spec: v1alpha1.PodMigrationSpec{PodName: "p"}}
	if err := tenant.Create(ctx, pm); err != nil {
		t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		x := pm.DeepCopy()
		x.Status.Phase = "Pending"
		return tenant.Status().Update(ctx, x, client.DryRunAll) != nil, nil
	})
	if err != nil {
		t.Fatal("the policy does not come into force:", err)
	}
	type st = v1alpha1.PodMigrationStatus
	at := metav1.NowMicro()
	for _, c := range []struct {
		what string
		who  client.Client
		do   func(*st)
		says string
	}{
		{"tenant forges", tenant, func(s *st) { s.Epoch = 1 }, "who resolves a move"},
		{"agent writes a fresh record", src, func(s *st) { s.Source.Node = "n1"; s.Epoch = 1 }, "its own node"},
		{"controller accepts", controller, func(s *st) {
			s.Epoch = 2
			s.Source = v1alpha1.SourceStatus{Node: "n1", PodName: "p", PodUID: "u1", Containers: []v1alpha1.MovingContainer{{Name: "c", ID: "c1"}}, Origin: "u1", BootID: "b1"}
			s.Target.PodName = "p-dm2"
			s.Phase = "Reserving"
			s.Conditions = []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", LastTransitionTime: metav1.Now()}}
			s.Timeline = []v1alpha1.TimelineEntry{{Step: "Accepted", By: "controller", At: at}}
		}, ""},
		{"controller binds", controller, func(s *st) { s.Target.Node, s.Target.PodUID = "n2", "u2" }, ""},
		{"third agent aborts", other, func(s *st) { s.Decision = "Abort" }, "its own node"},
		{"unbound token", unbound, func(s *st) { s.Decision = "Abort" }, "its own node"},
		{"target waits", dst, func(s *st) {
			s.Target.Waiting, s.Target.BootID, s.Target.Deadline = true, "b2", &at
			s.Phase = "Transferring"
			s.Timeline = append(s.Timeline, v1alpha1.TimelineEntry{Step: "CreateWaiting", By: "n2", At: at})
		}, ""},
		{"target offers for the source", dst, func(s *st) { s.Source.Offered = true }, "source's progress"},
		{"source swaps the container", src, func(s *st) { s.Source.Containers = []v1alpha1.MovingContainer{{Name: "c", ID: "victim"}} }, "drover-controller alone"},
		{"source swaps the origin", src, func(s *st) { s.Source.Origin = "victim" }, "drover-controller alone"},
		{"source redirects", src, func(s *st) { s.Target.Node = "n3" }, "drover-controller alone"},
		{"source waits for the target", src, func(s *st) { s.Target.Failed = true }, "target's progress"},
		{"source writes what it found in the processes", src, func(s *st) {
			s.Conditions = append(s.Conditions, metav1.Condition{Type: "Movable", Status: "True", Reason: "Examined", LastTransitionTime: metav1.Now()})
		}, ""},
		{"source writes what it found in another's name", src, func(s *st) {
			s.Conditions = append(s.Conditions, metav1.Condition{Type: "Held", Status: "True", Reason: "X", LastTransitionTime: metav1.Now()})
		}, "drover-controller alone"},
		{"source takes the acceptance back", src, func(s *st) { s.Conditions = s.Conditions[1:] }, "drover-controller alone"},
		{"source offers", src, func(s *st) { s.Source.Offered = true; s.Bytes = 7; s.Phase = "Restoring" }, ""},
		{"source commits", src, func(s *st) { s.Decision = "Commit" }, "target's node commits"},
		{"target commits", dst, func(s *st) {
			s.Decision, s.DecisionBy, s.DecidedAt, s.Phase = "Commit", "target n2", &at, "Committed"
		}, ""},
		{"target calls it rejected", dst, func(s *st) { s.Phase = "Rejected" }, "phases in which agents work"},
		{"source says that it decided", src, func(s *st) { s.DecisionBy = "source n1" }, "own node's name"},
		{"target decided long ago", dst, func(s *st) { early := metav1.NewMicroTime(at.Add(-time.Hour)); s.DecidedAt = &early }, "own node's name"},
		{"target returns it", dst, func(s *st) { s.Returned, s.Epoch = true, 3 }, "takes a pod back"},
		{"target raises the epoch", dst, func(s *st) { s.Epoch = 9 }, "takes a pod back"},
		{"source says starting", src, func(s *st) { s.Target.Starting = true }, "target's progress"},
		{"target starts", dst, func(s *st) { s.Target.Starting = true }, ""},
		{"source says resumed", src, func(s *st) { s.Target.Resumed = true }, "target's progress"},
		{"target gives it up", dst, func(s *st) { s.Lost = true }, "gives it up"},
		{"target resumed", dst, func(s *st) { s.Target.Resumed = true }, ""},
		{"agent hands over", dst, func(s *st) { s.HandedOver = true }, "drover-controller alone"},
		{"agent completes", dst, func(s *st) {
			s.Conditions = append(s.Conditions, metav1.Condition{Type: "Complete", Status: "True", Reason: "X", LastTransitionTime: metav1.Now()})
		}, "drover-controller alone"},
		{"source ended", src, func(s *st) { s.Source.Ended, s.FrozenTime = true, &metav1.Duration{Duration: time.Second} }, ""},
		{"controller hands over", controller, func(s *st) { s.HandedOver = true }, ""},
		{"master mends", admin, func(s *st) { s.Phase = "Completed" }, ""},
	} {
		now := &v1alpha1.PodMigration{}
		if err := admin.Get(ctx, client.ObjectKeyFromObject(pm), now); err != nil {
			t.Fatal(err)
		}
		c.do(&now.Status)
		err := c.who.Status().Update(ctx, now)
		if (c.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
	}
	// A return, by the source.
	now := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "r"}, Spec: v1alpha1.PodMigrationSpec{PodName: "p"}}
	if err := tenant.Create(ctx, now); err != nil {
		t.Fatal(err)
	}
	now.Status = st{Epoch: 2, Decision: "Commit", Source: v1alpha1.SourceStatus{Node: "n1", PodUID: "u", Offered: true}, Target: v1alpha1.TargetStatus{Node: "n2", PodUID: "v"}}
	if err := controller.Status().Update(ctx, now); err != nil {
		t.Fatal(err)
	}
	now.Status.Returned, now.Status.Epoch, now.Status.ReturnProof = true, 3, "booted"
	if err := src.Status().Update(ctx, now); err != nil {
		t.Error("return by the source:", err)
	}
	fin := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "f"}, Spec: v1alpha1.PodMigrationSpec{PodName: "p"}}
	if err := tenant.Create(ctx, fin); err != nil {
		t.Fatal(err)
	}
	fin.Labels = map[string]string{"a": "b"}
	if err := tenant.Update(ctx, fin); err != nil {
		t.Error("no finalizer yet, a label:", err)
	}
	fin.Finalizers = []string{"x.io/other", v1alpha1.Finalizer}
	if err := controller.Update(ctx, fin); err != nil {
		t.Error(err)
	}
	fin.Finalizers = []string{v1alpha1.Finalizer}
	if err := tenant.Update(ctx, fin); err != nil {
		t.Error("another finalizer:", err)
	}
	strip := func(as client.Client) error {
		x := &v1alpha1.PodMigration{}
		if err := admin.Get(ctx, client.ObjectKeyFromObject(fin), x); err != nil {
			t.Fatal(err)
		}
		x.Finalizers = nil
		return as.Update(ctx, x)
	}
	if err := strip(tenant); err == nil || !strings.Contains(err.Error(), "takes off the finalizer") {
		t.Error("stripped:", err)
	}
	if err := tenant.Delete(ctx, fin); err != nil {
		t.Error(err)
	}
	if err := strip(tenant); err == nil || !strings.Contains(err.Error(), "takes off the finalizer") {
		t.Error("stripped while being deleted:", err)
	}
	if err := strip(controller); err != nil {
		t.Error(err)
	}
	order := func(as client.Client, name, to string) error {
		return as.Create(ctx, &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name,
			Annotations: map[string]string{v1alpha1.AnnotationOrderedBy: "n1"}}, Spec: v1alpha1.PodMigrationSpec{PodName: "p", TargetNode: to}})
	}
	for name, err := range map[string]error{"away": order(src, "o1", "n2"), "a user's": order(tenant, "o2", ""), "a user's to a node": order(tenant, "o3", "n1"), "controller": order(controller, "o4", "")} {
		if err != nil {
			t.Error(name, err)
		}
	}
	for name, err := range map[string]error{"to itself": order(src, "x1", "n1"), "to anywhere": order(src, "x2", ""), "unbound": order(unbound, "x3", "n2")} {
		if err == nil || !strings.Contains(err.Error(), "not its own") {
			t.Error(name, err)
		}
	}
	if err := admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}); err != nil {
		t.Fatal(err)
	}
	pod := func(name string, labels, annotations map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels, Annotations: annotations},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	}
	type mm = map[string]string
	plain := pod("plain", nil, mm{"drover.dev/migrate": "true", "drover.dev/peers": "app=db", "x": "y"})
	if err := tenant.Create(ctx, plain); err != nil {
		t.Error("a pod that opts in:", err)
	}
	if err := tenant.Create(ctx, pod("bare", nil, nil)); err != nil {
		t.Error("a pod without anything:", err)
	}
	for _, k := range []string{"migration", "migrating-from", "epoch", "origin", "moving", "pinned", "hand-over", "deletion-cost"} {
		if err := tenant.Create(ctx, pod("a-"+k, nil, mm{"drover.dev/" + k: "1"})); err == nil || !strings.Contains(err.Error(), "drover-controller's") {
			t.Error(k, err)
		}
	}
	if err := tenant.Create(ctx, pod("l", mm{"drover.dev/replacement": "u"}, nil)); err == nil || !strings.Contains(err.Error(), "the label") {
		t.Error("label", err)
	}
	made := pod("made", mm{"drover.dev/replacement": "u"}, mm{"drover.dev/migration": "m", "drover.dev/origin": "o", "drover.dev/epoch": "2"})
	if err := controller.Create(ctx, made); err != nil {
		t.Error("the controller's:", err)
	}
	patch := func(as client.Client, o client.Object, p string) error {
		return as.Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(p)))
	}
	for p, ok := range map[string]bool{
		`{"metadata":{"annotations":{"drover.dev/migrate":"false"},"labels":{"app":"web"}}}`: true,
		`{"metadata":{"annotations":{"drover.dev/origin":"victim"}}}`:                        false,
		`{"metadata":{"annotations":{"drover.dev/epoch":null}}}`:                             false,
		`{"metadata":{"labels":{"drover.dev/replacement":null}}}`:                            false,
	} {
		if err := patch(tenant, made, p); ok != (err == nil) {
			t.Error(p, err)
		}
	}
	if err := admin.SubResource("binding").Create(ctx, made, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n2"}}); err != nil {
		t.Error("bind", err)
	}
	if err := tenant.Get(ctx, client.ObjectKeyFromObject(made), made); err != nil {
		t.Fatal(err)
	}
	made.Status.Phase = corev1.PodRunning
	if err := tenant.Status().Update(ctx, made); err != nil {
		t.Error("a kubelet's status:", err)
	}
	made.Annotations["drover.dev/origin"] = "victim"
	if err := tenant.Status().Update(ctx, made); err == nil || !strings.Contains(err.Error(), "drover-controller's") {
		t.Error("by way of the status:", err)
	}
	if err := patch(controller, made, `{"metadata":{"annotations":{"drover.dev/hand-over":null},"labels":{"drover.dev/replacement":null}}}`); err != nil {
		t.Error("hand-over:", err)
	}
	if err := patch(controller, plain, `{"metadata":{"annotations":{"drover.dev/moving":"m/u","drover.dev/epoch":"4"}}}`); err != nil {
		t.Error("claim:", err)
	}
	if err := tenant.Delete(ctx, plain); err != nil {
		t.Error(err)
	}
	pol := &admissionv1.ValidatingAdmissionPolicy{}
	admin.Get(ctx, client.ObjectKey{Name: "drover-records"}, pol)
	t.Logf("type checking: %+v", pol.Status)
}
