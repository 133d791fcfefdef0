package linkstate

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/drover-project/drover/internal/model"
)

// cluster has n members in the given number of zones; 0: no zone is known.
func cluster(n, zones int) map[model.NodeID]string {
	all := map[model.NodeID]string{}
	for i := range n {
		zone := ""
		if zones > 0 {
			zone = fmt.Sprint("zone-", i%zones)
		}
		all[model.NodeID(fmt.Sprint("node-", i))] = zone
	}
	return all
}

type edge struct{ a, b model.NodeID }

// plans are the links of all, each from both its ends.
func plans(zones map[model.NodeID]string) map[edge]bool {
	links := map[edge]bool{}
	for a := range zones {
		for _, b := range Plan(a, zones) {
			links[edge{a, b}] = true
		}
	}
	return links
}

func TestPlan(t *testing.T) {
	for _, tt := range []struct{ n, zones, diameter int }{
		{1, 0, 0}, {2, 1, 1}, {FullMesh, 3, 1}, {FullMesh + 1, 0, 3}, {FullMesh + 1, 3, 3}, {200, 40, 3}, {200, 1, 3},
		{1000, 0, 4}, {1000, 3, 4}, {1000, 60, 4},
	} {
		t.Run(fmt.Sprintf("%d nodes in %d zones", tt.n, tt.zones), func(t *testing.T) {
			zones := cluster(tt.n, tt.zones)
			links := plans(zones)
			degree, in := map[model.NodeID]int{}, map[model.NodeID]int{}
			for l := range links {
				if l.a == l.b || !links[edge{l.b, l.a}] {
					t.Fatalf("%s probes %s, and not the other way round", l.a, l.b)
				}
				degree[l.a]++
				in[l.b]++
			}
			if tt.n <= FullMesh && len(links) != tt.n*(tt.n-1) {
				t.Errorf("%d links, want all of %d", len(links), tt.n*(tt.n-1))
			}
			if most := slices.Max(append(slices.Collect(maps.Values(in)), 0)); tt.n > FullMesh && most > 4*rings(tt.n) {
				t.Errorf("a node is probed by %d others, want at most %d", most, 4*rings(tt.n))
			}
			next := map[model.NodeID][]model.NodeID{}
			for l := range links {
				next[l.a] = append(next[l.a], l.b)
			}
			if d := eccentricity("node-0", next, tt.n); d < 0 || d > tt.diameter {
				t.Errorf("from node-0 all are reached over %d links, want at most %d (-1: not all)", d, tt.diameter)
			}
		})
	}
}

// eccentricity is over how many links the farthest of n nodes is reached, -1 when not all are.
func eccentricity(from model.NodeID, next map[model.NodeID][]model.NodeID, n int) int {
	seen := map[model.NodeID]bool{from: true}
	for depth, at := 0, []model.NodeID{from}; ; depth++ {
		var later []model.NodeID
		for _, a := range at {
			for _, b := range next[a] {
				if !seen[b] {
					seen[b] = true
					later = append(later, b)
				}
			}
		}
		if at = later; len(at) == 0 {
			if len(seen) < n {
				return -1
			}
			return depth
		}
	}
}

func TestSmallZoneIsProbedWhole(t *testing.T) {
	zones := cluster(1000, 60)
	got := Plan("node-0", zones)
	for id, zone := range zones {
		if zone == zones["node-0"] && id != "node-0" && !slices.Contains(got, id) {
			t.Errorf("%s of the same zone is not probed", id)
		}
	}
}

// A zone's own rings are others than the cluster's, even where it is all of the cluster.
func TestLargeZoneHasRingsOfItsOwn(t *testing.T) {
	if with, without := len(Plan("node-0", cluster(300, 1))), len(Plan("node-0", cluster(300, 0))); 2*with < 3*without {
		t.Errorf("%d are probed in one large zone, %d in none", with, without)
	}
}

// One that comes or goes leaves all links but one a ring as they were.
func TestPlanIsStable(t *testing.T) {
	for _, count := range []int{0, 1, 3, 50} {
		zones := cluster(500, count)
		before := plans(zones)
		for _, gone := range []model.NodeID{"node-7", "node-123", "node-499"} {
			left := maps.Clone(zones)
			delete(left, gone)
			after := plans(left)
			changed := 0
			for l := range before {
				if l.a < l.b && l.a != gone && l.b != gone && !after[l] {
					t.Errorf("%d zones: without %s, %s no longer probes %s", count, gone, l.a, l.b)
				}
			}
			for l := range after {
				if l.a < l.b && !before[l] {
					changed++
				}
			}
			if most := 2 * rings(500); changed > most {
				t.Errorf("%d zones: without %s there are %d new links, want at most %d", count, gone, changed, most)
			}
		}
	}
}

func TestPlanDependsOnNothingElse(t *testing.T) {
	zones := cluster(300, 4)
	want := Plan("node-5", zones)
	without := maps.Clone(zones)
	for range 20 {
		if got := Plan("node-5", maps.Clone(zones)); !slices.Equal(got, want) {
			t.Fatalf("%v, then %v", want, got)
		}
	}
	delete(without, "stranger")
	if got := Plan("stranger", map[model.NodeID]string{"a": "", "b": ""}); !slices.Equal(got, []model.NodeID{"a", "b"}) {
		t.Errorf("a member that is not in the list yet probes %v, want a and b", got)
	}
	if got := Plan("a", nil); len(got) != 0 {
		t.Errorf("without members %v are probed", got)
	}
}

func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{64, 1000, 5000} {
		zones := cluster(n, 3)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				Plan("node-0", zones)
			}
		})
	}
}
