package nodeagent

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestLeanKeepsAllElse(t *testing.T) {
	written := []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:status":{}}`)}}}
	for what, c := range map[string]struct{ in, want any }{
		"node": {
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", ManagedFields: written},
				Status: corev1.NodeStatus{Images: []corev1.ContainerImage{{Names: []string{"i"}}}, NodeInfo: corev1.NodeSystemInfo{BootID: "b"}}},
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: "b"}}},
		},
		"pod": {
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", ManagedFields: written}, Spec: corev1.PodSpec{NodeName: "n"}},
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "n"}},
		},
	} {
		got, err := lean(c.in)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}
