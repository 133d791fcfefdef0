package deploy

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

func TestRecordsPolicy(t *testing.T) {
	c := newCluster(t)
	ctx, admin := t.Context(), c.admin
	controller, tenant := c.program("drover-controller", ""), c.user("tenant", "cluster-admin")
	src, dst, other := c.program("drover-agent", "n1"), c.program("drover-agent", "n2"), c.program("drover-agent", "n3")
	unbound := c.program("drover-agent", "")
	pm := c.wish("m", "p", "")
	if err := tenant.Create(ctx, pm); err != nil {
		t.Fatal(err)
	}
	c.until("the policy does not come into force", func(ctx context.Context) bool {
		x := pm.DeepCopy()
		x.Status.Phase = "Pending"
		return tenant.Status().Update(ctx, x, client.DryRunAll) != nil
	})
	type st = v1alpha1.PodMigrationStatus
	at := metav1.NowMicro()
	for _, x := range []struct {
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
		{"source tells how far it is", src, func(s *st) {
			s.Transfer = &v1alpha1.TransferStatus{SentBytes: 1, TimeLeft: &metav1.Duration{Duration: time.Second}}
		}, ""},
		{"source ended", src, func(s *st) { s.Source.Ended, s.FrozenTime = true, &metav1.Duration{Duration: time.Second} }, ""},
		{"controller hands over", controller, func(s *st) { s.HandedOver = true }, ""},
		{"master mends", admin, func(s *st) { s.Phase = "Completed" }, ""},
	} {
		now := &v1alpha1.PodMigration{}
		if err := admin.Get(ctx, client.ObjectKeyFromObject(pm), now); err != nil {
			t.Fatal(err)
		}
		x.do(&now.Status)
		err := x.who.Status().Update(ctx, now)
		if (x.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want %q", x.what, err, x.says)
		}
	}
	// A return, by the source.
	now := c.wish("r", "p", "")
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
	fin := c.wish("f", "p", "")
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
		return as.Create(ctx, &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: name,
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
	pod := func(name string, labels, annotations map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: name, Labels: labels, Annotations: annotations},
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
	for _, k := range []string{"replacement", "lease"} {
		if err := tenant.Create(ctx, pod("l-"+k, mm{"drover.dev/" + k: "u"}, nil)); err == nil || !strings.Contains(err.Error(), "the labels") {
			t.Error("label", k, err)
		}
	}
	made := pod("made", mm{"drover.dev/replacement": "u", "drover.dev/lease": "u"}, mm{"drover.dev/migration": "m", "drover.dev/origin": "o", "drover.dev/epoch": "2"})
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
		`{"metadata":{"labels":{"drover.dev/lease":null}}}`:                                  false,
		`{"metadata":{"annotations":{"drover.dev/keep-connections":"10m"}}}`:                 true,
	} {
		if err := patch(tenant, made, p); ok != (err == nil) {
			t.Error(p, err)
		}
	}
	binding := func(annotations, labels mm) *corev1.Binding {
		return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: made.Name, Annotations: annotations, Labels: labels},
			Target: corev1.ObjectReference{Kind: "Node", Name: "n2"}}
	}
	// A binding's annotations become the pod's.
	for way, bind := range map[string]func(*corev1.Binding) error{
		"pods/binding": func(b *corev1.Binding) error { return tenant.SubResource("binding").Create(ctx, made, b) },
		"bindings":     func(b *corev1.Binding) error { return tenant.Create(ctx, b) },
	} {
		for mark, b := range map[string]*corev1.Binding{
			"origin": binding(mm{"drover.dev/origin": "victim"}, nil), "epoch": binding(mm{"drover.dev/epoch": "9"}, nil), "label": binding(nil, mm{"drover.dev/replacement": "v"}),
		} {
			if err := bind(b); err == nil || !strings.Contains(err.Error(), "drover-controller's") {
				t.Errorf("%s with the mark %s: %v", way, mark, err)
			}
		}
	}
	if err := tenant.SubResource("binding").Create(ctx, made, binding(mm{"x": "y"}, nil)); err != nil {
		t.Error("a scheduler binds:", err)
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
}
