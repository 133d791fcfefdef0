package peers

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

// shop is the workload of a Deployment.
func shop(name string) model.Workload {
	return model.WorkloadOf("shop", "Deployment", name)
}

// picture is built of where so many pods of workloads run that talk, and of what they carry.
type picture map[model.NodeID]view.Node

func (p picture) runs(w string, on model.NodeID, pods int) {
	n := p[on]
	n.State.Node = on
	for range pods {
		n.State.Ends = append(n.State.Ends, model.End{Workload: shop(w), Addresses: []netip.Addr{netip.IPv4Unspecified()}})
	}
	p[on] = n
}

func (p picture) carries(on model.NodeID, from, to string, volume model.Bytes) {
	n := p[on]
	n.State.Edges = append(n.State.Edges, model.Edge{Local: shop(from), Remote: shop(to), Volume: volume})
	p[on] = n
}

func (p picture) snapshot() view.Snapshot { return view.Snapshot{Nodes: p}.Indexed() }

// of gives a pod of a Deployment.
func of(deployment string, change ...func(*corev1.Pod)) *corev1.Pod {
	yes := true
	p := pod("new", "", append([]func(*corev1.Pod){func(p *corev1.Pod) {
		p.Namespace, p.Labels = "shop", map[string]string{"pod-template-hash": "abc"}
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: deployment + "-abc", Controller: &yes}}
	}}, change...)...)
	return p
}

func annotated(peers string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations[v1alpha1.AnnotationPeers] = peers }
}

func nobody(labels.Selector) ([]*corev1.Pod, error) { return nil, nil }

func TestFind(t *testing.T) {
	p := picture{}
	p.runs("db", "n1", 1)
	p.runs("cache", "n2", 3)
	p.runs("cache", "n3", 1)
	p.runs("web", "n4", 2)
	p.runs("web", "n5", 1)
	p.runs("mesh", "n6", 3)
	p.runs("mesh", "n7", 1)
	p.carries("n4", "web", "db", 600)
	p.carries("n4", "web", "cache", 400)
	p.carries("n9", "past", "gone", 400)
	p.carries("n6", "mesh", "mesh", 10)
	dead := p["n3"]
	dead.Phase = model.Dead
	annotatedPods := func(labels.Selector) ([]*corev1.Pod, error) { return []*corev1.Pod{pod("1", "n8")}, nil }
	moving := func(from string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations[v1alpha1.AnnotationMigratingFrom] = from }
	}
	runsOn := func(node string, ips ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.NodeName = node
			for _, ip := range ips {
				p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
			}
		}
	}
	for _, tt := range []struct {
		name  string
		pod   *corev1.Pod
		list  func(labels.Selector) ([]*corev1.Pod, error)
		spoil func()
		by    By
		nodes map[model.NodeID]float64
		why   string
	}{
		// db: 0.6 on n1; cache: 0.4 shared by four pods.
		{name: "observed", pod: of("web"), by: Observed, nodes: map[model.NodeID]float64{"n1": .6, "n2": .3, "n3": .1},
			why: "shop/Deployment/web was seen to talk to shop/Deployment/db (60 %), shop/Deployment/cache (40 %)"},
		{name: "the annotation counts first", pod: of("web", annotated("app=x")), list: annotatedPods, by: Annotated, nodes: map[model.NodeID]float64{"n8": 1}, why: "app=x"},
		{name: "and if none of those runs, none does", pod: of("web", annotated("app=x")), by: None, why: "none runs of those that the annotation names: app=x"},
		{name: "an empty one names nobody", pod: of("web", annotated("")), by: None, why: "the annotation names nobody"},
		{name: "a malformed one does not count", pod: of("web", annotated("app=")), by: Observed, nodes: map[model.NodeID]float64{"n1": .6, "n2": .3, "n3": .1},
			why: `annotation drover.dev/peers is malformed: term "app=": want key=value or key=value:weight; shop/Deployment/web was seen to talk to shop/Deployment/db (60 %), shop/Deployment/cache (40 %)`},
		{name: "the other end", pod: of("db"), by: Observed, nodes: map[model.NodeID]float64{"n4": 2. / 3, "n5": 1. / 3}, why: "shop/Deployment/db was seen to talk to shop/Deployment/web (100 %)"},
		{name: "its peers run nowhere", pod: of("past"), by: None, why: "none runs of those that shop/Deployment/past was seen to talk to: shop/Deployment/gone (100 %)"},
		{name: "nothing was seen", pod: of("idle"), by: None, why: "shop/Deployment/idle was not seen to talk to any pod"},
		{name: "a pod of another namespace", pod: of("web", func(p *corev1.Pod) { p.Namespace = "other" }), by: None, why: "other/Deployment/web was not seen to talk to any pod"},
		{name: "a workload that talks to itself", pod: of("mesh"), by: Observed, nodes: map[model.NodeID]float64{"n6": .75, "n7": .25}, why: "shop/Deployment/mesh was seen to talk to shop/Deployment/mesh (100 %)"},
		{name: "the pod itself is no peer", pod: of("mesh", moving("n6")), by: Observed, nodes: map[model.NodeID]float64{"n6": 2. / 3, "n7": 1. / 3}, why: "shop/Deployment/mesh was seen to talk to shop/Deployment/mesh (100 %)"},
		{name: "a pod that was moved once is where it is", pod: of("mesh", moving("n6"), runsOn("n7")), by: Observed, nodes: map[model.NodeID]float64{"n6": 1}, why: "shop/Deployment/mesh was seen to talk to shop/Deployment/mesh (100 %)"},
		{name: "and where it has not talked, all count", pod: of("mesh", runsOn("n7", "10.9.9.9")), by: Observed, nodes: map[model.NodeID]float64{"n6": .75, "n7": .25}, why: "shop/Deployment/mesh was seen to talk to shop/Deployment/mesh (100 %)"},
		{name: "where it has, it does not", pod: of("mesh", runsOn("n7", "0.0.0.0")), by: Observed, nodes: map[model.NodeID]float64{"n6": 1}, why: "shop/Deployment/mesh was seen to talk to shop/Deployment/mesh (100 %)"},
		{name: "nor where it is alone", pod: of("mesh", moving("n7")), by: Observed, nodes: map[model.NodeID]float64{"n6": 1}, why: "shop/Deployment/mesh was seen to talk to shop/Deployment/mesh (100 %)"},
		{name: "a dead node's pods do not run", pod: of("web"), spoil: func() { p["n3"] = dead }, by: Observed, nodes: map[model.NodeID]float64{"n1": .6, "n2": .4},
			why: "shop/Deployment/web was seen to talk to shop/Deployment/db (60 %), shop/Deployment/cache (40 %)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.spoil != nil {
				tt.spoil()
			}
			list := tt.list
			if list == nil {
				list = nobody
			}
			got, err := Find(tt.pod, list, p.snapshot())
			if err != nil {
				t.Fatal(err)
			}
			about := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
			if diff := cmp.Diff(tt.nodes, got.Nodes, about); diff != "" {
				t.Errorf("nodes (-want +got):\n%s", diff)
			}
			if got.By != tt.by || got.Why() != tt.why {
				t.Errorf("by %s: %s\nwant %s: %s", got.By, got.Why(), tt.by, tt.why)
			}
		})
	}
}

// The index may be older than the picture.
func TestForgottenNodesHaveNoPeers(t *testing.T) {
	p := picture{}
	p.runs("db", "n1", 1)
	p.runs("db", "n2", 1)
	p.carries("n4", "web", "db", 600)
	s := p.snapshot()
	delete(p, "n2")
	got, err := Find(of("web"), nobody, s)
	if diff := cmp.Diff(map[model.NodeID]float64{"n1": 1}, got.Nodes); err != nil || diff != "" {
		t.Errorf("%v, nodes (-want +got):\n%s", err, diff)
	}
}

func TestWhatCannotBeListedIsTold(t *testing.T) {
	got, err := Find(of("web", annotated("app=db")), func(labels.Selector) ([]*corev1.Pod, error) { return nil, errors.New("refused") }, view.Snapshot{})
	if err == nil || !strings.Contains(err.Error(), "refused") || got.By != None || len(got.Nodes) != 0 {
		t.Errorf("by %s %v, error %v", got.By, got.Nodes, err)
	}
}

// many is a list of pods, each on a node of its own.
func many(n int) (pods []*corev1.Pod) {
	for i := range n {
		pods = append(pods, pod(fmt.Sprint(i), fmt.Sprint("n", i)))
	}
	return pods
}

func found(t *testing.T, p *corev1.Pod, listed []*corev1.Pod) Found {
	t.Helper()
	f, err := Find(p, func(labels.Selector) ([]*corev1.Pod, error) { return listed, nil }, view.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Hundreds of replicas on hundreds of nodes in three zones, of which one has half: the nodes that count
// are few, always the same, the heavy ones among them and as many of each zone as there are.
func TestFanOutIsBounded(t *testing.T) {
	p := picture{}
	zone := map[model.NodeID]string{}
	for i := range 400 {
		id := model.NodeID(fmt.Sprintf("zone-%c-%03d", "aabc"[i/100], i))
		p.runs("db", id, 1)
		zone[id] = string(id[5])
	}
	p.runs("db", "heavy", 50)
	p.carries("client", "web", "db", 1000)
	s := p.snapshot()
	got, err := Find(of("web"), nobody, s)
	again, _ := Find(of("web"), nobody, s)
	if err != nil || len(got.Nodes) != maxNodes || got.Nodes["heavy"] == 0 || cmp.Diff(got.Nodes, again.Nodes) != "" {
		t.Fatalf("%v, %v; and again %v", got.Nodes, err, again.Nodes)
	}
	if all := many(maxNodes + 1); len(found(t, of("web", annotated("app=x")), all).Nodes) != maxNodes+1 {
		t.Error("not all count that the annotation names")
	}
	if most := found(t, of("web", annotated("app=x")), many(placement.MostPeers+8)); len(most.Nodes) != placement.MostPeers || most.On != placement.MostPeers+8 {
		t.Errorf("%d of %d nodes count", len(most.Nodes), most.On)
	}
	in := map[string]int{}
	for id := range got.Nodes {
		in[zone[id]]++
	}
	if in["a"] < 3 || in["b"] < 1 || in["c"] < 1 {
		t.Errorf("%v of the zones a (half of all), b and c", in)
	}
}

// Whoever may write pods does not write to the terminal of who asks why.
func TestWhyIsOneLineOfText(t *testing.T) {
	for what, p := range map[string]*corev1.Pod{
		"annotation": of("web", annotated("app=x,\n\u0085app=y"), func(p *corev1.Pod) { p.Labels = nil }),
		"malformed":  of("web", annotated("\x1b[2J=\xff\n")),
		"owner":      of("\x1b[2J\n"),
	} {
		for _, pods := range [][]*corev1.Pod{nil, many(1)} {
			why := found(t, p, pods).Why()
			if strings.ContainsFunc(why, func(r rune) bool { return !strconv.IsPrint(r) || r == utf8.RuneError }) || len(why) > 500 {
				t.Errorf("%s: %q", what, why)
			}
		}
	}
}

func TestWorkloadOf(t *testing.T) {
	yes := true
	owned := func(kind, name string, change ...func(*corev1.Pod)) *corev1.Pod {
		return pod("x", "", append(change, func(p *corev1.Pod) {
			p.Namespace = "ns"
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "Other", Name: "no controller"}, {Kind: kind, Name: name, Controller: &yes}}
		})...)
	}
	hash := func(h string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Labels = map[string]string{"pod-template-hash": h} }
	}
	for want, p := range map[string]*corev1.Pod{
		"ns/Deployment/web":      owned("ReplicaSet", "web-5d4f", hash("5d4f")),
		"ns/ReplicaSet/web-6":    owned("ReplicaSet", "web-6"),
		"ns/ReplicaSet/web-7":    owned("ReplicaSet", "web-7", hash("8")),
		"ns/ReplicaSet/web-":     owned("ReplicaSet", "web-", hash("")),
		"ns/StatefulSet/db":      owned("StatefulSet", "db", hash("5d4f")),
		"ns/CronJob/report":      owned("Job", "report-29381235"),
		"ns/Job/report-2938123":  owned("Job", "report-2938123"),
		"ns/Job/report-2938123x": owned("Job", "report-2938123x"),
		"ns/Job/-29381235":       owned("Job", "-29381235"),
		"ns/Pod/px":              pod("x", "", func(p *corev1.Pod) { p.Namespace = "ns" }),
		"ns/StatefulSet/from-moved": pod("x", "", func(p *corev1.Pod) {
			p.Namespace = "ns"
			p.Annotations[v1alpha1.AnnotationHandOver] = `{"owners":[{"kind":"StatefulSet","name":"from-moved","controller":true}]}`
		}),
		// The label by which the ReplicaSet would take it is withheld from it.
		"ns/Deployment/moved": pod("x", "", func(p *corev1.Pod) {
			p.Namespace, p.Labels = "ns", map[string]string{"app": "web"}
			p.Annotations[v1alpha1.AnnotationHandOver] = `{"labels":{"app":"web","pod-template-hash":"abc"},"owners":[{"kind":"ReplicaSet","name":"moved-abc","controller":true}]}`
		}),
		"odd/Pod/px": pod("x", "", func(p *corev1.Pod) {
			p.Namespace = "odd"
			p.Annotations[v1alpha1.AnnotationHandOver] = `{"owners":`
		}),
		"forged/Pod/px": pod("x", "", func(p *corev1.Pod) {
			p.Namespace = "forged"
			p.Annotations[v1alpha1.AnnotationHandOver] = `{"owners":[{"kind":"StatefulSet","name":"\u001b[2J","controller":true}]}`
		}),
		"long/Pod/px": pod("x", "", func(p *corev1.Pod) {
			p.Namespace = "long"
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: strings.Repeat("x", 200_000), Controller: &yes}}
		}),
	} {
		if got := WorkloadOf(p); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func FuzzWorkloadOf(f *testing.F) {
	f.Add("ReplicaSet", "web-5d", "5d", `{"owners":[{"kind":"Job","name":"x-12345678","controller":true}]}`)
	f.Add("Job", "-12345678", "", "{")
	f.Fuzz(func(t *testing.T, kind, name, hash, hand string) {
		yes := true
		p := pod("x", "", func(p *corev1.Pod) {
			p.Namespace, p.Labels = "ns", map[string]string{"pod-template-hash": hash}
			p.Annotations[v1alpha1.AnnotationHandOver] = hand
		})
		if w := WorkloadOf(p); !w.Valid() {
			t.Fatalf("of a hand-over %q", w)
		}
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &yes}}
		w := WorkloadOf(p)
		if !w.Valid() {
			t.Fatalf("%q", w)
		}
		if w == "ns/Pod/px" {
			return
		}
		if of, is := strings.CutPrefix(string(w), "ns/"+kind+"/"); is && of == name {
			return
		}
		for _, maker := range []string{"ns/Deployment/", "ns/CronJob/"} {
			if of, is := strings.CutPrefix(string(w), maker); is && of != "" && strings.HasPrefix(name, of+"-") {
				return
			}
		}
		t.Fatalf("%s %q: %v", kind, name, w)
	})
}

func BenchmarkFind(b *testing.B) {
	for _, pods := range []int{3, 300} {
		b.Run(fmt.Sprint("replicas=", pods), func(b *testing.B) {
			p := picture{}
			for i := range pods {
				p.runs("db", model.NodeID(fmt.Sprint("n", i)), 1)
			}
			p.carries("n0", "web", "db", 1000)
			s, pod := p.snapshot(), of("web")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Find(pod, nobody, s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
