package nodeagent

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
)

// A fence goes once nothing can bring its pod back, and not a moment before; the note of an
// arrival goes with its pod.
func TestForget(t *testing.T) {
	const uid = "0f5a2c1e-6d0b-4b52-9d2f-1c2d3e4f5a6b"
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: types.UID(uid)}, Spec: corev1.PodSpec{NodeName: "n1"}}
	move := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1"}}
	own := filepath.Join(kubeletPods, "self")
	kubelet := filepath.Join(kubeletPods, uid)
	for name, test := range map[string]struct {
		objects        []client.Object // that the API server has
		cached         []client.Object
		dirs           []string // of the node
		fence, arrival bool     // still there afterwards
		fails          bool
	}{
		"all gone":                         {dirs: []string{own}},
		"the pod is there":                 {objects: []client.Object{pod}, dirs: []string{own}, fence: true, arrival: true},
		"kubelet keeps something of it":    {dirs: []string{own, kubelet}, fence: true, arrival: true},
		"the record is there":              {objects: []client.Object{move}, dirs: []string{own}, fence: true},
		"the cache still has the record":   {cached: []client.Object{move}, dirs: []string{own}, fence: true},
		"kubelet's directory is elsewhere": {fence: true, arrival: true, fails: true},
		"it is an old one, of nobody":      {dirs: []string{kubeletPods}, fence: true, arrival: true, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			a, _, _ := testAgent(t, Observe, test.cached...)
			s, err := scheme()
			if err != nil {
				t.Fatal(err)
			}
			a.cluster.direct = fake.NewClientBuilder().WithScheme(s).WithObjects(test.objects...).
				WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).Build()
			a.cfg.HostRoot, a.cfg.PodUID = root, "self"
			a.cfg.Layout = layout.Layout{Run: filepath.Join(root, "run"), State: filepath.Join(root, "state")}
			for _, d := range test.dirs {
				if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			l := a.cfg.Layout
			if err := l.Prepare(); err != nil {
				t.Fatal(err)
			}
			if err := l.Fences().Write(fence.Fence{PodUID: uid, Epoch: 2, Migration: "ns/web-1"}); err != nil {
				t.Fatal(err)
			}
			if err := l.Restored().Write(fence.Restored{PodUID: uid, Migration: "web-1", Epoch: 2}); err != nil {
				t.Fatal(err)
			}
			if err := a.forget(t.Context()); (err != nil) != test.fails {
				t.Errorf("forget: %v", err)
			}
			if f, err := l.Fences().Check(uid); err != nil || (f != nil) != test.fence {
				t.Errorf("fence %v, %v, want one: %v", f, err, test.fence)
			}
			if there, err := l.Restored().Check(uid, "web-1"); err != nil || there != test.arrival {
				t.Errorf("note of the arrival: %v, %v, want one: %v", there, err, test.arrival)
			}
		})
	}
}

// The note of a container goes when the runtime has removed the bundle, and not before.
func TestForgetContainers(t *testing.T) {
	root := t.TempDir()
	a, _, _ := testAgent(t, Observe)
	a.cfg.HostRoot = root
	a.cfg.Layout = layout.Layout{Run: filepath.Join(root, "run"), State: filepath.Join(root, "state")}
	for _, id := range []string{"here", "gone"} {
		if err := a.cfg.Layout.WriteContainer(layout.Container{ID: id, Bundle: filepath.Join("/bundles", id)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "bundles", "here"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := a.forgetContainers(); err != nil {
		t.Fatal(err)
	}
	if ids, err := a.cfg.Layout.Containers(); err != nil || len(ids) != 1 || ids[0] != "here" {
		t.Errorf("notes of %v, %v, want of the container whose bundle is there alone", ids, err)
	}
}
