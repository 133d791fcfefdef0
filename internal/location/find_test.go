package location

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

func TestFind(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pod := func(name, uid string) model.PodID { return model.PodID{Namespace: "shop", Name: name, UID: uid} }
	node := func(pods ...model.PodID) view.Node {
		return view.Node{Alive: true, Phase: model.Normal, Received: now.Add(-time.Second), State: model.NodeState{Pods: pods}}
	}
	dead := node(pod("elsewhere", "u5"), pod("stays", "u6"))
	dead.Alive, dead.Phase = false, model.Dead
	moved := func(origin, name, uid string, from, to model.NodeID) model.Location {
		return model.Location{Origin: origin, Pod: pod(name, uid), From: from, Node: to, Epoch: 1}
	}
	s := view.Snapshot{At: now, Self: "n1", Nodes: map[model.NodeID]view.Node{
		"n1":   node(pod("web", "u1"), model.PodID{Namespace: "other", Name: "web", UID: "u9"}),
		"n2":   node(pod("web-dm1", "u2"), pod("twin", "u3"), pod("elsewhere", "u5")),
		"dead": dead,
		"old":  {Alive: true, Received: now}, // an agent that lists no pods
		"n4":   node(pod("twin", "u4")),
	}, Locations: []model.Location{
		moved("o2", "web-dm1", "u2", "n1", "n2"),
		moved("o7", "gone-dm1", "u7", "n2", "n1"), // n1 does not have it any more
		moved("o8", "unlisted", "u8", "n2", "old"),
		moved("o9", "returned", "u10", "n2", "nowhere"), // a node that nobody knows
	}}
	age, none := time.Second, time.Duration(0)
	web := Place{Pod: pod("web", "u1"), Node: "n1", Phase: model.Normal, Age: &age}
	dm1 := Place{Pod: pod("web-dm1", "u2"), Node: "n2", Phase: model.Normal, Age: &age, Moved: &s.Locations[0]}
	for name, c := range map[string]struct {
		pod    string
		former []string
		want   []Place
	}{
		"never moved":                       {"web", nil, []Place{web}},
		"its name goes before a former one": {"web", []string{"u2"}, []Place{web}},
		"by UID":                            {"u1", nil, []Place{web}},
		"moved":                             {"web-dm1", nil, []Place{dm1}},
		"moved, by its first UID":           {"o2", nil, []Place{dm1}},
		"moved, by a former name":           {"before", []string{"u2", "unknown"}, []Place{dm1}},
		"moved, and gone since":             {"gone-dm1", nil, nil},
		"moved to a node that lists none":   {"unlisted", nil, []Place{{Pod: pod("unlisted", "u8"), Node: "old", Age: &none, Moved: &s.Locations[2]}}},
		"moved to a node not known":         {"returned", nil, []Place{{Pod: pod("returned", "u10"), Node: "nowhere", Moved: &s.Locations[3]}}},
		"said by two, one of them dead":     {"elsewhere", nil, []Place{{Pod: pod("elsewhere", "u5"), Node: "n2", Phase: model.Normal, Age: &age}}},
		"on a dead node":                    {"stays", nil, []Place{{Pod: pod("stays", "u6"), Node: "dead", Phase: model.Dead, Age: &age}}},
		"two of one name": {"twin", nil, []Place{
			{Pod: pod("twin", "u3"), Node: "n2", Phase: model.Normal, Age: &age},
			{Pod: pod("twin", "u4"), Node: "n4", Phase: model.Normal, Age: &age},
		}},
		"unknown":              {"nonsense", nil, nil},
		"in another namespace": {"u9", nil, nil},
	} {
		if diff := cmp.Diff(c.want, Find(s, "shop", c.pod, c.former)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
