package plugin

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

func TestAnnotationsThatDoNotDoWhatTheySeemTo(t *testing.T) {
	var many []*corev1.Pod
	for i := range 2000 {
		many = append(many, pod(fmt.Sprint("many", i), on(fmt.Sprint("far", i%40)), labelled("app", "many")))
	}
	itself := labelled("app", "web")
	for _, tt := range []struct {
		name   string
		others []*corev1.Pod
		pod    *corev1.Pod
		want   string
	}{
		{"one selector, two weights", nil, pod("p", annotated(v1alpha1.AnnotationPeers, "app=db,app=db:2")),
			"Warning InvalidPeers annotation drover.dev/peers is malformed, so the pod is placed as one without it: app=db stands there twice, with the weights 1 and 2: leave one"},
		{"thousands of pods", many, pod("p", annotated(v1alpha1.AnnotationPeers, "app=many")),
			"Warning ManyPeers annotation drover.dev/peers selects pods on 40 nodes: the 32 nodes with most of its traffic count"},
		{"its own peer", nil, pod("p", itself, annotated(v1alpha1.AnnotationPeers, "app=db,app=web")),
			"Warning OwnPeer annotation drover.dev/peers selects the pod itself by app=web, and no other pod that runs: no pod is its own peer, so it is placed as one without peers"},
		{"its own peer, and others'", []*corev1.Pod{pod("q", on("n1"), itself)}, pod("p", itself, annotated(v1alpha1.AnnotationPeers, "app=web")), ""},
		{"peers that do not run yet", nil, pod("p", itself, annotated(v1alpha1.AnnotationPeers, "app=db")), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench()
			for i := range 40 {
				b.add(fmt.Sprint("far", i))
			}
			b.start(t, "", tt.others...)
			if refused := b.filter(t, tt.pod); len(refused) > 0 {
				t.Errorf("nodes are refused: %v", refused)
			}
			if got := strings.Join(b.toldOf(), "\n"); got != tt.want {
				t.Errorf("told %q, want %q", got, tt.want)
			}
			b.scores(t, tt.pod)
		})
	}
}

// lists counts how often the pods of a namespace are listed.
type lists struct {
	corelisters.PodLister
	n int
}

func (l *lists) Pods(namespace string) corelisters.PodNamespaceLister {
	return &counted{l.PodLister.Pods(namespace), l}
}

type counted struct {
	corelisters.PodNamespaceLister
	by *lists
}

func (c *counted) List(s labels.Selector) ([]*corev1.Pod, error) {
	c.by.n++
	return c.PodNamespaceLister.List(s)
}

func TestPeersAreLookedUpOnceForAllThatHaveThem(t *testing.T) {
	b := newBench()
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	counting := &lists{PodLister: b.plugin.pods}
	b.plugin.pods = counting
	place := func(p *corev1.Pod) {
		b.plugin.PreFilter(context.Background(), newState(), p, b.infos)
		b.scores(t, p)
	}
	for i := range 10 {
		place(pod(fmt.Sprint("p", i), annotated(v1alpha1.AnnotationPeers, "app=db")))
	}
	if counting.n != 1 {
		t.Errorf("pods are listed %d times for ten pods with the same peers, want once", counting.n)
	}
	place(pod("other", annotated(v1alpha1.AnnotationPeers, "app=db:2")))
	place(pod("there", inNamespace("there"), annotated(v1alpha1.AnnotationPeers, "app=db")))
	if counting.n != 3 {
		t.Errorf("pods are listed %d times for three kinds of peers, want 3", counting.n)
	}
	b.mu.Lock()
	b.now = b.now.Add(reuse)
	b.mu.Unlock()
	place(pod("later", annotated(v1alpha1.AnnotationPeers, "app=db")))
	if counting.n != 4 {
		t.Errorf("pods are listed %d times, want anew after %v", counting.n, time.Duration(reuse))
	}
}
