package nodeagent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// held is a keeper.
type held struct{ pods, ended []string }

func (h *held) Pods() ([]string, error) { return h.pods, nil }

func (h *held) EndPod(_ context.Context, uid string) error {
	h.ended = append(h.ended, uid)
	return nil
}

// What is held is ended once neither the record nor the pod is wanted by anybody, and not
// before; a pod whose record alone is gone is told of.
func TestEndOrphans(t *testing.T) {
	away := errors.New("the API server is away")
	pod := func(uid types.UID, deleting bool) *corev1.Pod {
		p := testPod()
		p.UID = uid
		if deleting {
			now := metav1.Now()
			p.DeletionTimestamp, p.Finalizers = &now, []string{"x/y"}
		}
		return p
	}
	from := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1"}}
	from.Status.Source.PodUID = testPod().UID
	to := from.DeepCopy()
	to.Status.Source.PodUID, to.Status.Target.PodUID = "", testPod().UID
	other := from.DeepCopy() // the same name, of a later move
	other.Status.Source.PodUID = "other"
	for name, test := range map[string]struct {
		objects, cached []client.Object
		away            string // what cannot be listed
		ended           bool
		left            float64
		fails           bool
	}{
		"all gone":                            {ended: true},
		"the record is there, as source":      {objects: []client.Object{from}},
		"the record is there, as target":      {objects: []client.Object{to}},
		"the cache still has it":              {cached: []client.Object{from}},
		"the cache still has the pod":         {cached: []client.Object{pod("u1", false)}, ended: true},
		"another record has its name":         {objects: []client.Object{other}, ended: true},
		"the pod is there":                    {objects: []client.Object{pod("u1", false)}, left: 1},
		"the pod is being deleted":            {objects: []client.Object{pod("u1", true)}, ended: true},
		"being deleted, and the record there": {objects: []client.Object{pod("u1", true), from}},
		"another pod has its name":            {objects: []client.Object{pod("other", false)}, ended: true},
		"the records are not known":           {away: "PodMigrationList", fails: true},
		"the pods are not known":              {away: "PodList", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, events := testAgent(t, Observe, test.cached...)
			s, err := scheme()
			if err != nil {
				t.Fatal(err)
			}
			a.marks = migrate.MarkDir(t.TempDir())
			if err := a.marks.Begin(migrate.Move{Target: migrate.Pod{UID: "u1"}}); err != nil {
				t.Fatal(err)
			}
			a.cluster.direct = fake.NewClientBuilder().WithScheme(s).WithObjects(test.objects...).
				WithInterceptorFuncs(interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
					_, records := l.(*v1alpha1.PodMigrationList)
					if records && test.away == "PodMigrationList" || !records && test.away == "PodList" {
						return away
					}
					return c.List(ctx, l, opts...)
				}}).
				WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).Build()
			dumps, copies, o := &held{pods: []string{"u1"}}, &held{pods: []string{"u1"}}, newOrphans()
			for range 2 { // what cannot be ended is told of once
				if err := a.endOrphans(t.Context(), o, dumps, copies); (err != nil) != test.fails || test.fails && !errors.Is(err, away) {
					t.Errorf("endOrphans: %v", err)
				}
				if got := testutil.ToFloat64(o.left); got != test.left {
					t.Errorf("drover_held_without_record: %v, want %v", got, test.left)
				}
			}
			for _, h := range []*held{dumps, copies} {
				if slices.Contains(h.ended, "u1") != test.ended {
					t.Errorf("ended %v, want that: %v", h.ended, test.ended)
				}
			}
			if marked, err := a.marks.Begun(migrate.Move{Target: migrate.Pod{UID: "u1"}}); err != nil || marked == test.ended {
				t.Errorf("mark: %v, %v", marked, err)
			}
			wantTold(t, events, int(test.left))
		})
	}
}

func wantTold(t *testing.T, events *record.FakeRecorder, want int) {
	t.Helper()
	if got := len(events.Events); got != want {
		t.Fatalf("%d events, want %d", got, want)
	}
	for range want {
		if e := <-events.Events; !strings.Contains(e, "HeldWithoutRecord") || !strings.Contains(e, "delete the pod") {
			t.Errorf("event %q", e)
		}
	}
}

// A pod that is there again with its record, or gone, is not counted any more.
func TestOrphansAreCountedAnew(t *testing.T) {
	a, _, _ := testAgent(t, Observe)
	s, err := scheme()
	if err != nil {
		t.Fatal(err)
	}
	a.cluster.direct = fake.NewClientBuilder().WithScheme(s).WithObjects(testPod()).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).Build()
	h, o := &held{pods: []string{"u1"}}, newOrphans()
	for _, want := range []float64{1, 0} {
		if err := a.endOrphans(t.Context(), o, h); err != nil {
			t.Fatal(err)
		}
		if got := testutil.ToFloat64(o.left); got != want {
			t.Errorf("drover_held_without_record: %v, want %v", got, want)
		}
		h.pods = nil
	}
}
