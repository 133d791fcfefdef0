package edges

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/drover-project/drover/internal/model"
)

// says is a node with its edges, and so many talking pods of workloads.
func says(node model.NodeID, pods map[string]int, edges ...model.Edge) *model.NodeState {
	s := &model.NodeState{Node: node, Edges: edges}
	for name, n := range pods {
		for range n {
			s.Ends = append(s.Ends, model.End{Workload: of(name), Addresses: []netip.Addr{netip.IPv4Unspecified()}})
		}
	}
	return s
}

func index(all ...*model.NodeState) *Index { return NewIndex(slices.Values(all)) }

func TestTheIndexSumsOverNodes(t *testing.T) {
	x := index(
		says("n2", map[string]int{"web": 2}, edge(web, db, 100), edge(web, of("cache"), 50)),
		says("n1", map[string]int{"web": 1, "db": 1}, edge(web, db, 200), edge(of("x"), of("y"), 9e6)),
	)
	want := []Peer{{db, 6.0 / 7}, {of("cache"), 1.0 / 7}} // 300 and 50
	if got := x.Peers(web); !reflect.DeepEqual(got, want) {
		t.Errorf("peers %v, want %v", got, want)
	}
	if got := x.Peers(db); !reflect.DeepEqual(got, []Peer{{web, 1}}) {
		t.Errorf("peers of the other end %v", got)
	}
	if got := x.Hosts(web); !reflect.DeepEqual(got, []Host{{"n2", 2}, {"n1", 1}}) {
		t.Errorf("hosts %v", got)
	}
	if x.Peers(of("nobody")) != nil || x.Hosts(of("nobody")) != nil || (*Index)(nil).Peers(web) != nil || (*Index)(nil).Hosts(web) != nil {
		t.Error("somebody is known who is not")
	}
}

// Both ends see the same bytes; where one sees less, as the client of a Service does, the other counts.
func TestBytesThatBothEndsTellCountOnce(t *testing.T) {
	for what, x := range map[string]*Index{
		"both tell":        index(says("n1", nil, edge(web, db, 300), edge(web, of("cache"), 100)), says("n2", nil, edge(db, web, 300), edge(of("cache"), web, 100))),
		"one tells each":   index(says("n1", nil, edge(web, of("cache"), 100)), says("n2", nil, edge(db, web, 300))),
		"one tells part":   index(says("n1", nil, edge(web, db, 1), edge(web, of("cache"), 100)), says("n2", nil, edge(db, web, 300))),
		"both on one node": index(says("n1", nil, edge(web, db, 300), edge(db, web, 300), edge(web, of("cache"), 100), edge(of("cache"), web, 100))),
		"two nodes a side": index(says("n1", nil, edge(web, db, 100)), says("n2", nil, edge(web, db, 200), edge(web, of("cache"), 100)), says("n3", nil, edge(db, web, 250))),
	} {
		if got, want := x.Peers(web), []Peer{{db, .75}, {of("cache"), .25}}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
		if got := x.Peers(db); !reflect.DeepEqual(got, []Peer{{web, 1}}) {
			t.Errorf("%s: of the other end %v", what, got)
		}
	}
}

// Ten pods that each carry as much with each other as with one other workload: for any of them
// both weigh the same.
func TestAWorkloadIsItsOwnPeer(t *testing.T) {
	x := index(says("n1", nil, edge(web, web, 60), edge(web, db, 60)), says("n2", nil, edge(web, web, 40), edge(web, db, 40)), says("n3", nil, edge(db, web, 100)))
	if got, want := x.Peers(web), []Peer{{db, .5}, {web, .5}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A share is of what a pod carries as much as of what all of them do: nothing is to be divided by the number
// of replicas, on however many nodes they are.
func TestReplicasChangeNoShare(t *testing.T) {
	for _, replicas := range []int{1, 3, 10} {
		for _, nodes := range []int{1, replicas} {
			var all []*model.NodeState
			for i := range nodes {
				each := model.Bytes(replicas / nodes)
				all = append(all, says(model.NodeID(fmt.Sprint("n", i)), map[string]int{"web": replicas / nodes},
					edge(web, db, 300*each), edge(web, of("cache"), 60*each), edge(web, web, 40*each)))
			}
			all = append(all, says("of db", map[string]int{"db": 1}, edge(db, web, model.Bytes(300*replicas))))
			want := []Peer{{db, .75}, {of("cache"), .15}, {web, .1}}
			if got := index(all...).Peers(web); !reflect.DeepEqual(got, want) {
				t.Errorf("%d replicas on %d nodes: %v, want %v", replicas, nodes, got, want)
			}
		}
	}
}

func TestOfManyPeersTheHeaviestStay(t *testing.T) {
	s, sum := says("n1", nil), 0.0
	for i := range 40 {
		s.Edges = append(s.Edges, edge(web, of(fmt.Sprintf("w%02d", i)), model.Bytes(1+i)))
		sum += float64(1 + i)
	}
	got := index(s).Peers(web)
	if len(got) != mostPeers || got[0].Workload != of("w39") || math.Abs(got[0].Share-40/sum) > 1e-12 {
		t.Errorf("%d peers, the first %v", len(got), got[0])
	}
}

func TestOfManyHostsThoseWithMostPodsStay(t *testing.T) {
	var all []*model.NodeState
	for i := range 200 {
		all = append(all, says(model.NodeID(fmt.Sprint("n", i)), map[string]int{"db": 1 + i/190}))
	}
	hosts := index(all...).Hosts(db)
	slices.Reverse(all)
	if again := index(all...).Hosts(db); len(hosts) != mostHosts || hosts[9].Pods != 2 || hosts[10].Pods != 1 || !reflect.DeepEqual(hosts, again) {
		t.Errorf("%v, and of the same in another order %v", hosts, again)
	}
}

func TestReadingTheIndexMakesNothing(t *testing.T) {
	x := index(says("n1", map[string]int{"web": 3}, edge(web, db, 300)))
	if n := testing.AllocsPerRun(100, func() {
		if len(x.Peers(web)) != 1 || len(x.Hosts(web)) != 1 {
			t.Fatal("nobody")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The greatest weights stay, of equal ones some of everywhere, always the same; what makes no sense does not.
func TestHeaviest(t *testing.T) {
	all := map[model.NodeID]float64{"heavy": 3, "heavier": 4, "none": 0, "less": -1, "endless": math.Inf(1), "no number": math.NaN()}
	for i := range 90 {
		all[model.NodeID(fmt.Sprintf("zone-%c-%d", "abc"[i/30], i))] = 1
	}
	got, zones := Heaviest(all, 32), map[byte]int{}
	if len(got) != 32 || got["heavy"] != 3 || got["heavier"] != 4 || !maps.Equal(got, Heaviest(all, 32)) {
		t.Errorf("%v", got)
	}
	for id := range got {
		zones[id[min(5, len(id)-1)]]++
	}
	for _, zone := range "abc" {
		if n := zones[byte(zone)]; n < 4 {
			t.Errorf("%d of 30 are of zone %c", n, zone)
		}
	}
	if few := Heaviest(all, 200); len(few) != 92 {
		t.Errorf("%d of 92 that make sense", len(few))
	}
}

func BenchmarkNewIndex(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			var all []*model.NodeState
			for n := range nodes {
				s := says(model.NodeID(fmt.Sprint("n", n)), nil)
				for i := range Most {
					s.Edges = append(s.Edges, edge(of(fmt.Sprint("w", (n+i)%nodes)), of(fmt.Sprint("w", (n*7+i*13)%nodes)), model.Bytes(1+i)))
				}
				for i := range MostEnds {
					s.Ends = append(s.Ends, model.End{Workload: of(fmt.Sprint("w", (n+i)%nodes)), Addresses: []netip.Addr{netip.IPv4Unspecified()}})
				}
				all = append(all, s)
			}
			for b.Loop() {
				NewIndex(slices.Values(all))
			}
		})
	}
}
