package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// released tells that the source pod is its owner's no more, and was to be kept for its address: it
// has the mark or, should something have taken that off again, the move for its owner.
func released(m *v1alpha1.PodMigration, source *corev1.Pod) bool {
	return source != nil && (source.Labels[v1alpha1.LabelLease] != "" || metav1.IsControlledBy(source, m))
}

// letGo takes the source out of its owner's hands and out of everybody's count, in place of its
// deletion: in the write before the one that gives the replacement to the owner. Had the owner
// both, it would delete the one too many, and with it the address; while it has neither, it is on
// hold. done: go on.
func (r *Reconciler) letGo(ctx context.Context, m *v1alpha1.PodMigration, f Facts, source *corev1.Pod) (done bool, _ ctrl.Result, _ error) {
	again := ctrl.Result{RequeueAfter: again}
	if err := r.readSelectors(ctx, m, &f); err != nil {
		return false, ctrl.Result{}, err
	}
	off, why := unlisted(source.Labels, f.Takers, f.Policies)
	if foreign := judgeForeign(f); foreign != nil {
		why = foreign
	}
	if why != nil { // since the move was accepted somebody has made such a thing
		return false, again, r.endLease(ctx, m, f, *refuse(ReasonNotReleased, "%s (%s)", why.Message, why.Reason))
	}
	labels := map[string]any{v1alpha1.LabelLease: string(m.UID)}
	for _, k := range off {
		labels[k] = nil
	}
	err := r.patch(ctx, source, map[string]any{
		"labels":          labels,
		"ownerReferences": []metav1.OwnerReference{leaseOwner(m)},
		"finalizers":      without(source.Finalizers, batchv1.JobTrackingFinalizer),
		"annotations":     map[string]any{corev1.PodDeletionCost: nil},
		// Lists are replaced as a whole: only if they are still as they were read.
		"resourceVersion": source.ResourceVersion,
	})
	switch {
	case apierrors.IsInternalError(err) && sinceDecided(m, f.Now) <= r.Config.EndDeadline:
		result, err := r.await(ctx, m, f, refuse("WaitingForRelease",
			"the pod runs on node %s as %s; the API server cannot say whether pod %s may leave its owner to hold its address; the lease ends if that is so %s after the commit. It says: %v",
			m.Status.Target.Node, m.Status.Target.PodName, source.Name, r.Config.EndDeadline, err))
		return false, result, err
	case isRefusal(err) && !apierrors.IsNotFound(err):
		return false, again, r.endLease(ctx, m, f, *refuse(ReasonNotReleased, "the API server does not take it that pod %s leaves its owner to hold its address: %v", source.Name, err))
	case err != nil:
		return false, ctrl.Result{}, err
	}
	if _, has := source.Labels[v1alpha1.LabelLease]; !has || slices.ContainsFunc(off, func(k string) bool { _, has := source.Labels[k]; return has }) {
		return false, again, r.endLease(ctx, m, f, *refuse(ReasonNotReleased, "pod %s was to lose the labels %v and to have %s, and something in the API server gave it others: %v",
			source.Name, off, v1alpha1.LabelLease, source.Labels))
	}
	return true, ctrl.Result{}, nil
}

// leaseOwner is whose the source is while it is kept for its address: nobody else takes it, it goes
// with the record, and kubectl drain leaves no pod alone that it could not evict.
func leaseOwner(m *v1alpha1.PodMigration) metav1.OwnerReference {
	is := true
	return metav1.OwnerReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "PodMigration", Name: m.Name, UID: m.UID, Controller: &is}
}

// quiet gives the source's containers an image that does nothing, once their processes have ended: what they
// were cannot be started again, whatever becomes of the fence. changed: it was done now, or the lease
// was ended, for it cannot be.
func (r *Reconciler) quiet(ctx context.Context, m *v1alpha1.PodMigration, f Facts, source *corev1.Pod) (changed bool, _ error) {
	image := m.Status.Connections.HolderImage
	if !m.Status.Source.Ended || runsOnly(source, image) {
		return false, nil
	}
	err := r.giveImage(ctx, source, image)
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		return true, r.endLease(ctx, m, f, *refuse(ReasonHolderRefused, "the API server does not take image %s for pod %s: %v", image, source.Name, err))
	}
	if err == nil && !runsOnly(source, image) {
		return true, r.endLease(ctx, m, f, *altered(source, image))
	}
	return err == nil, err
}

// altered: something in the API server makes the image another, which the fence on the source's
// node would not let through.
func altered(p *corev1.Pod, image string) *Refusal {
	var has []string
	for _, c := range slices.Concat(p.Spec.Containers, movable.Sidecars(&p.Spec)) {
		has = append(has, c.Image)
	}
	return refuse(ReasonHolderRefused, "pod %s was to be given image %s, and the API server answers that it has %s: have what changes images leave that one alone",
		p.Name, image, strings.Join(has, ", "))
}

// quieted tells that the source's containers were given that image.
func quieted(m *v1alpha1.PodMigration, source *corev1.Pod) bool {
	c := m.Status.Connections
	return c != nil && runsOnly(source, c.HolderImage)
}

func runsOnly(p *corev1.Pod, image string) bool {
	other := func(c corev1.Container) bool { return c.Image != image }
	return !slices.ContainsFunc(p.Spec.Containers, other) && !slices.ContainsFunc(movable.Sidecars(&p.Spec), other)
}

// giveImage has all that runs in the pod run another image.
func (r *Reconciler) giveImage(ctx context.Context, p *corev1.Pod, image string, o ...client.PatchOption) error {
	spec := map[string]any{}
	for list, all := range map[string][]corev1.Container{"containers": p.Spec.Containers, "initContainers": movable.Sidecars(&p.Spec)} {
		var set []map[string]any
		for _, c := range all {
			set = append(set, map[string]any{"name": c.Name, "image": image})
		}
		if len(set) > 0 { // none at all would take away those that have done their work
			spec[list] = set
		}
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "spec": spec})
	if err != nil {
		return fmt.Errorf("encode the patch of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	if err := r.Writer.Patch(ctx, p, client.RawPatch(types.StrategicMergePatchType, body), o...); err != nil {
		return fmt.Errorf("give pod %s/%s (UID %s) image %s: %w", p.Namespace, p.Name, p.UID, image, err)
	}
	return nil
}
