package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// History is every state of some objects that the API server has shown since it began.
type History struct {
	watch watch.Interface
	ended chan struct{}

	mu      sync.Mutex
	events  []watch.Event
	stopped bool
}

// Follow begins the history of the list's kind of objects in a namespace.
func (c *Cluster) Follow(ctx context.Context, list client.ObjectList, ns string) (*History, error) {
	w, err := c.Client.Watch(ctx, list, client.InNamespace(ns))
	if err != nil {
		return nil, fmt.Errorf("watch %T in %s: %w", list, ns, err)
	}
	h := &History{watch: w, ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		for e := range w.ResultChan() {
			h.add(e)
		}
	}()
	return h, nil
}

func (h *History) add(e watch.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped || e.Type != watch.Error { // a watch that is stopped ends with an error
		h.events = append(h.events, e)
	}
}

// Until waits until the history has an event for which ok is true.
func (h *History) Until(ctx context.Context, what string, ok func(watch.Event) bool) error {
	return Eventually(ctx, what, func(context.Context) (bool, string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.ContainsFunc(h.events, ok), fmt.Sprintf("%d events", len(h.events))
	})
}

// End stops the history and gives it, in its order.
func (h *History) End() []watch.Event {
	h.mu.Lock()
	h.stopped = true
	h.mu.Unlock()
	h.watch.Stop()
	<-h.ended
	return h.events
}

// Revision is the place of an object's state in the history of all objects: the lab has one
// etcd, whose revisions resource versions are.
func Revision(o client.Object) (uint64, error) {
	n, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resource version %q of %s: %w", o.GetResourceVersion(), o.GetName(), err)
	}
	return n, nil
}
