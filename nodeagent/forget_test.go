package nodeagent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/migrate"
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
			a.marks = migrate.MarkDir(t.TempDir())
			copyOf := migrate.Move{Target: migrate.Pod{UID: uid}}
			if err := a.marks.Begin(copyOf); err != nil {
				t.Fatal(err)
			}
			if err := a.forget(t.Context()); (err != nil) != test.fails {
				t.Errorf("forget: %v", err)
			}
			if f, err := l.Fences().Check(uid); err != nil || (f != nil) != test.fence {
				t.Errorf("fence %v, %v, want one: %v", f, err, test.fence)
			}
			if marked, err := a.marks.Begun(copyOf); err != nil || marked {
				t.Errorf("marked %v, %v, and its arrival had been noted", marked, err)
			}
			if there, err := l.Restored().Check(uid, "web-1"); err != nil || there != test.arrival {
				t.Errorf("note of the arrival: %v, %v, want one: %v", there, err, test.arrival)
			}
		})
	}
}

// What is left of a container goes when the runtime has removed the bundle, and not before:
// the note, and first what runc has of it, unless runc will not.
func TestForgetContainers(t *testing.T) {
	root := t.TempDir()
	a, _, _ := testAgent(t, Observe)
	a.cfg.HostRoot = root
	a.cfg.Layout = layout.Layout{Run: filepath.Join(root, "run"), State: filepath.Join(root, "state")}
	call := func(ctx context.Context, args ...string) (string, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Errorf("%q may hang for ever, and keep fences from being lifted", args)
		}
		if want := []string{"drover-runc", "--root", "/runc", "delete"}; !slices.Equal(args[:4], want) || args[4] == "runs" {
			return "it runs", fmt.Errorf("called %q", args)
		}
		return "", os.Remove(filepath.Join(root, "runc", args[4]))
	}
	a.cfg.Program = "drover-runc"
	for id, dirs := range map[string][]string{"here": {"bundles/here", "runc/here"}, "gone": nil, "killed": {"runc/killed"}, "runs": {"runc/runs"}} {
		if err := a.cfg.Layout.WriteContainer(layout.Container{ID: id, Root: "/runc", Bundle: filepath.Join("/bundles", id)}); err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.forgetContainers(t.Context(), call); err == nil || !strings.Contains(err.Error(), "delete container runs") {
		t.Errorf("error %v, want one about the container that runs", err)
	}
	if ids, err := a.cfg.Layout.Containers(); err != nil || !slices.Equal(slices.Sorted(slices.Values(ids)), []string{"here", "runs"}) {
		t.Errorf("notes of %v, %v, want of the one with a bundle and of the one that runs", ids, err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "runc")); err != nil || len(left) != 2 {
		t.Errorf("runc has %v, %v, want the one with a bundle and the one that runs", left, err)
	}
}
