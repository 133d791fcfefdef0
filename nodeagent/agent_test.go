package nodeagent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/decide"
)

const namespace = "drover-system"

// memory is a cache over a fake client; with fail set nothing can be read.
type memory struct {
	ctrlcache.Cache
	from client.Client
	fail error
}

func (m *memory) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if m.fail != nil {
		return m.fail
	}
	return m.from.Get(ctx, key, o, opts...)
}

func (m *memory) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	if m.fail != nil {
		return m.fail
	}
	return m.from.List(ctx, l, opts...)
}

func testAgent(t *testing.T, mode Mode, objects ...client.Object) (*agent, *memory, *record.FakeRecorder) {
	t.Helper()
	s, err := scheme()
	if err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(s).WithObjects(objects...).Build()
	m, events := &memory{from: c}, record.NewFakeRecorder(10)
	log := slog.New(slog.DiscardHandler)
	a := &agent{
		cfg: Config{Node: "n1", Namespace: namespace, Mode: mode, Log: log}, log: log, events: events,
		cluster: &cluster{node: "n1", namespace: namespace, cache: m, direct: c},
	}
	if _, err := a.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a, m, events
}

func pauseSwitch(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.PauseConfigMap}, Data: data}
}

var testContainer = strings.Repeat("ab", 32)

func testPod() *corev1.Pod {
	class := v1alpha1.RuntimeClassName
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u1", Annotations: map[string]string{v1alpha1.AnnotationMigrate: "true"}},
		Spec:       corev1.PodSpec{NodeName: "n1", RuntimeClassName: &class, Containers: []corev1.Container{{Name: "app"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", ContainerID: "containerd://" + testContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
	}
}

func TestOrder(t *testing.T) {
	move := decide.Move{Pod: decide.Pod{ID: podID(testPod()), Run: 1.5, Memory: 400 * model.MiB}, From: "n1", To: "n2", Message: "because"}
	for name, test := range map[string]struct {
		mode    Mode
		pause   *corev1.ConfigMap
		fail    error
		event   string
		ordered bool
		holds   string // what a process of the pod has open
	}{
		"cannot be moved":          {mode: Act, pause: pauseSwitch(map[string]string{"paused": "false"}), event: "CannotMigrate", holds: "anon_inode:[io_uring]"},
		"observe":                  {mode: Observe, pause: pauseSwitch(map[string]string{"paused": "false"}), event: "WouldMigrate"},
		"act":                      {mode: Act, pause: pauseSwitch(map[string]string{"paused": "false"}), event: "MigrationOrdered", ordered: true},
		"paused":                   {mode: Act, pause: pauseSwitch(map[string]string{"paused": "true"}), event: "MigrationPaused"},
		"the switch is unreadable": {mode: Act, pause: pauseSwitch(map[string]string{"paused": "false"}), fail: errors.New("no"), event: "MigrationPaused"},
		"there is no switch":       {mode: Act, event: "MigrationPaused"},
		"the switch says nothing":  {mode: Act, pause: pauseSwitch(nil), event: "MigrationPaused"},
		"the switch says nonsense": {mode: Act, pause: pauseSwitch(map[string]string{"paused": "maybe"}), event: "MigrationPaused"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []client.Object{testPod()}
			if test.pause != nil {
				objects = append(objects, test.pause)
			}
			a, m, events := testAgent(t, test.mode, objects...)
			m.fail = test.fail
			if test.holds == "" {
				test.holds = "anon_inode:[eventpoll]"
			}
			a.proc = tree(t, testContainer, test.holds)
			if err := a.order(t.Context(), move); err != nil {
				t.Fatal(err)
			}
			if e := <-events.Events; !strings.Contains(e, test.event) || !strings.Contains(e, "n2") {
				t.Errorf("event %q, want %s with the target", e, test.event)
			}
			var made v1alpha1.PodMigrationList
			if err := m.from.List(t.Context(), &made); err != nil {
				t.Fatal(err)
			}
			if (len(made.Items) == 1) != test.ordered {
				t.Fatalf("%d moves ordered, want one: %v", len(made.Items), test.ordered)
			}
			if !test.ordered {
				return
			}
			want := v1alpha1.PodMigrationSpec{PodName: "web", PodUID: "u1", TargetNode: "n2", Reason: "Contention", Message: "because"}
			if diff := cmp.Diff(want, made.Items[0].Spec); diff != "" || made.Items[0].Namespace != "ns" {
				t.Errorf("order in %s:\n%s", made.Items[0].Namespace, diff)
			}
			says := map[string]string{v1alpha1.AnnotationOrderedBy: "n1", v1alpha1.AnnotationUses: `{"cpu":"1500m","memory":"400Mi"}`}
			if diff := cmp.Diff(says, made.Items[0].Annotations); diff != "" {
				t.Errorf("annotations:\n%s", diff)
			}
		})
	}
	a, _, _ := testAgent(t, Act, pauseSwitch(map[string]string{"paused": "false"}))
	if err := a.order(t.Context(), move); err == nil {
		t.Error("a pod that is gone was ordered to move")
	}
}

func TestRequested(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	container := func(cpu, memory string) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{Requests: list(cpu, memory)}}
	}
	always := corev1.ContainerRestartPolicyAlways
	sidecar, initial := container("100m", "1Mi"), container("4", "4Gi")
	sidecar.RestartPolicy = &always
	pod := corev1.Pod{Spec: corev1.PodSpec{
		Containers:     []corev1.Container{container("250m", "64Mi"), container("250m", "64Mi"), {}},
		InitContainers: []corev1.Container{sidecar, initial},
		Overhead:       list("50m", "2Mi"),
	}}
	ended := *pod.DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded
	// 0.25 + 0.25 + 0.1 + 0.05 cores; 64 + 64 + 1 + 2 MiB; the init container has ended.
	want := model.Resources{CPU: 0.65, Memory: 131 * model.MiB}
	if got := requested([]corev1.Pod{pod, ended}); got != want {
		t.Errorf("requested %+v, want %+v", got, want)
	}
}

func TestSeedsAndAddresses(t *testing.T) {
	node := func(name string, addrs ...corev1.NodeAddress) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Addresses: addrs}}
	}
	at := func(kind corev1.NodeAddressType, a string) corev1.NodeAddress {
		return corev1.NodeAddress{Type: kind, Address: a}
	}
	a, _, _ := testAgent(t, Act,
		node("n1", at(corev1.NodeInternalIP, "10.0.0.1")),
		node("n2", at(corev1.NodeExternalIP, "1.2.3.4"), at(corev1.NodeInternalIP, "10.0.0.2"), at(corev1.NodeInternalIP, "fd00::2")),
		node("n3", at(corev1.NodeInternalIP, "fd00::3")),
		node("new"), node("odd", at(corev1.NodeInternalIP, "x")),
	)
	seeds, err := a.seeds(t.Context())
	slices.Sort(seeds)
	if want := []string{"10.0.0.2:7946", "[fd00::3]:7946"}; err != nil || !slices.Equal(seeds, want) {
		t.Errorf("seeds %v, %v; want %v", seeds, err, want)
	}
}

func TestNames(t *testing.T) {
	p := testPod()
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", ContainerID: "containerd://abc"}}
	a, _, _ := testAgent(t, Act, p)
	id, container, ok := a.names.Container("u1", "abc")
	if !ok || container != "c" || id != (model.PodID{Namespace: "ns", Name: "web", UID: "u1"}) {
		t.Errorf("%v %q %v", id, container, ok)
	}
	for _, of := range [][2]string{{"u1", "other"}, {"u2", "abc"}, {"u1", ""}} {
		if _, _, ok := a.names.Container(of[0], of[1]); ok {
			t.Errorf("container %q of pod %q has a name", of[1], of[0])
		}
	}
	if _, ok := (&names{}).pod("u1"); ok {
		t.Error("a pod before any list")
	}
}

func TestObstacle(t *testing.T) {
	yes := true
	owned := func(kind string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: "x", UID: types.UID("x"), Controller: &yes}}
		}
	}
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"bare":          {func(*corev1.Pod) {}, ""},
		"ReplicaSet":    {owned("ReplicaSet"), ""},
		"Job":           {owned("Job"), ""},
		"StatefulSet":   {owned("StatefulSet"), ""},
		"DaemonSet":     {owned("DaemonSet"), "DaemonSet"},
		"being deleted": {func(p *corev1.Pod) { now := metav1.Now(); p.DeletionTimestamp = &now }, "deleted"},
		"pending":       {func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, "Pending"},
		"a replacement": {func(p *corev1.Pod) { p.Labels = map[string]string{v1alpha1.LabelReplacement: "x"} }, "just come"},
	} {
		p := testPod()
		p.Status.Phase = corev1.PodRunning
		test.change(p)
		if got := obstacle(p); (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestConfigSaysAllThatIsWrong(t *testing.T) {
	err := Config{Mode: "atc"}.Validate()
	if err == nil {
		t.Fatal("an empty configuration is valid")
	}
	for _, word := range []string{"--node-name", "--address", `"atc"`} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not speak of %s", err, word)
		}
	}
}
