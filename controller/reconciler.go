package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/drover-project/drover/api/v1alpha1"
)

// again is when to look again after someone else was faster.
const again = 50 * time.Millisecond

// Reconciler carries PodMigrations through. It holds no state between calls.
type Reconciler struct {
	// Reader reads from the API server itself, not from a cache: a stale pod or record
	// would be taken for the truth in the moments that matter.
	Reader client.Reader
	// Kinds tells which kinds of policies there are.
	Kinds Kinds
	// Writer writes.
	Writer client.Writer
	// Status writes the status subresource.
	Status client.StatusClient
	// Events are for people.
	Events record.EventRecorder
	// Now is the clock.
	Now func() time.Time
	// Metrics counts.
	Metrics *Metrics
	// Config with its defaults filled in.
	Config Config
}

// Reconcile looks at one PodMigration and does what is next.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var m v1alpha1.PodMigration
	if err := r.Reader.Get(ctx, req.NamespacedName, &m); err != nil {
		if apierrors.IsNotFound(err) {
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("read PodMigration %s: %w", req.NamespacedName, err)
	}
	result, err := r.step(ctx, &m)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// Somebody wrote or deleted first. What they did counts: look again.
		return ctrl.Result{RequeueAfter: again}, nil
	}
	return result, err
}

// step chooses by what the record says, not by its phase.
func (r *Reconciler) step(ctx context.Context, m *v1alpha1.PodMigration) (ctrl.Result, error) {
	if v1alpha1.Finished(m) {
		return r.putAway(ctx, m)
	}
	facts, err := r.look(ctx, m)
	if err != nil {
		return ctrl.Result{}, err
	}
	if m.Status.Decision == v1alpha1.Commit && !m.Status.Returned && !m.Status.Lost {
		if err := r.witness(ctx, m, facts); err != nil {
			return ctrl.Result{}, err
		}
	}
	if sayHeld(m, facts.Now) {
		if err := r.save(ctx, m); err != nil {
			return ctrl.Result{}, err
		}
	}
	if err := r.witnessName(ctx, m, facts); err != nil {
		return ctrl.Result{}, err
	}
	if m.Status.Decision != v1alpha1.Undecided && m.Status.Budget != nil {
		// Held until the end, whatever the budget allows by now.
		if _, err := r.budgeted(ctx, m, facts); err != nil {
			return ctrl.Result{}, err
		}
	}
	switch s := &m.Status; {
	case !accepted(m) && s.Decision == v1alpha1.Undecided:
		return r.judge(ctx, m, facts)
	case s.Decision == v1alpha1.Undecided:
		return r.reserve(ctx, m, facts)
	case s.Decision == v1alpha1.Abort:
		return r.settleAborted(ctx, m, facts)
	case s.Returned:
		return r.settleReturned(ctx, m, facts)
	case s.Lost:
		return r.settleLost(ctx, m, facts)
	case s.Target.Resumed && needsSource(m):
		return r.awaitLoaded(ctx, m, facts)
	case s.Target.Resumed:
		return r.handOver(ctx, m, facts)
	default:
		return r.awaitResume(ctx, m, facts)
	}
}

// wait looks again later, or sooner when an event comes.
func (r *Reconciler) wait() (ctrl.Result, error) {
	return ctrl.Result{RequeueAfter: r.Config.Poll}, nil
}

// save writes the record, guarded by the resourceVersion that it was read with.
func (r *Reconciler) save(ctx context.Context, m *v1alpha1.PodMigration) error {
	if err := r.Status.Status().Update(ctx, m); err != nil {
		return fmt.Errorf("write status of PodMigration %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}

// putAway takes the finalizer off a finished PodMigration and deletes it in the end.
func (r *Reconciler) putAway(ctx context.Context, m *v1alpha1.PodMigration) (ctrl.Result, error) {
	if err := r.sweep(ctx, m); err != nil {
		return ctrl.Result{}, err
	}
	// The record need not know of a hold: it is made before it is confirmed.
	if m.Status.Decision == v1alpha1.Commit {
		if err := r.unhold(ctx, m, ""); err != nil {
			return ctrl.Result{}, err
		}
	}
	if phase := lastPhase(m); m.Status.Phase != phase {
		m.Status.Phase = phase // an agent that came late has written its own
		if err := r.save(ctx, m); err != nil {
			return ctrl.Result{}, err
		}
	}
	if done, result, err := r.seeLease(ctx, m); !done || err != nil {
		return result, err
	}
	if is, err := r.carrying(ctx, m); is || err != nil {
		return ctrl.Result{RequeueAfter: leaseLook * r.Config.Poll}, err
	}
	if awaited, err := r.sourceAwaited(ctx, m); err != nil || awaited {
		return ctrl.Result{RequeueAfter: r.Config.Poll}, err
	}
	if controllerutil.RemoveFinalizer(m, v1alpha1.Finalizer) {
		if err := r.Writer.Update(ctx, m); err != nil {
			return ctrl.Result{}, fmt.Errorf("take the finalizer off PodMigration %s/%s: %w", m.Namespace, m.Name, err)
		}
	}
	if m.DeletionTimestamp != nil || r.Config.KeepFor < 0 {
		return ctrl.Result{}, nil
	}
	if left := r.Config.KeepFor - sinceLast(m, r.Now()); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	uid, version := m.UID, m.ResourceVersion
	err := r.Writer.Delete(ctx, m, client.Preconditions{UID: &uid, ResourceVersion: &version})
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("delete PodMigration %s/%s after its time: %w", m.Namespace, m.Name, err)
	}
	return ctrl.Result{}, nil
}

// sourceAwaited tells that the source's agent has still to end the processes and say so:
// it shall find the record when it comes back. Not for ever: the pod object is gone, and an
// agent that finds neither pod nor record ends what it holds (nodeagent/orphan.go).
func (r *Reconciler) sourceAwaited(ctx context.Context, m *v1alpha1.PodMigration) (bool, error) {
	s := &m.Status
	late := since(m, r.Now(), v1alpha1.ConditionComplete) > 4*r.Config.EndDeadline
	if s.Decision != v1alpha1.Commit || s.Returned || s.Source.Ended || late {
		return false, nil
	}
	return r.get(ctx, "", s.Source.Node, &corev1.Node{})
}

// event tells people, on the PodMigration and on those of the pods that exist.
func (r *Reconciler) event(m *v1alpha1.PodMigration, kind, reason, message string, pods ...*corev1.Pod) {
	r.Events.Event(m, kind, reason, message)
	for _, p := range pods {
		if p != nil {
			r.Events.Event(p, kind, reason, "PodMigration "+m.Name+": "+message)
		}
	}
}
