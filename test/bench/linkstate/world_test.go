package main

import (
	"math/rand"
	"testing"
)

// three regions on a line.
var regions = []region{{"a", []float64{0, 10, 30}}, {"b", []float64{10, 0, 20}}, {"c", []float64{30, 20, 0}}}

func TestWorlds(t *testing.T) {
	for _, k := range kinds(regions) {
		w := k.make(rand.New(rand.NewSource(1)), 100)
		violated := 0
		for i := range w.rtt {
			for j := range w.rtt {
				if i == j {
					continue
				}
				if !(w.rtt[i][j] > 0) || w.rtt[i][j] != w.rtt[j][i] {
					t.Fatalf("%s: %d to %d is %v, back %v", k.name, i, j, w.rtt[i][j], w.rtt[j][i])
				}
				for via := range w.rtt {
					if via != i && via != j && w.rtt[i][j] > 1.1*(w.rtt[i][via]+w.rtt[via][j]) {
						violated++
						break
					}
				}
			}
		}
		if share := float64(violated) / (100 * 99); (share > 0.05) != (k.name == "violations") {
			t.Errorf("%s: on %.0f%% of the ways one over a third node is a tenth shorter", k.name, 100*share)
		}
	}
}

// The same seed gives the same figures, and a mesh that is measured whole is known.
func TestRun(t *testing.T) {
	for _, n := range []int{40, 80} {
		results, probes, err := run(kinds(regions)[2], n, 1, []int{5, 10})
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := run(kinds(regions)[2], n, 1, []int{5, 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range estimators {
			if results[10][e] != again[10][e] {
				t.Errorf("%d nodes: %s: %+v, then %+v", n, e, results[10][e], again[10][e])
			}
		}
		if r := results[10][dijkstra]; n == 40 && (r.p99 > 0.05 || probes != 10*39) {
			t.Errorf("%d nodes that measure all: %+v after %d probes each", n, r, probes)
		}
	}
}
