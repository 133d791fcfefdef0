package controller

import (
	"context"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/drover-project/drover/api/v1alpha1"
)

// A Job counts the end of each pod that bears its finalizer, so its pods change hands in
// the opposite order to a ReplicaSet's: release, adopt, delete. The source stops being the
// Job's in one write, the replacement becomes the Job's in the next, and only then may the
// source's processes end: before, the Job would count a failure. Were both the Job's at
// once, it would delete the newer, which is the replacement; deletion costs mean nothing to it.

// ofJob tells whether the Job controller counts the pod.
func ofJob(p *corev1.Pod) bool {
	ref := controllerOf(p)
	return ref != nil && isOf(ref, batchv1.GroupName, "Job")
}

// judgeJob tells whether the Job wants a pod that runs.
func judgeJob(p *corev1.Pod, job *batchv1.Job) *Refusal {
	ref := controllerOf(p)
	switch {
	case job == nil, job.UID != ref.UID:
		return refuse(ReasonOwnerGone, "Job %s, the owner of pod %s, does not exist any more", ref.Name, p.Name)
	case job.DeletionTimestamp != nil:
		return refuse(ReasonOwnerGone, "Job %s, the owner of pod %s, is being deleted", job.Name, p.Name)
	case job.Spec.ManagedBy != nil && *job.Spec.ManagedBy != batchv1.JobControllerName:
		return refuse(ReasonUnsupportedOwner, "Job %s is managed by %s: nothing is known of how that takes another pod for its own", job.Name, *job.Spec.ManagedBy)
	case job.Spec.Suspend != nil && *job.Spec.Suspend:
		return refuse(ReasonOwnerSuspended, "Job %s, the owner of pod %s, is suspended", job.Name, p.Name)
	case job.Spec.Parallelism != nil && *job.Spec.Parallelism == 0:
		return refuse(ReasonOwnerScaledToZero, "Job %s, the owner of pod %s, has parallelism 0", job.Name, p.Name)
	}
	if c := jobEnd(job); c != "" {
		return refuse(ReasonOwnerFinished, "Job %s, the owner of pod %s, has ended or is about to: %s", job.Name, p.Name, c)
	}
	return nil
}

// jobEnd is the condition by which a Job says that it wants no more pods; empty: none.
func jobEnd(job *batchv1.Job) string {
	for _, c := range job.Status.Conditions {
		ends := []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed, batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget}
		if c.Status == corev1.ConditionTrue && slices.Contains(ends, c.Type) {
			return string(c.Type)
		}
	}
	return ""
}

func (r *Reconciler) job(ctx context.Context, namespace, name string) (*batchv1.Job, error) {
	var job batchv1.Job
	found, err := r.get(ctx, namespace, name, &job)
	if err != nil || !found {
		return nil, err
	}
	return &job, nil
}

// releasedFromJob tells that the source is the Job's no more, by our own write: a Job that
// is deleted without its pods leaves them the labels.
func releasedFromJob(source *corev1.Pod, saved HandOver) bool {
	ref := ownerIn(saved)
	return ref != nil && isOf(ref, batchv1.GroupName, "Job") &&
		controllerOf(source) == nil && source.Labels[batchv1.ControllerUidLabel] == ""
}

// adoptByJob gives the Job the replacement for the source. Once it has begun nothing of it waits for the
// replacement to be ready: the shorter the Job is a pod short, the less likely it makes one.
func (r *Reconciler) adoptByJob(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p, source *corev1.Pod, hand HandOver) (done bool, _ ctrl.Result, _ error) {
	job, err := r.job(ctx, m.Namespace, ownerIn(hand).Name)
	if err != nil {
		return false, ctrl.Result{}, err
	}
	owned := &corev1.Pod{}
	owned.Name, owned.OwnerReferences = m.Status.Source.PodName, hand.Owners
	if why := judgeJob(owned, job); why != nil {
		result, err := r.withoutJob(ctx, m, f, p, source, hand, job, why)
		return false, result, err
	}
	if source != nil && ofJob(source) && leasing(m) && sinceWhole(m, f.Now) <= r.Config.ReadyDeadline {
		// Its Services have it until then.
		if why := notYet(m, f, r.Config, p, source); why != nil {
			result, err := r.await(ctx, m, f, why)
			return false, result, err
		}
	}
	if held, result, err := r.onHold(ctx, m, f, p, hand); !held || err != nil {
		return false, result, err
	}
	if source != nil && ofJob(source) {
		if leasing(m) {
			if done, result, err := r.letGo(ctx, m, f, source); !done || err != nil {
				return false, result, err
			}
		} else if err := r.releaseFromJob(ctx, source); isRefusal(err) && !apierrors.IsNotFound(err) {
			// The Job has its pod, and nothing is to be kept from it meanwhile.
			if err := r.unhold(ctx, m, ""); err != nil {
				return false, ctrl.Result{}, err
			}
			result, err := r.await(ctx, m, f, refuse(ReasonNotReleased,
				"the pod runs on node %s as %s; the API server does not take it that pod %s leaves Job %s: let it be patched. It says: %v", m.Status.Target.Node, p.Name, source.Name, job.Name, err))
			return false, result, err
		} else if err != nil {
			return false, ctrl.Result{}, err
		}
	}
	if err := r.give(ctx, p, hand); err != nil {
		return false, ctrl.Result{}, err
	}
	return true, ctrl.Result{}, nil
}

// withoutJob: the Job wants no more pods. Its own pods it deletes, and with them goes the
// replacement; a source that was released before, or that has ended, is waited for no more.
func (r *Reconciler) withoutJob(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p, source *corev1.Pod, hand HandOver, job *batchv1.Job, why *Refusal) (ctrl.Result, error) {
	if job != nil && slices.Contains(job.Finalizers, metav1.FinalizerOrphanDependents) && (source == nil || !ofJob(source)) {
		// Deleted without its pods, after the release: the replacement is nobody's.
		hand.Owners, hand.Finalizers = nil, nil
		return ctrl.Result{RequeueAfter: again}, r.give(ctx, p, hand)
	}
	live := source != nil && source.DeletionTimestamp == nil && ofJob(source) &&
		source.Status.Phase != corev1.PodFailed && source.Status.Phase != corev1.PodSucceeded
	if live {
		return r.await(ctx, m, f, refuse("WaitingForOwner", "%s; waiting for what becomes of the pod", why.Message))
	}
	return r.discard(ctx, m, f, p, refuse(why.Reason, "moved to node %s, but %s: the pod was deleted with it", m.Status.Target.Node, why.Message))
}

// releaseFromJob is the one write by which the Job loses sight of the source. All labels
// go, so that no Service and no selector finds the source either.
func (r *Reconciler) releaseFromJob(ctx context.Context, source *corev1.Pod) error {
	labels := map[string]any{}
	for k := range source.Labels {
		labels[k] = nil
	}
	return r.patch(ctx, source, map[string]any{
		"labels":          labels,
		"ownerReferences": nil,
		"finalizers":      without(source.Finalizers, batchv1.JobTrackingFinalizer),
		// Lists are replaced as a whole: only if they are still as they were read.
		"resourceVersion": source.ResourceVersion,
	})
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}

// letEnd writes down that the source's processes may be ended, if the agent waits for that.
// changed: it was written now.
func (r *Reconciler) letEnd(ctx context.Context, m *v1alpha1.PodMigration, f Facts, says string) (changed bool, _ error) {
	if !v1alpha1.SourceKept(&m.Status) || m.Status.Adopted || m.Status.Lost {
		return false, nil
	}
	if err := r.unhold(ctx, m, ""); err != nil {
		return false, err
	}
	m.Status.Adopted = true
	note(m, f.Now, "Adopted", says)
	if err := r.save(ctx, m); err != nil {
		return false, fmt.Errorf("let the source end: %w", err)
	}
	return true, nil
}
