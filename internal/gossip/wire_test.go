package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
)

// What an agent from before there was a pod path puts into its records, and reads from others'.
type (
	oldRoutes struct {
		Part   int                              `json:"part"`
		Parts  int                              `json:"parts"`
		Routes map[model.NodeID]model.RouteTime `json:"routes"`
	}
	oldState struct {
		Node    model.NodeID `json:"node"`
		Address string       `json:"address"`
		Version uint64       `json:"version"`
		Parts   int          `json:"parts"`
	}
)

func ways(n int, rtt time.Duration) map[model.NodeID]model.RouteTime {
	routes := map[model.NodeID]model.RouteTime{}
	for i := range n {
		at := time.Unix(1_800_000_000, int64(i)*7_654_321).UTC()
		routes[model.NodeID(fmt.Sprintf("node-%03d.example.internal", i))] = model.RouteTime{
			RTT: rtt + time.Duration(i)*12_345, Spread: time.Duration(i) * 1234, Samples: 50, Stamp: model.StampKernel, At: at}
	}
	return routes
}

func TestOldAgentsAreUnderstood(t *testing.T) {
	b := newBench(t, nil)
	id, v, routes := b.known("old"), b.version(), ways(2, time.Millisecond)
	for _, r := range []result{
		b.ingest(b.seal(id, kindState, v, oldState{Node: "old", Address: "10.0.0.1", Version: v, Parts: 1})),
		b.ingest(b.seal(id, kindRoutes, v, oldRoutes{Parts: 1, Routes: routes})),
	} {
		if r != accepted {
			t.Fatal(r)
		}
	}
	want := model.NodeState{Node: "old", Address: "10.0.0.1", Version: v, Routes: routes, PodRoutes: map[model.NodeID]model.RouteTime{}}
	if diff := cmp.Diff(want, *b.store.nodes["old"].whole()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An old agent knows no other kinds of records than these, and reads from them what it knows; every
// one of them still fits into a packet.
func TestOldAgentsUnderstand(t *testing.T) {
	b := newBench(t, nil)
	node, pod := ways(120, time.Millisecond), ways(130, 2*time.Millisecond)
	raws, err := b.store.codec.sealState(b.known("new"), model.NodeState{Node: "new", Address: "10.0.0.2",
		PodAddress: "10.244.2.7", Routes: node, PodRoutes: pod, Version: b.version()})
	if err != nil {
		t.Fatal(err)
	}
	read, parts, state := map[model.NodeID]model.RouteTime{}, 0, oldState{}
	for _, raw := range raws {
		if got := b.ingest(raw); got != accepted {
			t.Fatal(got)
		}
		r, err := open(raw)
		if err != nil || len(raw) > packetRecord {
			t.Fatalf("record of %d bytes, %v", len(raw), err)
		}
		var part oldRoutes
		switch r.kind {
		case kindState:
			err = b.store.codec.decode(r.body, &state)
		case kindRoutes:
			err, parts = b.store.codec.decode(r.body, &part), parts+1
			for id, r := range part.Routes {
				read[id] = r
			}
		default:
			t.Errorf("a record of kind %d", r.kind)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(node, read); diff != "" {
		t.Errorf("an old agent reads (-want +got):\n%s", diff)
	}
	if state.Address != "10.0.0.2" || state.Parts != parts {
		t.Errorf("state %+v with %d parts", state, parts)
	}
	whole := b.store.nodes["new"].whole()
	if diff := cmp.Diff(node, whole.Routes); diff != "" {
		t.Errorf("node path (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(pod, whole.PodRoutes); diff != "" || whole.PodAddress != "10.244.2.7" {
		t.Errorf("pod path, ending at %q (-want +got):\n%s", whole.PodAddress, diff)
	}
}
