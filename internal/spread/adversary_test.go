package spread

import (
	"testing"
	"time"
)

// TestBlackHole: a member acknowledges everything and passes nothing on: the one where the
// way of a tree begins, or one of the next. Everyone says one thing, once.
func TestBlackHole(t *testing.T) {
	const n, tree = 300, 2
	for _, where := range []string{"root", "branch"} {
		t.Run(where, func(t *testing.T) {
			m := newSimulation(5, n, 0)
			r := m.nodes[0].ring
			hole := r.root(tree)
			if where == "branch" {
				below := r.branches(around(hole), tree)
				hole = below[len(below)-1].peer
			}
			m.at[hole].hole = true
			f := follow(m)
			m.run(time.Second)
			for _, x := range m.nodes {
				if !x.hole {
					f.say(x, true)
				}
			}
			m.run(echoTime + 2*time.Second)
			for k, reached := range f.reached {
				if reached != n-2 {
					t.Fatalf("what node %d said has reached %d of %d after %v", k[0], reached, n-2, echoTime+2*time.Second)
				}
			}
			if len(f.reached) != n-1 {
				t.Fatalf("%d of %d records have reached anybody", len(f.reached), n-1)
			}
			testNoReportIsMissedTwice(t, m, f)
		})
	}
}

// testNoReportIsMissedTwice: of what is said every period, the next goes by another tree.
func testNoReportIsMissedTwice(t *testing.T, m *simulation, f *spreadOf) {
	f.forget()
	missed := map[[2]int]bool{}
	for range 2 {
		f.load(1, 10*time.Second)
		m.run(3 * time.Second)
		for _, x := range m.nodes {
			for _, o := range m.nodes {
				if x.hole || o.hole || x.version(o.id) == o.version(o.id) {
					delete(missed, [2]int{x.id, o.id})
				} else if at := [2]int{x.id, o.id}; missed[at] {
					t.Fatalf("node %d missed two reports of node %d in a row", x.id, o.id)
				} else {
					missed[at] = true
				}
			}
		}
	}
}

// TestManyBlackHoles: a tenth of all members passes nothing on. Comparing bounds the delay.
func TestManyBlackHoles(t *testing.T) {
	const n = 300
	m := newSimulation(6, n, 0)
	m.run(time.Second)
	for _, x := range m.nodes[:n/10] {
		x.hole = true
	}
	for _, x := range m.nodes {
		if !x.hole {
			x.say(uint64(m.now.UnixNano()), true)
		}
	}
	honest := func() bool {
		for _, x := range m.nodes {
			for _, o := range m.nodes {
				if !x.hole && !o.hole && x.version(o.id) == 0 {
					return false
				}
			}
		}
		return true
	}
	took, ok := m.until(time.Minute, honest)
	if !ok {
		t.Fatal("with a tenth of all members passing nothing on, some records have not arrived after a minute")
	}
	t.Logf("all honest members have everything after %v", took)
}

// TestReplayIsBounded: who has the key sends a known record to everyone, to be passed on to all.
func TestReplayIsBounded(t *testing.T) {
	const n, times = 100, 20
	m := newSimulation(9, n, 0)
	m.twice = 0
	m.nodes[3].say(1, false)
	m.run(2 * time.Second)
	m.reset()
	bad := m.nodes[50]
	for i := range times {
		for _, x := range m.nodes {
			if x == bad {
				continue
			}
			f := frame{kind: kindBranch, from: bad.self, session: 7, number: uint16(i + 1), tree: i % trees, arc: around(x.self),
				rest: appendRecords(nil, simRecord(3, 1, 90))}
			m.send(x, x.Receive(m.now, f.encode()))
		}
		m.run(500 * time.Millisecond)
	}
	var passed int64
	for _, x := range m.nodes {
		passed += x.payloads
	}
	if most := int64(times*n + maxForwards*n*(2*trees+fanout)); passed > most {
		t.Errorf("%d copies of a replayed record, want at most %d", passed, most)
	}
	if m.counts().Limited == 0 {
		t.Error("no limit was reached")
	}
}
