package nodeagent

import (
	"context"
	"iter"
	"maps"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/internal/model"
)

// names resolves what control groups show to what users know, from the newest list of the
// node's pods.
type names struct {
	pods atomic.Pointer[map[string]*corev1.Pod]
}

func (n *names) set(pods []corev1.Pod) {
	m := make(map[string]*corev1.Pod, len(pods))
	for i := range pods {
		m[string(pods[i].UID)] = &pods[i]
	}
	n.pods.Store(&m)
}

// pod gives a pod of this node by its UID.
func (n *names) pod(uid string) (*corev1.Pod, bool) {
	m := n.pods.Load()
	if m == nil {
		return nil, false
	}
	p, ok := (*m)[uid]
	return p, ok
}

// all gives the node's pods in no order.
func (n *names) all() iter.Seq[*corev1.Pod] {
	if m := n.pods.Load(); m != nil {
		return maps.Values(*m)
	}
	return func(func(*corev1.Pod) bool) {}
}

// Container implements measure.PodNames.
func (n *names) Container(podUID, containerID string) (model.PodID, string, bool) {
	p, ok := n.pod(podUID)
	if !ok {
		return model.PodID{}, "", false
	}
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range statuses {
			if _, id, _ := strings.Cut(statuses[i].ContainerID, "://"); id == containerID {
				return podID(p), statuses[i].Name, true
			}
		}
	}
	return model.PodID{}, "", false
}

func podID(p *corev1.Pod) model.PodID {
	return model.PodID{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)}
}

// refresh takes in the node's pods.
func (a *agent) refresh(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := a.cluster.pods(ctx)
	if err == nil {
		a.names.set(pods)
	}
	return pods, err
}
