package controller

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Somebody else's record of the name that the second step would have does not keep a pod from
// getting its own name back; and a step that is there already is not made again.
func TestStepWhoseNameIsTaken(t *testing.T) {
	ctx := context.Background()
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "m", UID: "12345678-9"}}
	squatter := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: childName(m, 1)}}
	w := newWorld(t, m, squatter)
	child := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", OwnerReferences: []metav1.OwnerReference{{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "PodMigration", Name: m.Name, UID: m.UID, Controller: ptr(true),
	}}}}
	for range 2 {
		if err := w.r.makeStep(ctx, m, child, 1); err != nil {
			t.Fatal(err)
		}
	}
	var all v1alpha1.PodMigrationList
	if err := w.api.List(ctx, &all, client.InNamespace("shop")); err != nil {
		t.Fatal(err)
	}
	var steps []string
	for i := range all.Items {
		if metav1.IsControlledBy(&all.Items[i], m) {
			steps = append(steps, all.Items[i].Name)
		}
	}
	if len(steps) != 1 || steps[0] != childName(m, 2) {
		t.Errorf("the steps are %v, want one of the second number", steps)
	}
}
