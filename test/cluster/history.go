package cluster

import (
	"context"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// History is every state of some objects that the API server has shown since it began.
type History struct {
	watch  watch.Interface
	ended  chan struct{}
	events []watch.Event
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
			h.events = append(h.events, e)
		}
	}()
	return h, nil
}

// End stops the history and gives it, in its order.
func (h *History) End() []watch.Event {
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
