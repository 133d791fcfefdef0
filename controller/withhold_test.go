package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func selects(t *testing.T, s string) adopter {
	t.Helper()
	selector, err := labels.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return adopter{"ReplicaSet", s, selector}
}

func TestWithhold(t *testing.T) {
	const job = batchv1.ControllerUidLabel
	for _, c := range []struct {
		name string
		has  labels.Set
		by   []string
		kept labels.Set // nil: refused
	}{
		{"a Deployment's pod keeps all but the hash", labels.Set{"app": "web", "tier": "x", "pod-template-hash": "5d4"},
			[]string{"app=web,pod-template-hash=5d4"}, labels.Set{"app": "web", "tier": "x"}},
		{"older sets of the Deployment are no matter", labels.Set{"app": "web", "pod-template-hash": "5d4"},
			[]string{"app=web,pod-template-hash=111", "app=web,pod-template-hash=5d4"}, labels.Set{"app": "web"}},
		{"a bare set's pod loses what it is selected by", labels.Set{"app": "web", "tier": "x"}, []string{"app=web"}, labels.Set{"tier": "x"}},
		{"one of several keys is enough", labels.Set{"app": "web", "tier": "x"}, []string{"tier=x,app=web"}, labels.Set{"tier": "x"}},
		{"a stranger that selects by app", labels.Set{"app": "web", "pod-template-hash": "5d4"},
			[]string{"app=web,pod-template-hash=5d4", "app in (web,db)"}, labels.Set{}},
		{"a Job's pod keeps the Job's name", labels.Set{"job-name": "sum", job: "u1", "app": "sum"}, []string{job + "=u1"}, labels.Set{"job-name": "sum", "app": "sum"}},
		{"a bare pod keeps all", labels.Set{"app": "web"}, []string{"app=db"}, labels.Set{"app": "web"}},
		{"a pod without labels", nil, []string{"app=web"}, labels.Set{}},
		{"existence is a demand, too", labels.Set{"app": "web"}, []string{"app"}, labels.Set{}},
		{"absence is none that can be withheld", labels.Set{"app": "web"}, []string{"!gone,app!=db"}, nil},
	} {
		var by []adopter
		for _, s := range c.by {
			by = append(by, selects(t, s))
		}
		before := labels.Set(nil)
		if c.has != nil {
			before = labels.Merge(c.has, nil)
		}
		kept, why := withhold(c.has, by)
		if diff := cmp.Diff(c.kept, labels.Set(kept)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if (why != nil) != (c.kept == nil) || why != nil && why.Reason != ReasonUnsupportedOwner {
			t.Errorf("%s: refused: %+v", c.name, why)
		}
		if diff := cmp.Diff(before, c.has); diff != "" {
			t.Errorf("%s: the source's labels were changed:\n%s", c.name, diff)
		}
		for _, a := range by {
			if kept != nil && a.selector.Matches(labels.Set(kept)) {
				t.Errorf("%s: %s still matches %v", c.name, a.name, kept)
			}
		}
	}
}

// Every kind whose controller adopts is asked.
func TestAdopters(t *testing.T) {
	app := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	meta := metav1.ObjectMeta{Namespace: testNamespace, Name: "one"}
	stranger := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "two"}, Spec: appsv1.StatefulSetSpec{Selector: app}}
	elsewhere := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "one"}, Spec: appsv1.ReplicaSetSpec{Selector: app}}
	for _, o := range []client.Object{
		&appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: app}},
		&appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: app}},
		&appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: app}},
		&batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Selector: app}},
		&corev1.ReplicationController{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Selector: app.MatchLabels}},
	} {
		by, err := newWorld(t, o, elsewhere, stranger).r.adopters(t.Context(), testNamespace, "one-0")
		if err != nil || len(by) != 1 || !by[0].selector.Matches(labels.Set{"app": "web"}) {
			t.Errorf("%T: %v, %v, want its selector", o, by, err)
		}
	}
}
