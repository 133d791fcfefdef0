package plugin

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

// deployed makes a pod one of a Deployment, at a revision of it.
func deployed(name, revision string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		if p.Labels == nil {
			p.Labels = map[string]string{}
		}
		p.Labels["pod-template-hash"] = revision
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: name + "-" + revision, Controller: &yes}}
	}
}

// carried has a pod of web on n2 exchange so much with one of db, wherever that is, and n2 tell of it.
func (b *bench) carried(bytes model.Bytes) {
	web, db := model.WorkloadOf("ns", "Deployment", "web"), model.WorkloadOf("ns", "Deployment", "db")
	b.mu.Lock()
	defer b.mu.Unlock()
	l := edges.NewLedger()
	l.Feed(b.now, []traffic.Talk{{Local: traffic.Endpoint{Pod: model.PodID{Namespace: "ns", Name: "web-1"}, Node: "n2"}, Remote: traffic.Endpoint{Node: "n1", Address: "10.1.0.5"}, Sent: bytes}},
		both{web, db})
	n := b.picture.Nodes["n2"]
	n.State.Edges = l.Edges(b.now)
	b.picture.Nodes["n2"] = n
	b.picture = b.picture.Indexed()
}

// runs has a node tell that a pod of db runs there.
func (b *bench) runs(on model.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, n := range b.picture.Nodes {
		n.State.Ends = nil
		if id == on {
			n.State.Ends = []model.End{{Workload: model.WorkloadOf("ns", "Deployment", "db"), Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.5")}}}
		}
		b.picture.Nodes[id] = n
	}
	b.picture = b.picture.Indexed()
}

// both are the workloads of the two ends.
type both struct{ local, remote model.Workload }

func (w both) Local(model.PodID) (model.Workload, bool) { return w.local, true }

func (w both) Remote(traffic.Endpoint) (model.Workload, bool) { return w.remote, true }

// Nobody says who talks to whom. The first pod of a workload goes to the node with the best mean; when it
// was seen to talk to a pod on n1, the next one goes there, whatever revision it is of, as it would with
// the annotation; and it follows when that pod is elsewhere.
func TestAWorkloadIsPlacedBetterTheSecondTime(t *testing.T) {
	b := newBench()
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	scores := func(what string, p *corev1.Pod, want map[string]int64) {
		t.Helper()
		if diff := cmp.Diff(want, b.scores(t, p)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		b.now = b.now.Add(reuse)
	}
	mean, near, elsewhere := map[string]int64{"n1": 60, "n2": 100, "n3": 0}, map[string]int64{"n1": 100, "n2": 46, "n3": 0}, map[string]int64{"n1": 0, "n2": 10, "n3": 100}
	scores("the first time", pod("web-1", deployed("web", "a")), mean)
	b.carried(1000)
	scores("when its peer's node does not tell yet where that is", pod("web-2", deployed("web", "a")), mean)
	b.runs("n1")
	scores("the second time", pod("web-2", deployed("web", "a")), near)
	scores("as with the annotation", pod("x", annotated(v1alpha1.AnnotationPeers, "app=db")), near)
	scores("a new revision", pod("web-3", deployed("web", "b")), near)
	scores("a malformed annotation", pod("web-3", deployed("web", "b"), annotated(v1alpha1.AnnotationPeers, "app=")), near)
	scores("another workload", pod("other-1", deployed("other", "a")), mean)
	b.runs("n3")
	scores("the peer is elsewhere", pod("web-4", deployed("web", "b")), elsewhere)
	scores("the annotation counts first", pod("web-4", deployed("web", "b"), annotated(v1alpha1.AnnotationPeers, "app=db")), near)
}

func TestADecisionSaysHowThePeersWereKnown(t *testing.T) {
	b := newBench()
	b.carried(1000)
	b.runs("n1")
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	for _, tt := range []struct {
		pod     *corev1.Pod
		by, why string
		peers   map[model.NodeID]float64
	}{
		{pod("p1", annotated(v1alpha1.AnnotationPeers, "app=db")), "annotation", "app=db", map[model.NodeID]float64{"n1": 1}},
		{pod("p2", deployed("web", "a")), "observed", "ns/Deployment/web was seen to talk to ns/Deployment/db (100 %)", map[model.NodeID]float64{"n1": 1}},
		{pod("p3"), "none", "ns/Pod/p3 was not seen to talk to any pod", nil},
	} {
		d := b.bind(t, tt.pod, "n1")
		if d.PeersBy != tt.by || d.PeersWhy != tt.why || cmp.Diff(tt.peers, d.Peers) != "" {
			t.Errorf("%s: by %s: %s: %v, want by %s: %s: %v", tt.pod.Name, d.PeersBy, d.PeersWhy, d.Peers, tt.by, tt.why, tt.peers)
		}
	}
}

// The replicas of a workload are seen from one vantage, which is found once; a pod that takes over from another
// is on its own.
func TestReplicasAreSeenFromOneVantage(t *testing.T) {
	b := newBench()
	b.carried(1000)
	b.runs("n1")
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	one := b.plugin.viewpoint(pod("web-1", deployed("web", "a")))
	if len(one.found.Nodes) != 1 {
		t.Fatalf("peers on %v, want one node", one.found.Nodes)
	}
	moved := annotated(v1alpha1.AnnotationMigratingFrom, "n2")
	for _, tt := range []struct {
		name string
		pod  *corev1.Pod
		same bool
	}{
		{"a replica", pod("web-2", deployed("web", "a")), true},
		{"of a later revision", pod("web-3", deployed("web", "b")), true},
		{"another workload's", pod("other", deployed("other", "a")), false},
		{"of another namespace", pod("web-2", deployed("web", "a"), inNamespace("there")), false},
		{"that has refused", pod("web-4", deployed("web", "a"), annotated(v1alpha1.AnnotationPeers, "")), false},
		{"with a malformed annotation", pod("web-5", deployed("web", "a"), annotated(v1alpha1.AnnotationPeers, "app=")), false},
		{"with an annotation", pod("web-6", deployed("web", "a"), annotated(v1alpha1.AnnotationPeers, "app=db")), false},
		{"that came from elsewhere", pod("web-7", deployed("web", "a"), moved), false},
	} {
		if same := b.plugin.viewpoint(tt.pod) == one; same != tt.same {
			t.Errorf("%s: the same vantage: %v, want %v", tt.name, same, tt.same)
		}
	}
	b.now = b.now.Add(reuse)
	if b.plugin.viewpoint(pod("web-8", deployed("web", "a"))) == one {
		t.Errorf("the same vantage after %v", reuse)
	}
}

// A peer of hundreds of replicas costs about as much as one on as many nodes as count.
func BenchmarkPreScoreOfObservedPeers(b *testing.B) {
	for _, replicas := range []int{1, 8, 400} {
		b.Run(fmt.Sprint("nodes=500/replicas=", replicas), func(b *testing.B) {
			bench := large(500)
			bench.carried(1000)
			for i := range replicas {
				id := model.NodeID(fmt.Sprint("n", 1+i))
				n := bench.picture.Nodes[id]
				n.State.Ends = []model.End{{Workload: model.WorkloadOf("ns", "Deployment", "db"), Addresses: []netip.Addr{netip.IPv4Unspecified()}}}
				bench.picture.Nodes[id] = n
			}
			bench.picture = bench.picture.Indexed()
			bench.start(b, "")
			p := pod("web-2", deployed("web", "a"))
			if len(bench.plugin.viewpoint(p).found.Nodes) == 0 {
				b.Fatal("no peers")
			}
			b.ReportAllocs()
			for b.Loop() {
				state := newState()
				bench.plugin.PreScore(b.Context(), state, p, bench.infos)
				bench.plugin.release(state)
			}
		})
	}
}
