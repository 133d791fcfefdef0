package plugin

import (
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// retryEvery is how often the waiting replacements are held against the newest picture.
const retryEvery = time.Second

// refusals remembers the replacements that were kept off nodes for what the picture said of
// them. No event of the API tells the scheduler's queue that a picture has changed: without
// this such a pod would wait for the next change of a node, or for the queue's five minutes.
type refusals struct {
	mu   sync.Mutex
	pods map[types.UID]*refusal
}

type refusal struct {
	pod   *corev1.Pod
	nodes []string
}

// add notes that the pod was kept off a node.
func (r *refusals) add(pod *corev1.Pod, node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.pods[pod.UID]
	if f == nil {
		f = &refusal{pod: pod}
		r.pods[pod.UID] = f
	}
	f.nodes = append(f.nodes, node)
}

// forget drops what is known of the pod: it is being tried again.
func (r *refusals) forget(pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, pod.UID)
}

func (r *refusals) none() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pods) == 0
}

// waiting gives the pods that were kept off a node which is able now, by namespace and name,
// and drops those for which settled holds. A pod stays until it is tried again: an activation
// that comes while it is still being tried may be lost.
func (r *refusals) waiting(settled func(*corev1.Pod) bool, able func(pod *corev1.Pod, node string) bool) map[string]*corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[string]*corev1.Pod{}
	for uid, f := range r.pods {
		switch {
		case settled(f.pod):
			delete(r.pods, uid)
		case slices.ContainsFunc(f.nodes, func(node string) bool { return able(f.pod, node) }):
			found[klog.KObj(f.pod).String()] = f.pod
		}
	}
	return found
}

// activate has the scheduler try the replacements again that were kept off a node of which
// the newest picture says nothing bad any more.
func (r *RouteTime) activate(log klog.Logger) {
	if r.refused.none() {
		return
	}
	picture := r.look().View()
	found := r.refused.waiting(
		func(pod *corev1.Pod) bool {
			p, err := r.pods.Pods(pod.Namespace).Get(pod.Name)
			return err != nil || p.UID != pod.UID || p.Spec.NodeName != ""
		},
		func(pod *corev1.Pod, node string) bool { return unable(picture, sourceOf(pod), node) == "" },
	)
	if len(found) > 0 {
		r.handle.Activate(log, found)
	}
}
