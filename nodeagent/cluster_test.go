package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

// An API server that does not answer is waited for; one that answers no is not.
func TestAPIServerIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := fmt.Errorf("watch: %w", &url.Error{Op: "Get", URL: "https://api", Err: syscall.ECONNREFUSED})
		log, tries := slog.New(slog.DiscardHandler), 0
		err := whileAway(t.Context(), log, func(context.Context) error {
			if tries++; tries < 100 {
				return away
			}
			return nil
		})
		if err != nil || tries != 100 {
			t.Errorf("%v after %d tries", err, tries)
		}
		forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", nil)
		if err := whileAway(t.Context(), log, func(context.Context) error { return forbidden }); !apierrors.IsForbidden(err) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := whileAway(ctx, log, func(context.Context) error { return away }); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v when it is to end", err)
		}
	})
}
