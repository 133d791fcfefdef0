package controller

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/movable"
)

// judge accepts or rejects a wish.
func (r *Reconciler) judge(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	if err := r.lookSelectors(ctx, m, &f); err != nil {
		return ctrl.Result{}, err
	}
	if why := Admit(m, f); why != nil {
		return r.reject(ctx, m, f, why)
	}
	if wait, err := r.endShort(ctx, m, f); wait || err != nil {
		return ctrl.Result{RequeueAfter: r.Config.Poll}, err
	}
	connections, why, err := r.connections(ctx, m, f)
	if err != nil {
		return ctrl.Result{}, err
	}
	if why != nil {
		return r.reject(ctx, m, f, why)
	}
	if controllerutil.AddFinalizer(m, v1alpha1.Finalizer) {
		if err := r.Writer.Update(ctx, m); err != nil {
			return ctrl.Result{}, fmt.Errorf("put the finalizer on PodMigration %s/%s: %w", m.Namespace, m.Name, err)
		}
	}
	epoch, err := r.claim(ctx, m, f.Pod)
	if err != nil {
		return ctrl.Result{}, err
	}
	var moving []v1alpha1.MovingContainer
	for _, name := range movable.Containers(&f.Pod.Spec) {
		moving = append(moving, v1alpha1.MovingContainer{Name: name, ID: runningID(f.Pod, name)})
	}
	m.Status.Epoch = epoch
	m.Status.Source = v1alpha1.SourceStatus{
		Node: f.Pod.Spec.NodeName, PodName: f.Pod.Name, PodUID: f.Pod.UID,
		Containers: moving,
		Origin:     types.UID(v1alpha1.OriginOf(f.Pod)), OwnerUID: ownerUID(f.Pod), BootID: f.SourceNode.Status.NodeInfo.BootID,
		KeepUntilAdopted: ofJob(f.Pod),
	}
	if m.Status.Connections = connections; connections != nil && connections.State == v1alpha1.ConnectionsClosed {
		setCondition(m, f.Now, v1alpha1.ConditionConnectionsKept, false, connections.Reason, connections.Message)
	}
	m.Status.Target.PodName = nameFor(m, f.Pod, epoch)
	m.Status.Phase = v1alpha1.PhaseReserving
	says := fmt.Sprintf("pod %s on node %s may be moved", f.Pod.Name, f.Pod.Spec.NodeName)
	setCondition(m, f.Now, v1alpha1.ConditionAccepted, true, "Accepted", says)
	note(m, f.Now, "Accepted", "")
	if err := r.save(ctx, m); err != nil {
		return ctrl.Result{}, err
	}
	r.event(m, corev1.EventTypeNormal, "MigrationAccepted", says, f.Pod)
	return ctrl.Result{RequeueAfter: again}, nil
}

// claim takes the pod for this move and gives out the move's epoch, both in one write
// that holds only if the pod is still as it was judged. A claim that is held already
// keeps its epoch.
func (r *Reconciler) claim(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) (int64, error) {
	last, err := EpochOf(pod)
	if err != nil {
		return 0, err
	}
	if holds(pod, m) {
		return last, nil
	}
	next := handoff.NextEpoch(last)
	was := pod.DeepCopy()
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.AnnotationMoving] = movingValue(m)
	pod.Annotations[v1alpha1.AnnotationEpoch] = strconv.FormatInt(next, 10)
	if err := r.Writer.Patch(ctx, pod, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{})); err != nil {
		return 0, fmt.Errorf("claim pod %s/%s with epoch %d: %w", pod.Namespace, pod.Name, next, err)
	}
	return next, nil
}

// maxEpoch is the greatest that a pod may come with: far below where the next ones would
// wrap, and whole in JSON readers that keep numbers as floats. No pod moves that often.
const maxEpoch = 1 << 53

// EpochOf is the greatest epoch ever given out for the pod's lineage; 0: it never moved.
// A value that is no number up to maxEpoch is an error: guessing could give out an epoch
// twice.
func EpochOf(pod *corev1.Pod) (int64, error) {
	v, has := pod.Annotations[v1alpha1.AnnotationEpoch]
	if !has {
		return 0, nil
	}
	epoch, err := strconv.ParseInt(v, 10, 64)
	if err != nil || epoch < 0 || epoch > maxEpoch {
		return 0, fmt.Errorf("pod %s/%s: annotation %s is %q, want a number from 0 to %d: put back the last move's epoch",
			pod.Namespace, pod.Name, v1alpha1.AnnotationEpoch, v, int64(maxEpoch))
	}
	return epoch, nil
}

// release gives the claim back and writes down the epoch if it has grown (ownership that
// returned raises it). A pod that is not held by this move is left alone.
func (r *Reconciler) release(ctx context.Context, m *v1alpha1.PodMigration, pod *corev1.Pod) error {
	if !holds(pod, m) {
		return nil
	}
	was := pod.DeepCopy()
	delete(pod.Annotations, v1alpha1.AnnotationMoving)
	if last, err := EpochOf(pod); err == nil && m.Status.Epoch > last {
		pod.Annotations[v1alpha1.AnnotationEpoch] = strconv.FormatInt(m.Status.Epoch, 10)
	}
	err := r.Writer.Patch(ctx, pod, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("release pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// reject ends a wish that was never begun. Nothing was changed but, if an earlier try
// died in the middle, the claim and the finalizer.
func (r *Reconciler) reject(ctx context.Context, m *v1alpha1.PodMigration, f Facts, why *Refusal) (ctrl.Result, error) {
	if err := r.release(ctx, m, f.Pod); err != nil {
		return ctrl.Result{}, err
	}
	setCondition(m, f.Now, v1alpha1.ConditionAccepted, false, why.Reason, why.Message)
	return r.finish(ctx, m, f, *why)
}

// finish writes the end of a move: nothing is left to do.
func (r *Reconciler) finish(ctx context.Context, m *v1alpha1.PodMigration, f Facts, outcome Refusal) (ctrl.Result, error) {
	if err := r.releaseBudget(ctx, m); err != nil {
		return ctrl.Result{}, err
	}
	phase := lastPhase(m)
	notHeld(m, f.Now)
	m.Status.Phase = phase
	setCondition(m, f.Now, v1alpha1.ConditionComplete, true, outcome.Reason, outcome.Message)
	note(m, f.Now, string(phase), outcome.Message)
	if err := r.save(ctx, m); err != nil {
		return ctrl.Result{}, err
	}
	kind := corev1.EventTypeWarning
	if phase == v1alpha1.PhaseCompleted {
		kind = corev1.EventTypeNormal
	}
	r.event(m, kind, "Migration"+string(phase), outcome.Message, f.Pod, f.replacement(m))
	r.Metrics.finished(m, f.Now)
	return ctrl.Result{RequeueAfter: again}, nil
}
