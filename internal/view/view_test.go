package view

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestAges(t *testing.T) {
	n := Node{
		Received: t0,
		Alive:    true,
		State: model.NodeState{
			// The measuring node's clock is an hour behind: it must not matter.
			Load:      model.Load{At: t0.Add(-time.Hour)},
			Routes:    map[model.NodeID]model.RouteTime{"b": {At: t0.Add(-time.Hour - 3*time.Second)}},
			PodRoutes: map[model.NodeID]model.RouteTime{"b": {At: t0.Add(-time.Hour - time.Second)}},
		},
	}
	if age, ok := n.Age(t0.Add(2 * time.Second)); !ok || age != 2*time.Second {
		t.Errorf("age = %v, %v; want 2s", age, ok)
	}
	if age, ok := n.Age(t0.Add(-time.Second)); !ok || age != 0 {
		t.Errorf("age with a clock gone back = %v, %v; want 0", age, ok)
	}
	if age, ok := n.RouteAge(model.PathNode, "b", t0.Add(2*time.Second)); !ok || age != 5*time.Second {
		t.Errorf("route age = %v, %v; want 3s + 2s", age, ok)
	}
	if age, ok := n.RouteAge(model.PathPod, "b", t0.Add(2*time.Second)); !ok || age != 3*time.Second {
		t.Errorf("age of the pod path = %v, %v; want 1s + 2s", age, ok)
	}
	// Told 20 s before the load that stands for it now, 3 s after the answer.
	n.State.RoutesAt, n.State.Load.At = n.State.Load.At, n.State.Load.At.Add(20*time.Second)
	if age, ok := n.RouteAge(model.PathNode, "b", t0.Add(2*time.Second)); !ok || age != 5*time.Second {
		t.Errorf("age of a route that stands = %v, %v; want 3s + 2s", age, ok)
	}
	if _, ok := n.RouteAge(model.PathNode, "c", t0); ok {
		t.Error("a route that was never measured has no age")
	}
	if _, ok := (Node{Alive: true}).Age(t0); ok {
		t.Error("a node that was never heard has no age")
	}
}

func TestOrderAndLookup(t *testing.T) {
	s := Snapshot{
		At:    t0,
		Nodes: map[model.NodeID]Node{"c": {Alive: true}, "a": {}, "b": {Alive: true}},
		Locations: []model.Location{
			{Origin: "2", Pod: model.PodID{Namespace: "x", Name: "b"}},
			{Origin: "9", Pod: model.PodID{Namespace: "x", Name: "a"}, Node: "c"},
			{Origin: "1", Pod: model.PodID{Namespace: "a", Name: "z"}},
		},
	}
	if diff := cmp.Diff([]model.NodeID{"a", "b", "c"}, s.IDs()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]model.NodeID{"b", "c"}, s.Alive()); diff != "" {
		t.Error(diff)
	}
	SortLocations(s.Locations)
	var got string
	for _, l := range s.Locations {
		got += l.Origin
	}
	if got != "192" {
		t.Errorf("order of locations %q, want 192", got)
	}
	if l, ok := s.Location("9"); !ok || l.Node != "c" {
		t.Errorf("location of 9 = %v, %v", l, ok)
	}
	if _, ok := s.Location("none"); ok {
		t.Error("an unknown origin has no location")
	}
}

func TestJSONRoundTrip(t *testing.T) {
	s := Snapshot{
		At: t0, Self: "a",
		Nodes: map[model.NodeID]Node{"a": {Alive: true, Received: t0, State: model.NodeState{
			Node: "a", Routes: map[model.NodeID]model.RouteTime{"b": {RTT: time.Millisecond, Stamp: model.StampKernel, At: t0}},
		}}},
		Locations: []model.Location{{Origin: "o", Epoch: 3, At: t0}},
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Snapshot
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("after a round trip (-was +is):\n%s", diff)
	}
}

// Who talks to whom does not travel: whoever reads a picture puts it together from what nodes say.
func TestAPictureThatTravelledIsIndexed(t *testing.T) {
	web, db := model.WorkloadOf("shop", "Deployment", "web"), model.WorkloadOf("shop", "StatefulSet", "db")
	s := Snapshot{Nodes: map[model.NodeID]Node{
		"a": {State: model.NodeState{Node: "a", Edges: []model.Edge{{Local: web, Remote: db, Volume: 7}}}},
		"b": {State: model.NodeState{Node: "b", Ends: []model.End{{Workload: db, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.5")}}}}},
	}}.Indexed()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Snapshot
	if err := json.Unmarshal(raw, &back); err != nil || back.Talk != nil {
		t.Fatalf("%v: %+v", err, back.Talk)
	}
	for what, x := range map[string]Snapshot{"as it was": s, "and back": back.Indexed()} {
		if peers, hosts := x.Talk.Peers(web), x.Talk.Hosts(db); len(peers) != 1 || peers[0].Workload != db || len(hosts) != 1 || hosts[0].Node != "b" {
			t.Errorf("%s: peers %v, hosts %v", what, peers, hosts)
		}
	}
}
