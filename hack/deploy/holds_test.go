package deploy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// While a name or an owner is on hold nobody but drover-controller makes such a pod, not
// even an administrator; by a dry run the controller sees that the hold is in force.
func TestHoldsPolicy(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	holds := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: v1alpha1.HoldsConfigMap}}
	controller, _ := c.account("drover-controller", "n1")
	pod := func(name, owner string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: name},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		if owner != "" {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "sum", UID: "uid-sum", Controller: &yes}}
		}
		return p
	}
	refused := func(as client.Client, p *corev1.Pod, o ...client.CreateOption) bool {
		err := as.Create(ctx, p, o...)
		if err != nil && !strings.Contains(err.Error(), "held by drover") {
			t.Fatalf("create pod %s: %v", p.Name, err)
		}
		return err != nil
	}
	// in force, or no more, as the controller sees it.
	force := func(p func() *corev1.Pod, want bool) {
		t.Helper()
		c.until(fmt.Sprintf("the hold does not come to be in force: %t", want), func(context.Context) bool {
			return refused(controller, p(), client.DryRunAll) == want
		})
	}
	set := func(data map[string]string) {
		t.Helper()
		holds.Data = data
		if err := controller.Update(ctx, holds); err != nil {
			t.Fatalf("the controller writes its holds: %v", err)
		}
	}
	if refused(c.admin, pod("db-1", "")) {
		t.Error("a pod is refused while nothing is on hold")
	}
	if err := controller.Get(ctx, client.ObjectKeyFromObject(holds), holds); err != nil {
		t.Fatalf("the controller reads its holds: %v", err)
	}
	set(map[string]string{c.ns + ".db-0": "m", "uid-sum": "m"})
	force(func() *corev1.Pod { return pod("db-0", "") }, true)
	force(func() *corev1.Pod { return pod("sum-probe", "Job") }, true)
	if !refused(c.admin, pod("db-0", "")) || !refused(c.admin, pod("sum-x", "Job")) {
		t.Error("an administrator makes a pod that is on hold")
	}
	if refused(c.admin, pod("db-2", "")) || refused(c.admin, pod("sum", "")) {
		t.Error("other pods are on hold, too")
	}
	if refused(controller, pod("db-0", "")) {
		t.Error("the controller itself is refused")
	}
	set(nil)
	force(func() *corev1.Pod { return pod("sum-probe", "Job") }, false)
	if refused(c.admin, pod("sum-x", "Job")) {
		t.Error("a pod is refused after the hold")
	}
}

// The name of a moved pod is drover-controller's to choose.
func TestKeepNameIsTheControllers(t *testing.T) {
	c := newCluster(t)
	for _, account := range []string{"drover-agent", "drover-controller"} {
		as, _ := c.account(account, "n1")
		m := c.wish("m-"+account, "db-0-dm2", "n2")
		m.Spec.KeepName = "db-0"
		m.Annotations = map[string]string{v1alpha1.AnnotationOrderedBy: "n1"}
		if account == "drover-controller" {
			m.Annotations = nil
		}
		c.until(account, func(context.Context) bool {
			err := as.Create(t.Context(), m.DeepCopy(), client.DryRunAll)
			if account == "drover-controller" {
				return err == nil
			}
			return err != nil && strings.Contains(err.Error(), "keepName is drover-controller's")
		})
	}
}
