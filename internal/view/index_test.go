package view

import (
	"fmt"
	"testing"

	"github.com/drover-project/drover/internal/model"
)

func pod(ns, name, uid string) model.PodID {
	return model.PodID{Namespace: ns, Name: name, UID: uid}
}

func TestPodsAreFound(t *testing.T) {
	nodes := map[model.NodeID]Node{
		// db-0 was made again on b after a died; a's word on it is still there.
		"a": {State: model.NodeState{Pods: []model.PodID{pod("x", "db-0", "1"), pod("x", "web", "2")}}},
		"b": {Alive: true, State: model.NodeState{Pods: []model.PodID{pod("x", "db-0", "3"), pod("y", "web", "4")}}},
		// c says that it has b's pod; the answer is the same everywhere.
		"c": {Alive: true, State: model.NodeState{Pods: []model.PodID{pod("y", "web", "4")}}},
	}
	for how, s := range map[string]Snapshot{"by index": {Nodes: nodes, Index: NewIndex(nodes)}, "by looking": {Nodes: nodes}} {
		for _, test := range []struct {
			namespace, name, uid string
			want                 Place
		}{
			{namespace: "x", name: "db-0", want: Place{pod("x", "db-0", "3"), "b", true}},
			{uid: "1", want: Place{pod("x", "db-0", "1"), "a", false}},
			{uid: "3", want: Place{pod("x", "db-0", "3"), "b", true}},
			{namespace: "x", name: "web", want: Place{pod("x", "web", "2"), "a", false}},
			{namespace: "y", name: "web", want: Place{pod("y", "web", "4"), "b", true}},
			{uid: "4", want: Place{pod("y", "web", "4"), "b", true}},
			{namespace: "x", name: "none"},
			{uid: "none"},
		} {
			got, ok := s.PodNamed(test.namespace, test.name)
			if test.uid != "" {
				got, ok = s.PodByUID(test.uid)
			}
			if got != test.want || ok != (test.want != Place{}) {
				t.Errorf("%s: %s/%s or UID %q is at %+v, %t; want %+v", how, test.namespace, test.name, test.uid, got, ok, test.want)
			}
		}
	}
}

func many(nodes, pods int) Snapshot {
	s := Snapshot{Nodes: map[model.NodeID]Node{}}
	for i := range nodes {
		n := Node{Alive: true}
		for j := range pods {
			n.State.Pods = append(n.State.Pods, pod("ns", fmt.Sprint("pod-", i, "-", j), fmt.Sprint("uid-", i, "-", j)))
		}
		s.Nodes[model.NodeID(fmt.Sprint("n", i))] = n
	}
	return s
}

func TestFindingAllocatesNothing(t *testing.T) {
	plain := many(20, 20)
	indexed := plain
	indexed.Index = NewIndex(plain.Nodes)
	for how, s := range map[string]Snapshot{"by index": indexed, "by looking": plain} {
		if _, ok := s.PodNamed("ns", "pod-7-3"); !ok { // builds the index
			t.Fatal("not found")
		}
		n := testing.AllocsPerRun(100, func() {
			_, named := s.PodNamed("ns", "pod-7-3")
			_, byUID := s.PodByUID("uid-7-3")
			if !named || !byUID || s.Age(t0) < 0 {
				t.Fatal("not found")
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", how, n)
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	s := many(1000, 100)
	for b.Loop() {
		s.Index = NewIndex(s.Nodes)
		s.PodByUID("none")
	}
}
