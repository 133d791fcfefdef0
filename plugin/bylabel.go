package plugin

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// byLabel is the informer's index of pods by namespace and label. Without it a selector is held against all pods of the
// namespace, which among thousands takes as long as ranking many pods' nodes.
const byLabel = "drover.dev/label"

func labelKey(namespace, key, value string) string { return namespace + "/" + key + "=" + value }

func labelKeys(obj any) ([]string, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("index %T by label: want a pod", obj)
	}
	keys := make([]string, 0, len(pod.Labels))
	for key, value := range pod.Labels {
		keys = append(keys, labelKey(pod.Namespace, key, value))
	}
	return keys, nil
}

// labelledPods lists pods; those with one label by the index.
type labelledPods struct {
	corelisters.PodLister
	index cache.Indexer
}

// podsByLabel lists the pods of an informer, which all profiles share.
func podsByLabel(informer cache.SharedIndexInformer, all corelisters.PodLister) (corelisters.PodLister, error) {
	if _, there := informer.GetIndexer().GetIndexers()[byLabel]; !there {
		if err := informer.AddIndexers(cache.Indexers{byLabel: labelKeys}); err != nil {
			return nil, fmt.Errorf("index the pods by label: %w", err)
		}
	}
	return labelledPods{all, informer.GetIndexer()}, nil
}

// Pods implements corelisters.PodLister.
func (l labelledPods) Pods(namespace string) corelisters.PodNamespaceLister {
	return labelledPodsOf{l.PodLister.Pods(namespace), namespace, l.index}
}

type labelledPodsOf struct {
	corelisters.PodNamespaceLister
	namespace string
	index     cache.Indexer
}

// List implements corelisters.PodNamespaceLister.
func (l labelledPodsOf) List(selector labels.Selector) ([]*corev1.Pod, error) {
	asked, selectable := selector.Requirements()
	if !selectable || len(asked) != 1 || asked[0].Operator() != selection.Equals {
		return l.PodNamespaceLister.List(selector)
	}
	value, _ := asked[0].Values().PopAny()
	found, err := l.index.ByIndex(byLabel, labelKey(l.namespace, asked[0].Key(), value))
	if err != nil {
		return nil, err
	}
	pods := make([]*corev1.Pod, 0, len(found))
	for _, obj := range found {
		if pod, ok := obj.(*corev1.Pod); ok {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}
