package fit

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/internal/model"
)

func TestBarred(t *testing.T) {
	nodes := []corev1.Node{
		{ObjectMeta: metav1.ObjectMeta{Name: "free", Labels: map[string]string{"disk": "fast"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "cordoned", Labels: map[string]string{"disk": "fast"}}, Spec: corev1.NodeSpec{Unschedulable: true}},
		{ObjectMeta: metav1.ObjectMeta{Name: "tainted", Labels: map[string]string{"disk": "fast"}},
			Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "preferred not", Labels: map[string]string{"disk": "fast"}},
			Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "old", Effect: corev1.TaintEffectPreferNoSchedule}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "slow"}},
	}
	got := Barred(&corev1.Pod{Spec: corev1.PodSpec{NodeSelector: map[string]string{"disk": "fast"}}}, nodes)
	for _, name := range []model.NodeID{"cordoned", "tainted", "slow"} {
		if got[name] == "" {
			t.Errorf("%s is not barred", name)
		}
	}
	if len(got) != 3 {
		t.Errorf("barred %v, want three", got)
	}
}
