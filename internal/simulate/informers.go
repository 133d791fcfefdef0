package simulate

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// client answers with the cluster's objects, in the order of an API server's lists, by namespace and
// name: the scheduler goes through nodes in the order in which it has heard of them.
func (c *Cluster) client() (kubernetes.Interface, error) {
	client := fake.NewSimpleClientset()
	add := func(o runtime.Object) error {
		if err := client.Tracker().Add(o); err != nil {
			return fmt.Errorf("%s: %w", kindOf(o), err)
		}
		return nil
	}
	for _, n := range c.Nodes {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	for _, p := range c.Pods {
		if err := add(p); err != nil {
			return nil, err
		}
	}
	for _, o := range c.Others {
		if err := add(o); err != nil {
			return nil, err
		}
	}
	return client, nil
}

// handlers are those of plugins, which learn of pods and volumes by them: the scheduler waits for
// its own alone.
type handlers struct {
	mu  sync.Mutex
	all []cache.ResourceEventHandlerRegistration
}

// wait waits until all handlers know of all there is.
func (h *handlers) wait(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return wait.PollUntilContextCancel(ctx, 5*time.Millisecond, true, func(context.Context) (bool, error) {
		return !slices.ContainsFunc(h.all, func(r cache.ResourceEventHandlerRegistration) bool { return !r.HasSynced() }), nil
	})
}

func (h *handlers) add(r cache.ResourceEventHandlerRegistration, err error) (cache.ResourceEventHandlerRegistration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.all = append(h.all, r)
	}
	return r, err
}

// followed is an informer that notes its handlers.
type followed struct {
	cache.SharedIndexInformer
	by *handlers
}

// AddEventHandler implements cache.SharedInformer.
func (f followed) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return f.by.add(f.SharedIndexInformer.AddEventHandler(h))
}

// AddEventHandlerWithResyncPeriod implements cache.SharedInformer.
func (f followed) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, period time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return f.by.add(f.SharedIndexInformer.AddEventHandlerWithResyncPeriod(h, period))
}

// AddEventHandlerWithOptions implements cache.SharedInformer.
func (f followed) AddEventHandlerWithOptions(h cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return f.by.add(f.SharedIndexInformer.AddEventHandlerWithOptions(h, o))
}

// newInformers gives informers of which those of pods and volumes are followed.
func newInformers(client kubernetes.Interface) (informers.SharedInformerFactory, *handlers) {
	factory, by := informers.NewSharedInformerFactory(client, 0), &handlers{}
	namespaced := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	factory.InformerFor(&corev1.Pod{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		return followed{coreinformers.NewPodInformer(c, metav1.NamespaceAll, resync, namespaced), by}
	})
	factory.InformerFor(&corev1.PersistentVolumeClaim{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		return followed{coreinformers.NewPersistentVolumeClaimInformer(c, metav1.NamespaceAll, resync, namespaced), by}
	})
	factory.InformerFor(&corev1.PersistentVolume{}, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		return followed{coreinformers.NewPersistentVolumeInformer(c, resync, cache.Indexers{}), by}
	})
	return factory, by
}
