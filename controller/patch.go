package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// patch merges metadata into this very pod object: the UID in it is a precondition, so a
// new pod of the same name is never touched. p is what the server answered.
func (r *Reconciler) patch(ctx context.Context, p *corev1.Pod, metadata map[string]any) error {
	metadata["uid"] = p.UID
	body, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return fmt.Errorf("encode the patch of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	if err := r.Writer.Patch(ctx, p, client.RawPatch(types.MergePatchType, body)); err != nil {
		return fmt.Errorf("patch pod %s/%s (UID %s): %w", p.Namespace, p.Name, p.UID, err)
	}
	return nil
}

// cheapen makes the source the first that its owner takes when it has one too many.
func (r *Reconciler) cheapen(ctx context.Context, source *corev1.Pod) error {
	if source.Annotations[corev1.PodDeletionCost] == costFirst {
		return nil
	}
	return r.patch(ctx, source, map[string]any{"annotations": map[string]any{corev1.PodDeletionCost: costFirst}})
}

// give is the one write by which the replacement becomes its owner's: all of it or nothing.
func (r *Reconciler) give(ctx context.Context, p *corev1.Pod, h HandOver) error {
	labels := map[string]any{v1alpha1.LabelReplacement: nil}
	for k, v := range h.Labels {
		labels[k] = v
	}
	annotations := map[string]any{v1alpha1.AnnotationHandOver: nil}
	if ref := ownerIn(h); ref != nil && isKind(ref, "ReplicaSet") {
		annotations[corev1.PodDeletionCost] = costLast
	}
	if h.Cost != "" {
		annotations[costBefore] = h.Cost
	}
	metadata := map[string]any{"labels": labels, "annotations": annotations}
	if len(h.Owners) > 0 {
		metadata["ownerReferences"] = h.Owners
	}
	if len(h.Finalizers) > 0 {
		metadata["finalizers"] = append(slices.Clone(p.Finalizers), h.Finalizers...)
	}
	return r.patch(ctx, p, metadata)
}

// costBefore keeps a user's own deletion cost while ours is in its place.
const costBefore = "drover.dev/deletion-cost"

// clearCost puts the user's deletion cost back, or none.
func (r *Reconciler) clearCost(ctx context.Context, p *corev1.Pod) error {
	before, had := p.Annotations[costBefore]
	if !had && p.Annotations[corev1.PodDeletionCost] != costLast {
		return nil
	}
	annotations := map[string]any{corev1.PodDeletionCost: nil, costBefore: nil}
	if had {
		annotations[corev1.PodDeletionCost] = before
	}
	return r.patch(ctx, p, map[string]any{"annotations": annotations})
}
