package nodeagent

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
)

func TestProbedNodes(t *testing.T) {
	for _, tt := range []struct {
		n, zones int
		all      bool
	}{{n: 3, zones: 1, all: true}, {n: linkstate.FullMesh, zones: 3, all: true}, {n: linkstate.FullMesh + 1, zones: 3}, {n: 300, zones: 0}, {n: 300, zones: 30}} {
		t.Run(fmt.Sprintf("%d nodes in %d zones", tt.n, tt.zones), func(t *testing.T) {
			all, zones := map[model.NodeID]netip.Addr{}, map[model.NodeID]string{}
			for i := range tt.n {
				id := model.NodeID(fmt.Sprint("n", i))
				all[id] = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
				if tt.zones > 0 {
					zones[id] = fmt.Sprint(i % tt.zones)
				}
			}
			of := map[model.NodeID]map[model.NodeID]netip.Addr{}
			for id := range all {
				of[id] = planned(id, all, zones)
			}
			for id, peers := range of {
				if _, self := peers[id]; self || (len(peers) == tt.n-1) != tt.all {
					t.Fatalf("%s probes %d of %d nodes, itself %v; want all others: %v", id, len(peers), tt.n, self, tt.all)
				}
				for peer, address := range peers {
					if _, back := of[peer][id]; !back || address != all[peer] {
						t.Fatalf("%s probes %s at %v, whose address is %v and who answers it: %v", id, peer, address, all[peer], back)
					}
				}
			}
			for id := range all {
				if _, probed := of["n0"][id]; tt.zones == 30 && id != "n0" && zones[id] == zones["n0"] && !probed {
					t.Errorf("n0 does not probe %s of its zone", id)
				}
			}
		})
	}
}

func TestZonesComeFromLabels(t *testing.T) {
	in := func(name, zone string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if zone != "" {
			n.Labels = map[string]string{"topology.kubernetes.io/zone": zone}
		}
		return n
	}
	a, _, _ := testAgent(t, Act, in("n1", "east"), in("n2", "west"), in("n3", ""))
	nodes, err := a.cluster.nodes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[model.NodeID]string{"n1": "east", "n2": "west"}, zonesOf(nodes)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPodsThatAreTold(t *testing.T) {
	in := func(name string, phase corev1.PodPhase) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}, Status: corev1.PodStatus{Phase: phase}}
	}
	got := holding([]corev1.Pod{in("web", corev1.PodRunning), in("done", corev1.PodSucceeded), in("lost", corev1.PodFailed), in("db", corev1.PodPending)})
	want := []model.PodID{{Namespace: "ns", Name: "db", UID: "uid-db"}, {Namespace: "ns", Name: "web", UID: "uid-web"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
