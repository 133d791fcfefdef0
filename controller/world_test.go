package controller

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/drover-project/drover/api/v1alpha1"
)

// world is an API server with a clock, a Reconciler whose calls can be made to fail, and
// players for everybody else (players_test.go). It watches what must never happen.
type world struct {
	t     *testing.T
	now   time.Time
	api   client.WithWatch // what the players use
	r     *Reconciler
	fault fault
	// calls counts writes, reads counts reads; faults of the mode "read" are of reads.
	calls, reads int
	// made and thirds count pods that the Reconciler and the owner created.
	made, thirds int
	// old is the name of the pod that the test moves.
	old string
	players
}

// fault is one failure: of the write (or, with mode "read", the read) number at, from 1.
type fault struct {
	at   int
	mode string // "before", "after", "conflict", "other", "read"
}

var errLost = errors.New("connection reset by peer")

var testScheme = sync.OnceValue(func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, networkingv1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, policyv1.AddToScheme, v1alpha1.AddToScheme, addStrange} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return scheme
})

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{t: t, now: start, old: oldName}
	// One that keeps no managed fields, which are half of the work, and which nobody here looks at.
	tracker := clienttesting.NewObjectTracker(testScheme(), serializer.NewCodecFactory(testScheme()).UniversalDecoder())
	w.api = fake.NewClientBuilder().WithScheme(testScheme()).WithObjectTracker(tracker).WithStatusSubresource(&v1alpha1.PodMigration{}, &policyv1.PodDisruptionBudget{}).WithObjects(objects...).Build()
	watched := interceptor.NewClient(w.api, w.funcs())
	w.r = &Reconciler{
		Reader: watched, Kinds: w, Writer: watched, Status: watched, Events: &record.FakeRecorder{},
		Now:    func() time.Time { return w.now },
		Config: Config{Namespace: system, PauseImage: pauseImage, KeepFor: -1, BindDeadline: 5 * time.Second, BudgetDeadline: 5 * time.Second}.WithDefaults(),
	}
	return w
}

// call is one call of the Reconciler, with the fault if it is its turn.
func (w *world) call(ctx context.Context, do func() error) error {
	w.calls++
	if w.calls != w.fault.at || w.fault.mode == "read" {
		return do()
	}
	switch w.fault.mode {
	case "before":
		return errLost
	case "conflict":
		return apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("somebody was faster"))
	case "after":
		if err := do(); err != nil {
			return err
		}
		return errLost
	case "other": // another controller that believes that it leads works in between
		if _, err := w.r.Reconcile(ctx, w.request()); err != nil {
			w.t.Errorf("the other controller: %v", err)
		}
		return do()
	}
	w.t.Fatalf("no such fault %q", w.fault.mode)
	return nil
}

// read is one read of the Reconciler: it can only fail.
func (w *world) read(do func() error) error {
	w.reads++
	if w.reads == w.fault.at && w.fault.mode == "read" {
		return errLost
	}
	return do()
}

func (w *world) funcs() interceptor.Funcs {
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			return w.read(func() error { return c.Get(ctx, key, o, opts...) })
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if w.unlistable != nil && l.GetObjectKind().GroupVersionKind() == strangeKind.GroupVersion().WithKind("CiliumNetworkPolicyList") {
				return w.unlistable
			}
			return w.read(func() error { return c.List(ctx, l, opts...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return w.call(ctx, func() error { return w.create(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return w.call(ctx, func() error { return c.Update(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return w.call(ctx, func() error { return w.patched(ctx, o, p, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return w.call(ctx, func() error { return w.delete(ctx, o, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			return w.call(ctx, func() error { return w.status(ctx, o) })
		},
	}
}

func (w *world) request() ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Namespace: testNamespace, Name: "move"}}
}

// move reads the record; nil when it is gone.
func (w *world) move() *v1alpha1.PodMigration {
	var m v1alpha1.PodMigration
	err := w.api.Get(context.Background(), w.request().NamespacedName, &m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return &m
}

// pod reads a pod; nil when it is gone.
func (w *world) pod(name string) *corev1.Pod {
	var p corev1.Pod
	err := w.api.Get(context.Background(), types.NamespacedName{Namespace: testNamespace, Name: name}, &p)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return &p
}

// rounds that a move takes at most here.
const rounds = 300

// run lets everybody act in turn until the move has ended and its finalizer is off.
func (w *world) run() *v1alpha1.PodMigration {
	w.t.Helper()
	failed := 0
	for range rounds {
		for _, m := range w.moves() {
			if _, err := w.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&m)}); err != nil {
				if failed++; failed > 1 || !errors.Is(err, errLost) {
					w.t.Fatalf("an error without a fault: %v", err)
				}
			}
		}
		w.guarded()
		m := w.move()
		if m == nil || v1alpha1.Finished(m) && len(m.Finalizers) == 0 {
			return m
		}
		w.play()
		w.now = w.now.Add(time.Second)
	}
	m := w.move()
	w.t.Fatalf("not ended after %d rounds: phase %s, decision %q, %+v", rounds, m.Status.Phase, m.Status.Decision, m.Status.Conditions)
	return nil
}
