package plugin

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/drover-project/drover/internal/arrivals"
	"github.com/drover-project/drover/internal/fit"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

// coming is the book of the pods that come to nodes: those that this profile places, from Reserve
// on, and all others once the informer knows them to be bound.
type coming struct {
	mu   sync.Mutex
	book *arrivals.Book
	// sums are what comes to the nodes by their numbers in a survey; nil: of none yet.
	survey *placement.Survey
	sums   []arrivals.Sum
}

// come notes a pod that was placed.
func (c *coming) come(pod *corev1.Pod, node string, use model.Resources, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.book.Come(string(pod.UID), model.NodeID(node), use, now)
	c.changed(before)
	c.changed(model.NodeID(node))
}

// knows tells whether it is noted that the pod was placed there.
func (c *coming) knows(pod *corev1.Pod, node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.book.Knows(string(pod.UID), model.NodeID(node))
}

// expected is what a pod is held to use.
func expected(pod *corev1.Pod, usual model.Resources) model.Resources {
	return arrivals.Expected(fit.Requests(pod), usual)
}

// drop forgets a pod that is gone.
func (c *coming) drop(pod *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed(c.book.Drop(string(pod.UID)))
}

// changed brings a node's sum up to date.
func (c *coming) changed(id model.NodeID) {
	if c.survey == nil {
		return
	}
	if number, ok := c.survey.Number(id); ok {
		c.sums[number] = c.book.On(id)
	}
}

// run notes that a pod runs.
func (c *coming) run(pod *corev1.Pod, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.book.Run(string(pod.UID), now)
}

// hear forgets the pods that the loads of a picture tell of, and says how many are left.
func (c *coming) hear(s view.Snapshot, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.book.Hear(func(id model.NodeID) time.Time { return s.Nodes[id].Received }, now)
	c.survey = nil
	return c.book.Pods()
}

// by adds up by the numbers of a survey.
func (c *coming) by(survey *placement.Survey) {
	c.survey, c.sums = survey, slices.Grow(c.sums[:0], survey.Size())[:survey.Size()]
	clear(c.sums)
	for id := range c.book.Nodes() {
		c.changed(id)
	}
}

// count has the pods that come count as if they were there already. Their requests are in the
// scheduler's books. numbers are those of the candidates in the survey; -1: it does not know the node.
func (c *coming) count(survey *placement.Survey, numbers []int32, candidates []placement.Candidate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.book.Pods() == 0 {
		return
	}
	if c.survey != survey {
		c.by(survey)
	}
	for i, number := range numbers {
		to, sum := &candidates[i], arrivals.Sum{}
		if number >= 0 {
			sum = c.sums[number]
		} else {
			sum = c.book.On(to.Node)
		}
		if sum.Pods > 0 {
			to.Load.Used = to.Load.Used.Plus(sum.Use)
			to.Reasons = append(to.Reasons, placement.Reason{Kind: placement.KindArrivals, Pods: sum.Pods, Use: sum.Use})
		}
	}
}

// Reserve notes where the pod will be, and has the decision put together beside the scheduling of the next pods:
// until a pod is bound many others are ranked, and the memory of its ranking serves them.
func (r *RouteTime) Reserve(_ context.Context, state fwk.CycleState, pod *corev1.Pod, node string) *fwk.Status {
	r.coming.come(pod, node, r.see(state, pod).needs, r.now())
	if s := ranked(state); s != nil {
		go r.decided(s, pod, node)
	}
	return nil
}

// Unreserve notes that it will not be there.
func (r *RouteTime) Unreserve(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, _ string) {
	r.coming.drop(pod)
}

// handler follows what becomes of pods. Those that run when the scheduler starts are told by
// their nodes' loads.
func (r *RouteTime) handler() cache.ResourceEventHandler {
	changed := func(bound bool, pod *corev1.Pod) {
		switch {
		case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
			r.coming.drop(pod)
			return
		case bound && pod.Spec.NodeName != "" && !r.coming.knows(pod, pod.Spec.NodeName):
			r.coming.come(pod, pod.Spec.NodeName, expected(pod, r.look().PodUse()), r.now())
		}
		if pod.Status.Phase == corev1.PodRunning {
			r.coming.run(pod, r.now())
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if pod, ok := obj.(*corev1.Pod); ok {
				changed(pod.Status.Phase != corev1.PodRunning, pod)
			}
		},
		UpdateFunc: func(before, after any) {
			old, ok := before.(*corev1.Pod)
			if pod, is := after.(*corev1.Pod); ok && is {
				changed(old.Spec.NodeName == "", pod)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if pod, ok := obj.(*corev1.Pod); ok {
				r.coming.drop(pod)
			}
		},
	}
}
