package controller_test

import (
	"context"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

const pauseImage = "registry.k8s.io/pause:3.10@sha256:ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a"

// A move with its connections against a real API server: what the source loses and is given, while
// its address is leased, is allowed by it; and when the time is over, the source goes.
func TestLeaseWithRealServer(t *testing.T) {
	admin, config := api(t)
	for _, o := range cluster() {
		create(t, admin, o)
	}
	ctx := context.Background()
	byApp := map[string]string{"app": "keeper"}
	for _, o := range []client.Object{
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "keeper"}, Spec: corev1.ServiceSpec{Selector: byApp, Ports: []corev1.ServicePort{{Port: 80}}}},
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "keeper"},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front"}}}},
	} {
		create(t, admin, o)
	}
	source := bare(ns, "keeper", map[string]string{v1alpha1.AnnotationKeepConnections: "1s"})
	source.Labels["tier"] = "front"
	source.Spec.Containers = append(source.Spec.Containers, corev1.Container{Name: "second", Image: "web:1", Command: []string{"/bin/web"}})
	always := corev1.ContainerRestartPolicyAlways
	source.Spec.InitContainers = []corev1.Container{{Name: "first", Image: "init:1"}, {Name: "beside", Image: "proxy:1", RestartPolicy: &always}}
	second := source.Status.ContainerStatuses[0]
	second.Name = "second"
	beside := second
	beside.Name = "beside"
	source.Status.InitContainerStatuses = []corev1.ContainerStatus{beside}
	source.Status.ContainerStatuses = append(source.Status.ContainerStatuses, second)
	source.Status.PodIPs, source.Status.PodIP = []corev1.PodIP{{IP: "10.0.1.5"}}, "10.0.1.5"
	create(t, admin, source)
	runController(t, config)
	m := moved(t, admin, source, "its replacement is there", func(m *v1alpha1.PodMigration) bool { return m.Status.Target.PodUID != "" })
	if c := m.Status.Connections; c == nil || c.State != v1alpha1.ConnectionsProbing || !slices.Equal(c.OldAddresses, []string{"10.0.1.5"}) || c.HolderImage != pauseImage || c.KeepFor.Duration != time.Second {
		t.Fatalf("connections %+v, want them probed", c)
	}
	replacement := &corev1.Pod{}
	get(t, admin, m.Status.Target.PodName, replacement)
	if err := admin.SubResource("binding").Create(ctx, replacement, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n2"}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the node is written down", func() bool {
		get(t, admin, m.Name, m)
		return m.Status.Target.Node == "n2"
	})
	at := metav1.NowMicro()
	for _, say := range []func(){
		func() { m.Status.Target.Waiting = true },
		func() {
			m.Status.Connections.State, m.Status.Connections.NewAddress = v1alpha1.ConnectionsKept, "10.0.2.9"
		},
		func() { m.Status.Source.Offered = true },
		func() {
			m.Status.Decision, m.Status.DecisionBy, m.Status.DecidedAt = v1alpha1.Commit, "target n2", &at
		},
		func() { m.Status.Target.Starting = true },
		func() { m.Status.Target.Resumed = true },
		func() { m.Status.Source.Ended = true },
	} {
		until(t, "the agents have written", func() bool {
			get(t, admin, m.Name, m)
			say()
			return admin.Status().Update(ctx, m) == nil
		})
	}
	get(t, admin, replacement.Name, replacement)
	replacement.Status = runningPod(ns, "", "n2").Status
	if err := admin.Status().Update(ctx, replacement); err != nil {
		t.Fatal(err)
	}
	until(t, "the source is let go and quiet", func() bool {
		get(t, admin, source.Name, source)
		return !slices.ContainsFunc(source.Spec.Containers, func(c corev1.Container) bool { return c.Image != pauseImage })
	})
	if _, has := source.Labels["app"]; has || source.Labels["tier"] != "front" || source.Labels[v1alpha1.LabelLease] != string(m.UID) || !metav1.IsControlledBy(source, m) {
		t.Errorf("the source: labels %v, owners %v", source.Labels, source.OwnerReferences)
	}
	if i := source.Spec.InitContainers; i[0].Image != "init:1" || i[1].Image != pauseImage {
		t.Errorf("init containers %+v: want the sidecar's image changed alone", i)
	}
	if source.Spec.Containers[1].Command[0] != "/bin/web" {
		t.Errorf("containers %+v: more than the image was changed", source.Spec.Containers)
	}
	until(t, "the move is complete", func() bool {
		get(t, admin, m.Name, m)
		return v1alpha1.Finished(m)
	})
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAddressLeased); m.Status.Phase != v1alpha1.PhaseCompleted || !m.Status.HandedOver || c == nil {
		t.Fatalf("phase %s, condition %+v", m.Status.Phase, c)
	}
	until(t, "the lease is over and the source gone", func() bool {
		get(t, admin, m.Name, m)
		return len(m.Finalizers) == 0
	})
	if c := m.Status.Connections; !c.LeaseEnded || c.LeaseReason != v1alpha1.ReasonLeaseOver {
		t.Errorf("connections %+v", c)
	}
	if err := admin.Get(ctx, client.ObjectKeyFromObject(source), &corev1.Pod{}); !apierrors.IsNotFound(err) {
		t.Errorf("the source pod: %v, want not found", err)
	}
	get(t, admin, replacement.Name, replacement)
	if replacement.Labels["app"] != "keeper" || replacement.Labels[v1alpha1.LabelLease] != "" {
		t.Errorf("the replacement has labels %v", replacement.Labels)
	}
}
