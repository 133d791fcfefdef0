// Package remains looks for what moves must not leave behind, on the nodes of a lab and in
// the API server: processes, frozen control groups, network locks, images, mounts, notes,
// fences, claims on pods. It is for tests whose moves have all ended.
//
// What must stay is no remainder: the fence of a pod whose object, or whose move's record, is
// still there (a kubelet could start it); the note of a copy that runs; the note that a pod
// has arrived, as long as there is the pod.
package remains

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/lab"
)

// objects are what the API server has.
type objects struct {
	pods  map[types.UID]*corev1.Pod
	moves map[types.NamespacedName]*v1alpha1.PodMigration
}

// on tells whether there is the pod, on that node.
func (o objects) on(node string, uid types.UID) bool {
	p := o.pods[uid]
	return p != nil && p.Spec.NodeName == node
}

// Find lists what is left, one line each, sorted; nothing is the good answer. What is being
// cleared away just now is on the list too: ask again until it is empty.
func Find(ctx context.Context, l *lab.Lab, c client.Client) ([]string, error) {
	o, err := read(ctx, c)
	if err != nil {
		return nil, err
	}
	left := o.left()
	for _, n := range l.Config.Nodes {
		found, err := onNode(l, n.Name, o)
		if err != nil {
			return nil, fmt.Errorf("look for remains on node %s: %w", n.Name, err)
		}
		for _, f := range found {
			left = append(left, "node "+n.Name+": "+f)
		}
	}
	slices.Sort(left)
	return left, nil
}

func read(ctx context.Context, c client.Client) (objects, error) {
	o := objects{pods: map[types.UID]*corev1.Pod{}, moves: map[types.NamespacedName]*v1alpha1.PodMigration{}}
	// Moves first: a pod that is read later than its move is never taken for one whose move
	// has long ended.
	var moves v1alpha1.PodMigrationList
	if err := c.List(ctx, &moves); err != nil {
		return o, fmt.Errorf("list PodMigrations: %w", err)
	}
	var pods corev1.PodList
	if err := c.List(ctx, &pods); err != nil {
		return o, fmt.Errorf("list pods: %w", err)
	}
	for i := range moves.Items {
		m := &moves.Items[i]
		o.moves[client.ObjectKeyFromObject(m)] = m
	}
	for i := range pods.Items {
		o.pods[pods.Items[i].UID] = &pods.Items[i]
	}
	return o, nil
}

// left is what is left in the objects themselves.
func (o objects) left() []string {
	var left []string
	say := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }
	for key, m := range o.moves {
		if v1alpha1.Finished(m) && slices.Contains(m.Finalizers, v1alpha1.Finalizer) {
			say("PodMigration %s has ended and bears its finalizer", key)
		}
	}
	for _, p := range o.pods {
		name := p.Namespace + "/" + p.Name
		for _, a := range []string{v1alpha1.AnnotationMoving, v1alpha1.AnnotationHandOver, costBefore} {
			if v, ok := p.Annotations[a]; ok {
				say("pod %s bears the annotation %s: %q", name, a, v)
			}
		}
		switch p.Annotations[corev1.PodDeletionCost] {
		case "-2147483647", "2147483647":
			say("pod %s bears the deletion cost %s of a hand-over", name, p.Annotations[corev1.PodDeletionCost])
		}
		if uid, ok := p.Labels[v1alpha1.LabelReplacement]; ok {
			say("pod %s is a replacement that was never handed over (PodMigration UID %s)", name, uid)
		}
	}
	return left
}

// costBefore is the controller's own annotation for a user's deletion cost.
const costBefore = "drover.dev/deletion-cost"
