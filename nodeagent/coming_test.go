package nodeagent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/decide"
)

var movedAt = metav1.NewTime(time.Unix(1_000_000, 0))

// ordered is a move of ns/web from n2 to n3 that nobody has seen yet.
func ordered() *v1alpha1.PodMigration {
	return &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1", UID: "m1", Annotations: map[string]string{
			v1alpha1.AnnotationOrderedBy: "n2", v1alpha1.AnnotationUses: `{"cpu":"1500m","memory":"2Gi"}`,
		}},
		Spec: v1alpha1.PodMigrationSpec{PodName: "web", PodUID: "u1", TargetNode: "n3"},
	}
}

// bound, restored and complete are later states of it.
func bound(m *v1alpha1.PodMigration) {
	m.Status.Source.Node, m.Status.Target.Node = "n2", "n3"
	m.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReserved, Status: metav1.ConditionTrue, LastTransitionTime: movedAt}}
}

func restored(m *v1alpha1.PodMigration) {
	bound(m)
	at := metav1.NewMicroTime(movedAt.Time)
	m.Status.Decision, m.Status.DecidedAt, m.Status.Target.Resumed = v1alpha1.Commit, &at, true
}

func complete(m *v1alpha1.PodMigration) {
	m.Status.Conditions = append(m.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionComplete, Status: metav1.ConditionTrue})
}

// asking is ns/web, with requests of a core and a GiB.
func asking() *corev1.Pod {
	p := testPod()
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi"),
	}
	return p
}

// An open move counts on its target from its order on: its requests until the replacement has been
// bound for as long as the node takes to tell of it, its use until it has run for that long.
func TestComing(t *testing.T) {
	requests, use := model.Resources{CPU: 1, Memory: model.GiB}, model.Resources{CPU: 1.5, Memory: 2 * model.GiB}
	soon, late := tellTime-time.Second, tellTime
	for name, c := range map[string]struct {
		change func(*v1alpha1.PodMigration)
		pod    func(*corev1.Pod)
		after  time.Duration
		want   decide.Coming // to n3
	}{
		"just ordered": {want: decide.Coming{Requests: requests, Use: use}},
		"ordered long ago, and nobody has seen it": {after: time.Hour, want: decide.Coming{Requests: requests, Use: use}},
		"just bound":                 {change: bound, after: soon, want: decide.Coming{Requests: requests, Use: use}},
		"bound":                      {change: bound, after: late, want: decide.Coming{Use: use}},
		"bound by a clock ahead":     {change: bound, after: -time.Minute, want: decide.Coming{Requests: requests, Use: use}},
		"just restored":              {change: restored, after: soon, want: decide.Coming{Requests: requests, Use: use}},
		"restored":                   {change: restored, after: late},
		"restored, nobody says when": {change: func(m *v1alpha1.PodMigration) { restored(m); m.Status.DecidedAt = nil }},
		"complete":                   {change: func(m *v1alpha1.PodMigration) { bound(m); complete(m) }},
		"rejected":                   {change: complete},
		"aborted, not yet complete":  {change: func(m *v1alpha1.PodMigration) { bound(m); m.Status.Decision = v1alpha1.Abort }},
		"returned":                   {change: func(m *v1alpha1.PodMigration) { bound(m); m.Status.Returned = true }},
		"to wherever":                {change: func(m *v1alpha1.PodMigration) { m.Spec.TargetNode = "" }},
		"the scheduler chose": {change: func(m *v1alpha1.PodMigration) { m.Spec.TargetNode = ""; bound(m) }, after: late,
			want: decide.Coming{Use: use}},
		"back to its name on the same node": {change: func(m *v1alpha1.PodMigration) {
			bound(m)
			m.Status.Source.Node = "n3"
		}},
		// A user does not say what it uses.
		"by a user":  {change: func(m *v1alpha1.PodMigration) { m.Annotations = nil }, want: decide.Coming{Requests: requests, Use: requests}},
		"nonsense":   {change: func(m *v1alpha1.PodMigration) { m.Annotations[v1alpha1.AnnotationUses] = "much" }, want: decide.Coming{Requests: requests, Use: requests}},
		"below zero": {change: func(m *v1alpha1.PodMigration) { m.Annotations[v1alpha1.AnnotationUses] = `{"cpu":"-3"}` }, want: decide.Coming{Requests: requests, Use: requests}},
		"more than its node has": {change: func(m *v1alpha1.PodMigration) {
			m.Annotations[v1alpha1.AnnotationUses] = `{"cpu":"1e9","memory":"9E"}`
		}, want: decide.Coming{Requests: requests, Use: model.Resources{CPU: 4, Memory: 8 * model.GiB}}},
		"its pod is another one now": {pod: func(p *corev1.Pod) { p.UID = "u2" }, want: decide.Coming{Use: use}},
	} {
		t.Run(name, func(t *testing.T) {
			m, p := ordered(), asking()
			if c.change != nil {
				c.change(m)
			}
			if c.pod != nil {
				c.pod(p)
			}
			a, _, _ := testAgent(t, Act, p)
			most := map[model.NodeID]model.Resources{"n2": {CPU: 4, Memory: 8 * model.GiB}}
			got, err := a.coming(t.Context(), []v1alpha1.PodMigration{*m}, most, movedAt.Add(c.after))
			if err != nil {
				t.Fatal(err)
			}
			want := map[model.NodeID]decide.Coming{"n3": c.want}
			if c.want == (decide.Coming{}) {
				want = map[model.NodeID]decide.Coming{}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Two moves to one node add up. A pod is asked for once; one that cannot be read is no reason to
// think that nothing comes.
func TestComingAddsUpAndAsksOnce(t *testing.T) {
	away := errors.New("the API server is away")
	a, _, _ := testAgent(t, Act, asking())
	reads, fail := 0, error(nil)
	a.cluster.direct = interceptor.NewClient(a.cluster.direct.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if reads++; fail != nil {
				return fail
			}
			return c.Get(ctx, key, o, opts...)
		},
	})
	first, second := ordered(), ordered()
	second.UID, second.Name = "m2", "web-2"
	most := map[model.NodeID]model.Resources{"n2": {CPU: 4, Memory: 8 * model.GiB}}
	both := []v1alpha1.PodMigration{*first, *second}
	for range 2 {
		got, err := a.coming(t.Context(), both, most, movedAt.Time)
		want := decide.Coming{Requests: model.Resources{CPU: 2, Memory: 2 * model.GiB}, Use: model.Resources{CPU: 3, Memory: 4 * model.GiB}}
		if err != nil || got["n3"] != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if reads != 2 {
		t.Errorf("%d pods read, want each once", reads)
	}
	if _, err := a.coming(t.Context(), nil, most, movedAt.Time); err != nil || len(a.asked) > 0 {
		t.Errorf("%v; %v is kept of moves that are gone", err, a.asked)
	}
	fail = away
	if _, err := a.coming(t.Context(), both, most, movedAt.Time); !errors.Is(err, away) {
		t.Errorf("error %v, want %v", err, away)
	}
}

// What another agent has just ordered is not in the cache yet.
func TestMovesAreReadAnewWhenItMatters(t *testing.T) {
	a, m, _ := testAgent(t, Act, ordered())
	s, err := scheme()
	if err != nil {
		t.Fatal(err)
	}
	m.from = fake.NewClientBuilder().WithScheme(s).Build()
	for fresh, want := range map[bool]int{false: 0, true: 1} {
		if got, err := a.cluster.moves(t.Context(), fresh); err != nil || len(got) != want {
			t.Errorf("fresh %v: %v, %v; want %d", fresh, got, err, want)
		}
	}
	m.fail = errors.New("no")
	if _, err := a.cluster.moves(t.Context(), false); err == nil {
		t.Error("moves that cannot be read count as none")
	}
}

// One pod at a time leaves a node, from its order on.
func TestMoving(t *testing.T) {
	move := func(node string, change func(*v1alpha1.PodMigration)) v1alpha1.PodMigration {
		m := ordered()
		m.UID = types.UID(node)
		m.Annotations = nil
		m.Status.Source.Node = node
		if change != nil {
			change(m)
		}
		return *m
	}
	others := []v1alpha1.PodMigration{
		move("n1", complete), move("n2", nil), move("", nil),
		move("n1", func(m *v1alpha1.PodMigration) { complete(m); m.Status.Phase = v1alpha1.PhaseRejected }),
	}
	if got := moving(others, "n1"); got != "" {
		t.Errorf("moving %q, want none", got)
	}
	if got := moving(append(others, move("n1", nil)), "n1"); got != "ns/web" {
		t.Errorf("moving %q, want ns/web", got)
	}
	if got := moving(append(others, *ordered()), "n2"); got != "ns/web" {
		t.Errorf("moving %q, want ns/web, which nobody has seen yet", got)
	}
}
