package migrate

import (
	"cmp"
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
)

// Kube is Records and Cluster by the Kubernetes API. Client must not read from a cache:
// client.New makes such a one.
type Kube struct{ Client client.Client }

// Get reads a PodMigration.
func (k Kube) Get(ctx context.Context, namespace, name string) (*v1alpha1.PodMigration, error) {
	pm := new(v1alpha1.PodMigration)
	if err := k.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, pm); err != nil {
		return nil, fmt.Errorf("read PodMigration %s/%s: %w", namespace, name, err)
	}
	return pm, nil
}

// UpdateStatus stores the status under pm's resourceVersion.
func (k Kube) UpdateStatus(ctx context.Context, pm *v1alpha1.PodMigration) (*v1alpha1.PodMigration, handoff.Outcome, error) {
	next := pm.DeepCopy()
	if next.ResourceVersion == "" {
		return nil, handoff.Conflict, fmt.Errorf("write PodMigration %s/%s: no resourceVersion to compare with", pm.Namespace, pm.Name)
	}
	err := k.Client.Status().Update(ctx, next)
	if err == nil {
		return next, handoff.OK, nil
	}
	err = fmt.Errorf("write PodMigration %s/%s at version %s: %w", pm.Namespace, pm.Name, pm.ResourceVersion, err)
	switch {
	case apierrors.IsConflict(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err),
		apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsBadRequest(err):
		return nil, handoff.Conflict, err
	}
	return nil, handoff.Unknown, err
}

// Unwanted reads the source pod, its ReplicaSet if it has one, and beside them the replacement:
// a pod stands frozen meanwhile. What other owners want shows in the pod, which they delete.
func (k Kube) Unwanted(ctx context.Context, m Move) (string, error) {
	var leaves, comes string
	var both errgroup.Group
	both.Go(func() (err error) { leaves, err = k.leaves(ctx, m); return err })
	both.Go(func() (err error) { comes, err = k.away(ctx, m.Target, new(corev1.Pod)); return err })
	err := both.Wait()
	if why := cmp.Or(leaves, comes); why != "" {
		return why, nil
	}
	return "", err
}

// leaves is Unwanted of the source pod and its owner.
func (k Kube) leaves(ctx context.Context, m Move) (string, error) {
	var source corev1.Pod
	if why, err := k.away(ctx, m.Source, &source); why != "" || err != nil {
		return why, err
	}
	ref := metav1.GetControllerOf(&source)
	if ref == nil {
		if m.OwnerUID != "" {
			return "the source pod has lost its owner", nil
		}
		return "", nil
	}
	if string(ref.UID) != m.OwnerUID {
		return "the source pod has another owner now", nil
	}
	if ref.Kind != "ReplicaSet" {
		return "", nil
	}
	return k.ownerAway(ctx, m.Source.Namespace, ref)
}

// away tells whether this very pod is gone or being deleted.
func (k Kube) away(ctx context.Context, p Pod, into *corev1.Pod) (string, error) {
	err := k.Client.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: p.Name}, into)
	switch {
	case apierrors.IsNotFound(err):
		return "pod " + p.Name + " is gone", nil
	case err != nil:
		return "", fmt.Errorf("read pod %s/%s: %w", p.Namespace, p.Name, err)
	case string(into.UID) != p.UID:
		return "pod " + p.Name + " is another one now", nil
	case into.DeletionTimestamp != nil:
		return "pod " + p.Name + " is being deleted", nil
	}
	return "", nil
}

func (k Kube) ownerAway(ctx context.Context, namespace string, ref *metav1.OwnerReference) (string, error) {
	owner := new(metav1.PartialObjectMetadata)
	owner.SetGroupVersionKind(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	err := k.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, owner)
	name := ref.Kind + " " + ref.Name
	switch {
	case apierrors.IsNotFound(err), err == nil && owner.UID != ref.UID:
		return name + " is gone", nil
	case apierrors.IsForbidden(err):
		// Without leave to read owners the controller alone watches over them.
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read %s in %s: %w", name, namespace, err)
	case owner.DeletionTimestamp != nil:
		return name + " is being deleted", nil
	}
	return "", nil
}

// BootID reads a Node object.
func (k Kube) BootID(ctx context.Context, node string) (bootID string, gone bool, err error) {
	var n corev1.Node
	err = k.Client.Get(ctx, types.NamespacedName{Name: node}, &n)
	switch {
	case apierrors.IsNotFound(err):
		return "", true, nil
	case err != nil:
		return "", false, fmt.Errorf("read node %s: %w", node, err)
	}
	return n.Status.NodeInfo.BootID, false, nil
}

// FollowMigrations is the handler of an informer of PodMigrations that feeds n.
func FollowMigrations(n Notices) cache.ResourceEventHandler {
	see := func(o any) {
		if pm, ok := o.(*v1alpha1.PodMigration); ok {
			n.Observe(pm)
		}
	}
	gone := func(o any) {
		if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = last.Obj
		}
		if pm, ok := o.(*v1alpha1.PodMigration); ok {
			n.RecordGone(string(pm.UID))
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }, DeleteFunc: gone}
}

// FollowPods is the handler of an informer of pods (this node's are enough) that feeds n.
func FollowPods(n Notices) cache.ResourceEventHandler {
	gone := func(o any) {
		if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = last.Obj
		}
		if p, ok := o.(*corev1.Pod); ok {
			n.PodDeleted(string(p.UID))
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if p, ok := o.(*corev1.Pod); ok && p.DeletionTimestamp != nil {
				gone(o)
			}
		},
		UpdateFunc: func(_, o any) {
			if p, ok := o.(*corev1.Pod); ok && p.DeletionTimestamp != nil {
				gone(o)
			}
		},
		DeleteFunc: gone,
	}
}
