package plugin

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peers"
	"github.com/drover-project/drover/internal/placement"
)

// Reasons of the events on a pod whose annotation drover.dev/peers does not do what it seems to.
const (
	ReasonInvalidPeers = "InvalidPeers" // it is malformed
	ReasonManyPeers    = "ManyPeers"    // on more nodes than count
	ReasonOwnPeer      = "OwnPeer"      // none but itself
)

// tellOfPeers tells the user what is wrong with the annotation, if anything is.
func (r *RouteTime) tellOfPeers(ctx context.Context, pod *corev1.Pod) {
	reason, message := "", ""
	terms, err := peers.Parse(pod.Annotations[v1alpha1.AnnotationPeers])
	if err != nil {
		r.metrics.invalid.Inc()
		reason, message = ReasonInvalidPeers, fmt.Sprintf("is malformed, so the pod is placed as one without it: %v", err)
	} else if len(terms) > 0 {
		on := len(r.viewpoint(pod).Peers)
		itself := slices.IndexFunc(terms, func(t peers.Term) bool { return t.Selector.Matches(labels.Set(pod.Labels)) })
		switch {
		case on > placement.MostPeers:
			reason, message = ReasonManyPeers, fmt.Sprintf("selects pods on %d nodes: the %d nodes with most of its traffic count", on, placement.MostPeers)
		case on == 0 && itself >= 0:
			reason, message = ReasonOwnPeer, fmt.Sprintf("selects the pod itself by %s, and no other pod that runs: no pod is its own peer, so it is placed as one without peers", terms[itself].Selector)
		}
	}
	if reason == "" {
		return
	}
	message = "annotation " + v1alpha1.AnnotationPeers + " " + message
	klog.FromContext(ctx).Info(message, "pod", klog.KObj(pod))
	if r.events != nil {
		r.events.Eventf(pod, nil, corev1.EventTypeWarning, reason, "Scheduling", "%s", message)
	}
}

// viewpoints remembers for a moment from where pods are seen: the replicas of a workload come
// together, and to find the pods that a selector matches takes a look at all of the namespace's.
type viewpoints struct {
	mu    sync.Mutex
	found time.Time // the oldest
	of    map[string]*vantage
}

// vantage is a viewpoint, how it is known, and the best nodes by one picture as seen from it.
type vantage struct {
	placement.Viewpoint
	found peers.Found

	// The best nodes were asked for by this picture, for a pod of these needs; a nil survey: never.
	survey *placement.Survey
	needs  model.Resources
	best   []model.NodeID
}

// of is the viewpoint of a pod with these needs.
func (v *vantage) of(needs model.Resources) placement.Viewpoint {
	from := v.Viewpoint
	from.Needs = needs
	return from
}

// viewpoint is from where the pod is seen, at most reuse old.
func (r *RouteTime) viewpoint(pod *corev1.Pod) *vantage {
	picture := r.look().View()
	look := func() *vantage {
		from, found := viewpointOf(pod, r.pods, picture)
		return &vantage{Viewpoint: from, found: found}
	}
	annotation := pod.Annotations[v1alpha1.AnnotationPeers]
	// The pod that a replacement takes over from is itself, and no peer.
	if annotation == "" || isReplacement(pod) {
		return look()
	}
	v, now, key := &r.viewpoints, r.now(), pod.Namespace+"/"+annotation
	v.mu.Lock()
	defer v.mu.Unlock()
	if age := now.Sub(v.found); v.of == nil || age < 0 || age >= reuse {
		v.found, v.of = now, map[string]*vantage{}
	}
	from, known := v.of[key]
	if !known {
		// By a malformed annotation the peers are the workload's, which others with the same need not be of.
		if from = look(); from.found.Invalid() == nil {
			v.of[key] = from
		}
	}
	return from
}

// bestFrom gives the best nodes for a pod of these needs as seen from a vantage.
func (v *viewpoints) bestFrom(from *vantage, needs model.Resources, survey *placement.Survey, b *placement.Buffer) []model.NodeID {
	v.mu.Lock()
	defer v.mu.Unlock()
	if from.survey != survey || from.needs != needs {
		from.survey, from.needs, from.best = survey, needs, slices.Clone(b.Best(survey, from.of(needs), mostAsked))
	}
	return from.best
}
