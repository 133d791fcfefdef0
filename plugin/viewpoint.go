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
	fwk "k8s.io/kube-scheduler/framework"

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
func (r *RouteTime) tellOfPeers(ctx context.Context, pod *corev1.Pod, seen *sight) {
	reason, message := "", ""
	if err := seen.found.Invalid(); err != nil {
		r.metrics.invalid.Inc()
		reason, message = ReasonInvalidPeers, fmt.Sprintf("is malformed, so the pod is placed as one without it: %v", err)
	} else if on, terms := seen.found.On, seen.found.Terms; len(terms) > 0 && (on == 0 || on > placement.MostPeers) {
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
// together, and a selector may match thousands.
type viewpoints struct {
	mu    sync.Mutex
	found time.Time // the oldest
	of    map[shared]*vantage
}

// shared is what pods have in common that are seen from one vantage: the annotation, or without one
// the workload.
type shared struct {
	namespace, annotation string
	workload              model.Workload
}

// vantage is from where pods are seen, how that is known, and the best nodes by one picture as seen from it.
type vantage struct {
	found  peers.Found
	source model.NodeID

	// The best nodes were asked for by this picture, for a pod of these needs; a nil survey: never.
	survey *placement.Survey
	asked  model.Resources
	best   []model.NodeID
}

// sight is from where one pod is seen, and what it is held to need.
type sight struct {
	*vantage
	needs model.Resources
}

// Clone implements fwk.StateData; the state is never changed.
func (s *sight) Clone() fwk.StateData { return s }

func (s *sight) from() placement.Viewpoint {
	return placement.Viewpoint{Peers: s.found.Nodes, Source: s.source, Needs: s.needs}
}

const seenKey fwk.StateKey = "drover.dev/RouteTime/seen"

// see finds out from where a pod is seen, once in an attempt to schedule it.
func (r *RouteTime) see(state fwk.CycleState, pod *corev1.Pod) *sight {
	data, err := state.Read(seenKey)
	if s, ok := data.(*sight); err == nil && ok {
		return s
	}
	s := &sight{r.viewpoint(pod), expected(pod, r.look().PodUse())}
	state.Write(seenKey, s)
	return s
}

// viewpoint is from where the pod is seen, at most reuse old.
func (r *RouteTime) viewpoint(pod *corev1.Pod) *vantage {
	picture := r.look().View()
	look := func() *vantage {
		// Memory cannot fail; if ever it does, nobody is known to be a peer.
		found, _ := peers.Find(pod, r.pods.Pods(pod.Namespace).List, picture)
		return &vantage{found: found, source: sourceOf(pod)}
	}
	// The pod that a replacement takes over from is itself, and no peer.
	if isReplacement(pod) || pod.Annotations[v1alpha1.AnnotationMigratingFrom] != "" {
		return look()
	}
	key := shared{namespace: pod.Namespace}
	if annotation, annotated := pod.Annotations[v1alpha1.AnnotationPeers]; annotated {
		key.annotation = annotation
	} else {
		key.workload = peers.WorkloadOf(pod)
	}
	v, now := &r.viewpoints, r.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if age := now.Sub(v.found); v.of == nil || age < 0 || age >= reuse {
		v.found, v.of = now, map[shared]*vantage{}
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

// bestFrom gives the best nodes for a pod.
func (v *viewpoints) bestFrom(seen *sight, survey *placement.Survey, b *placement.Buffer) []model.NodeID {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := seen.vantage
	if at.survey != survey || at.asked != seen.needs {
		at.survey, at.asked, at.best = survey, seen.needs, slices.Clone(b.Best(survey, seen.from(), mostAsked))
	}
	return at.best
}
