package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
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
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return scheme
})

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{t: t, now: start}
	w.api = fake.NewClientBuilder().WithScheme(testScheme()).WithStatusSubresource(&v1alpha1.PodMigration{}).WithObjects(objects...).Build()
	watched := interceptor.NewClient(w.api, w.funcs())
	w.r = &Reconciler{
		Reader: watched, Writer: watched, Status: watched, Events: &record.FakeRecorder{},
		Now:    func() time.Time { return w.now },
		Config: Config{Namespace: system, KeepFor: -1}.WithDefaults(),
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
			return w.read(func() error { return c.List(ctx, l, opts...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return w.call(ctx, func() error { return w.create(ctx, o) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return w.call(ctx, func() error { return c.Update(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return w.call(ctx, func() error { return w.patched(ctx, o, p) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return w.call(ctx, func() error { return w.delete(ctx, o, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			return w.call(ctx, func() error { return w.status(ctx, o) })
		},
	}
}

// create does what the API server does beside: UID and time.
func (w *world) create(ctx context.Context, o client.Object) error {
	o.SetUID(types.UID(fmt.Sprintf("uid-%s-%d", o.GetName(), w.made)))
	o.SetCreationTimestamp(metav1.NewTime(w.now))
	if err := w.api.Create(ctx, o); err != nil {
		return err
	}
	if w.made++; w.made > 1 {
		w.t.Errorf("a second replacement was made: %s", o.GetName())
	}
	return nil
}

// patched holds the precondition on the UID, which the fake client does not know.
func (w *world) patched(ctx context.Context, o client.Object, p client.Patch) error {
	body, err := p.Data(o)
	if err != nil {
		return err
	}
	var meta struct {
		Metadata struct {
			UID             types.UID `json:"uid"`
			ResourceVersion string    `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &meta); err != nil {
		return err
	}
	var now corev1.Pod
	if err := w.api.Get(ctx, client.ObjectKeyFromObject(o), &now); err != nil {
		return err
	}
	if meta.Metadata.UID == "" && meta.Metadata.ResourceVersion == "" {
		w.t.Errorf("patch of pod %s without any guard: %s", o.GetName(), body)
	}
	if u := meta.Metadata.UID; u != "" && u != now.UID {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, o.GetName(), errors.New("precondition: UID"))
	}
	return w.api.Patch(ctx, o, p)
}

// delete holds the precondition on the UID and sees that no pod goes that must stay.
func (w *world) delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	var options client.DeleteOptions
	options.ApplyOptions(opts)
	if options.Preconditions == nil || options.Preconditions.UID == nil {
		w.t.Errorf("deletion of %s without its UID", o.GetName())
		return nil
	}
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return w.api.Delete(ctx, o, opts...)
	}
	var now corev1.Pod
	if err := w.api.Get(ctx, client.ObjectKeyFromObject(o), &now); err != nil {
		return err
	}
	if now.UID != *options.Preconditions.UID {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, o.GetName(), errors.New("precondition: UID"))
	}
	m := w.move()
	if pod.UID == m.Status.Source.PodUID && !m.Status.Target.Resumed {
		w.t.Errorf("the source was deleted before the target resumed (phase %s)", m.Status.Phase)
	}
	if pod.UID == m.Status.Target.PodUID && m.Status.Decision == v1alpha1.Undecided {
		w.t.Error("the replacement was deleted before a decision")
	}
	return w.api.Delete(ctx, o, opts...)
}

// status holds the rules of the CRD, which the fake client does not know.
func (w *world) status(ctx context.Context, o client.Object) error {
	m := o.(*v1alpha1.PodMigration)
	var was v1alpha1.PodMigration
	if err := w.api.Get(ctx, client.ObjectKeyFromObject(o), &was); err != nil {
		return err
	}
	if m.ResourceVersion == "" {
		w.t.Error("a status was written without resourceVersion")
	}
	err := w.api.Status().Update(ctx, o)
	if err != nil {
		return err
	}
	if was.Status.Decision != v1alpha1.Undecided && was.Status.Decision != m.Status.Decision {
		w.t.Errorf("the decision was changed from %q to %q", was.Status.Decision, m.Status.Decision)
	}
	if m.Status.Decision == v1alpha1.Commit && was.Status.Decision != v1alpha1.Commit {
		w.t.Error("the controller committed")
	}
	if u := was.Status.Target.PodUID; u != "" && u != m.Status.Target.PodUID {
		w.t.Errorf("the replacement was changed from %s to %s", u, m.Status.Target.PodUID)
	}
	return nil
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
const rounds = 200

// run lets everybody act in turn until the move has ended and its finalizer is off.
func (w *world) run() *v1alpha1.PodMigration {
	w.t.Helper()
	failed := 0
	for range rounds {
		if _, err := w.r.Reconcile(context.Background(), w.request()); err != nil {
			if failed++; failed > 1 || !errors.Is(err, errLost) {
				w.t.Fatalf("an error without a fault: %v", err)
			}
		}
		m := w.move()
		if m == nil || Finished(m) && len(m.Finalizers) == 0 {
			return m
		}
		w.play(m)
		w.now = w.now.Add(time.Second)
	}
	m := w.move()
	w.t.Fatalf("not ended after %d rounds: phase %s, decision %q, %+v", rounds, m.Status.Phase, m.Status.Decision, m.Status.Conditions)
	return nil
}
