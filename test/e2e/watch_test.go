package e2e

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/test/cluster"
)

// watched are the pods that were ever seen in a namespace: also one that an owner makes
// and takes away at once.
type watched struct {
	mu   sync.Mutex
	pods map[types.UID]string
}

// watchPods watches until the test ends.
func watchPods(ctx context.Context, t *testing.T, c *cluster.Cluster, ns string) *watched {
	t.Helper()
	w := &watched{pods: map[types.UID]string{}}
	events, err := c.Client.Watch(ctx, &corev1.PodList{}, client.InNamespace(ns))
	check(t, err)
	t.Cleanup(events.Stop)
	go func() {
		for e := range events.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok {
				w.mu.Lock()
				w.pods[p.UID] = p.Name
				w.mu.Unlock()
			}
		}
	}()
	return w
}

// were wants so many pods to have been seen.
func (w *watched) were(t *testing.T, want int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pods) != want {
		t.Errorf("%d pods were seen, want %d: %v", len(w.pods), want, slices.Sorted(maps.Values(w.pods)))
	}
}
