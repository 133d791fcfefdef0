package plugin

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/placement"
)

// viewpoints remembers for a moment from where pods are seen: the replicas of a workload come
// together, and to find the pods that a selector matches takes a look at all of the namespace's.
type viewpoints struct {
	mu    sync.Mutex
	found time.Time // the oldest
	of    map[string]placement.Viewpoint
}

// viewpoint is from where the pod is seen, at most reuse old.
func (r *RouteTime) viewpoint(pod *corev1.Pod) placement.Viewpoint {
	annotation := pod.Annotations[v1alpha1.AnnotationPeers]
	// The pod that a replacement takes over from is itself, and no peer.
	if annotation == "" || isReplacement(pod) {
		return viewpointOf(pod, r.pods)
	}
	v, now, key := &r.viewpoints, r.now(), pod.Namespace+"/"+annotation
	v.mu.Lock()
	defer v.mu.Unlock()
	if age := now.Sub(v.found); v.of == nil || age < 0 || age >= reuse {
		v.found, v.of = now, map[string]placement.Viewpoint{}
	}
	from, known := v.of[key]
	if !known {
		from = viewpointOf(pod, r.pods)
		v.of[key] = from
	}
	return from
}
