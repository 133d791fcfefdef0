package nodeagent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
	"github.com/drover-project/drover/internal/view"
)

func deployed(of, suffix string, addresses ...string) corev1.Pod {
	yes := true
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: of + "-5f-" + suffix, UID: types.UID("uid-" + suffix), Labels: map[string]string{"pod-template-hash": "5f"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: of + "-5f", Controller: &yes}}}}
	for _, a := range addresses {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return p
}

func deployment(name string) model.Workload {
	return model.WorkloadOf("shop", "Deployment", name)
}

func TestEndsAreOfPodsWithAddressesOfTheirOwn(t *testing.T) {
	both, host, ended, waits := deployed("web", "a", "10.1.0.5", "fd00::5"), deployed("web", "b", "10.0.0.1"), deployed("web", "c", "10.1.0.6"), deployed("web", "d")
	ending := deployed("web", "e", "10.1.0.7")
	ending.DeletionTimestamp = &metav1.Time{}
	host.Spec.HostNetwork, ended.Status.Phase = true, corev1.PodSucceeded
	want := map[model.PodID]model.End{podID(&both): {Workload: deployment("web"), Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")}}}
	if got := endsOf([]corev1.Pod{both, host, ended, ending, waits}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestWhoseAnEndIs(t *testing.T) {
	says := func(w string, addresses ...string) view.Node {
		var n view.Node
		for _, a := range addresses {
			n.State.Ends = append(n.State.Ends, model.End{Workload: deployment(w), Addresses: []netip.Addr{netip.MustParseAddr(a)}})
		}
		return n
	}
	s := view.Snapshot{Nodes: map[model.NodeID]view.Node{
		"n2": says("db", "10.2.0.5", "10.9.0.1"), "n3": says("liar", "10.2.0.6", "10.2.0.5", "10.9.0.2", "10.9.0.1"),
		"n4": says("db", "10.9.0.3"), "n5": says("db", "10.9.0.3"), "n6": says("db", "10.9.0.1"),
	}}
	for id, phase := range map[model.NodeID]model.Phase{"n7": model.Dead, "n8": model.Left} {
		gone := says("gone", "10.9.0.2", "10.9.0.4")
		gone.Phase = phase
		s.Nodes[id] = gone
	}
	local := deployed("web", "a", "10.1.0.5")
	for what, test := range map[string]struct {
		at   traffic.Endpoint
		want string
	}{
		"a pod of this node":                 {traffic.Endpoint{Node: "n1", Pod: podID(&local)}, "web"},
		"one that is gone":                   {traffic.Endpoint{Node: "n1", Pod: model.PodID{UID: "gone"}}, ""},
		"another node's":                     {traffic.Endpoint{Node: "n2", Address: "10.2.0.5"}, "db"},
		"one that its node does not tell of": {traffic.Endpoint{Node: "n2", Address: "10.2.0.6"}, ""},
		"on a node that is not known":        {traffic.Endpoint{Node: "n9", Address: "10.2.0.5"}, ""},
		"on whatever node, told by one":      {traffic.Endpoint{Address: "10.9.0.2"}, "liar"},
		"told by two in the same way":        {traffic.Endpoint{Address: "10.9.0.3"}, "db"},
		"told by two, in different ways":     {traffic.Endpoint{Address: "10.9.0.1"}, ""},
		"told by nodes that are gone":        {traffic.Endpoint{Address: "10.9.0.4"}, ""},
		"told by nobody":                     {traffic.Endpoint{Address: "192.0.2.1"}, ""},
		"a node":                             {traffic.Endpoint{Node: "n2"}, ""},
		"everybody else":                     {traffic.Other, ""},
	} {
		got, ok := newOwners([]corev1.Pod{local}, talksWith(test.at), s, false).Remote(test.at)
		var want model.Workload
		if test.want != "" {
			want = deployment(test.want)
		}
		if got != want || ok != (test.want != "") {
			t.Errorf("%s: %v, %v; want %q", what, got, ok, test.want)
		}
	}
	stranger := traffic.Endpoint{Address: "10.9.0.2"}
	if o := newOwners(nil, talksWith(stranger), s, false); len(o.anywhere) != 1 {
		t.Errorf("of one address that is asked for %v are kept", o.anywhere)
	}
	if w, ok := newOwners(nil, talksWith(stranger), s, true).Remote(stranger); ok {
		t.Errorf("on no node, where addresses tell of nodes: %v", w)
	}
}

func talksWith(remotes ...traffic.Endpoint) (talks []traffic.Talk) {
	for _, r := range remotes {
		talks = append(talks, traffic.Talk{Remote: r})
	}
	return talks
}

// Where addresses tell nothing of nodes, all ends of all nodes are looked through for the addresses that
// pods of this node have talked to.
func BenchmarkWhoseStrangersAre(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			s := view.Snapshot{Nodes: map[model.NodeID]view.Node{}}
			for n := range nodes {
				var node view.Node
				for i := range edges.MostEnds {
					node.State.Ends = append(node.State.Ends, model.End{Workload: deployment("db"), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(i)})}})
				}
				s.Nodes[model.NodeID(fmt.Sprint("n", n))] = node
			}
			var talks []traffic.Talk
			for i := range 200 {
				talks = append(talks, talksWith(traffic.Endpoint{Address: fmt.Sprintf("10.0.%d.%d", i%nodes, i%edges.MostEnds)})...)
			}
			for b.Loop() {
				if w, ok := newOwners(nil, talks, s, false).Remote(talks[0].Remote); !ok {
					b.Fatal(w)
				}
			}
		})
	}
}

// What was written down is known after a restart; a file that is broken keeps no agent from starting.
func TestEdgesOutlastTheAgent(t *testing.T) {
	a := &agent{cfg: Config{Layout: layout.Layout{State: t.TempDir()}}, log: slog.New(slog.DiscardHandler)}
	if got := a.rememberedEdges(); got != nil {
		t.Errorf("at first %v", got)
	}
	want := []edges.Remembered{{Edge: model.Edge{Local: deployment("web"), Remote: deployment("db"), Volume: 7}, At: time.Unix(1_000_000, 0).UTC()}}
	a.rememberEdges(want)
	if got := a.rememberedEdges(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := os.WriteFile(a.edgesFile(), []byte(`[{"local":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := a.rememberedEdges(); got != nil {
		t.Errorf("of a broken file %v", got)
	}
}
