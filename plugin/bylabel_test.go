package plugin

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// The index finds what a look at all pods finds, whatever becomes of them.
func TestPodsByLabel(t *testing.T) {
	index := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc, byLabel: labelKeys})
	all := corelisters.NewPodLister(index)
	found := labelledPods{all, index}
	compare := func(when string, want int, namespace, selector string) {
		t.Helper()
		s, err := labels.Parse(selector)
		if err != nil {
			t.Fatal(err)
		}
		names := func(l corelisters.PodLister) (names []string) {
			pods, err := l.Pods(namespace).List(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pods {
				names = append(names, p.Name)
			}
			slices.Sort(names)
			return names
		}
		if is, of := names(found), names(all); len(is) != want || !slices.Equal(is, of) {
			t.Errorf("%s, %s in %s: by the index %v, among all %v, want %d", when, selector, namespace, is, of, want)
		}
	}
	put := func(p *corev1.Pod) {
		if err := index.Update(p); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		put(pod(fmt.Sprint("db", i), labelled("app", "db"), labelled("tier", "back")))
	}
	put(pod("elsewhere", inNamespace("other"), labelled("app", "db")))
	put(pod("none"))
	for _, selector := range []string{"app=db", "tier=back", "app in (db)"} {
		compare("at first", 3, "ns", selector)
	}
	compare("at first", 1, "other", "app=db")
	compare("at first", 0, "ns", "app=web")
	compare("at first", 1, "ns", "app!=db")
	compare("at first", 3, "ns", "app=db,tier=back")
	compare("at first", 3, "ns", "app in (db,web)")

	put(pod("db0", labelled("app", "web")))
	compare("with another label", 2, "ns", "app=db")
	compare("with another label", 1, "ns", "app=web")
	if err := index.Delete(pod("db1")); err != nil {
		t.Fatal(err)
	}
	compare("when one is gone", 1, "ns", "app=db")
}

// Each profile of a scheduler makes its plugin over the one informer.
func TestProfilesShareTheIndex(t *testing.T) {
	factory := informers.NewSharedInformerFactory(fake.NewClientset(pod("db", labelled("app", "db"))), 0)
	for range 2 {
		pods := factory.Core().V1().Pods()
		if _, err := podsByLabel(pods.Informer(), pods.Lister()); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkPodsByLabel finds three of 5,000 pods of a namespace.
func BenchmarkPodsByLabel(b *testing.B) {
	index := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc, byLabel: labelKeys})
	for i := range 5000 {
		if err := index.Add(pod(fmt.Sprint("web", i), labelled("app", "web"), labelled("i", fmt.Sprint(i/3)))); err != nil {
			b.Fatal(err)
		}
	}
	all, selector := corelisters.NewPodLister(index), labels.SelectorFromSet(labels.Set{"i": "7"})
	for name, l := range map[string]corelisters.PodLister{"all": all, "index": labelledPods{all, index}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if found, err := l.Pods("ns").List(selector); err != nil || len(found) != 3 {
					b.Fatal(len(found), err)
				}
			}
		})
	}
}
