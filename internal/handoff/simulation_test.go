package handoff

import (
	"flag"
	"fmt"
	"math/rand"
	"strings"
	"testing"
)

var (
	runs = flag.Int("handoff.runs", 10_000, "how many random runs to simulate")
	seed = flag.Int64("handoff.seed", 0, "simulate this one seed alone, and print what happens")
)

// simulate gives what was broken, "" if nothing.
func simulate(seed int64, opt options, trace *strings.Builder) (broken string, w *world) {
	if opt.maxMoves == 0 {
		opt.maxMoves = 1 + int(seed%3)
	}
	if opt.containers == 0 {
		opt.containers = 1 + int(seed/3%3)
	}
	w = newWorld(seed, opt)
	w.trace = trace
	for i := 50 + w.rng.Intn(250); i > 0 && w.broken == ""; i-- {
		w.step()
	}
	w.faulty = false
	w.api.up = true
	for i := 0; w.broken == ""; i++ {
		if i > 20_000 {
			w.inspectEnd()
			break
		}
		if w.quiet() {
			w.inspectEnd()
			break
		}
		w.step()
	}
	return w.broken, w
}

// quiet: nothing more will happen by itself.
func (w *world) quiet() bool {
	m := w.last()
	if !m.settled || len(w.tasks) > 0 {
		return false
	}
	r := w.api.recs[m.id]
	if r.Lost {
		return true
	}
	uid := m.owner(r)
	p := w.api.pods[uid]
	n := w.nodes[p.node]
	for _, n := range w.nodes {
		if !n.lost && (!n.up || !n.agent.up || n.cut) {
			return false
		}
	}
	if p.deleted || n.lost || w.nodes[m.src].lost && r.Target.Failed {
		return true
	}
	return n.whole(uid)
}

func TestSimulation(t *testing.T) {
	if *seed != 0 {
		var trace strings.Builder
		broken, _ := simulate(*seed, options{}, &trace)
		t.Log("\n" + trace.String())
		if broken != "" {
			t.Fatal(broken)
		}
		return
	}
	tally := map[string]int{}
	for s := int64(1); s <= int64(*runs); s++ {
		broken, w := simulate(s, options{}, nil)
		if broken != "" {
			t.Fatalf("seed %d: %s\nto see it: go test ./internal/handoff -run TestSimulation -handoff.seed=%d -v", s, broken, s)
		}
		for _, m := range w.moves {
			tally[m.end(w)]++
		}
	}
	t.Logf("%d runs: %v", *runs, tally)
	for _, end := range []string{"moved", "aborted", "returned"} {
		if tally[end] < *runs/100 {
			t.Errorf("only %d of %d moves %s: the simulation does not go there often enough", tally[end], *runs, end)
		}
	}
}

// TestOneNode: the second step of a pod that keeps its name may stay on its node, whose
// reboot takes both sides.
func TestOneNode(t *testing.T) {
	tally := map[string]int{}
	for s := int64(1); s <= int64(*runs)/4; s++ {
		broken, w := simulate(s, options{home: true}, nil)
		if broken != "" {
			t.Fatalf("seed %d: %s", s, broken)
		}
		for _, m := range w.moves {
			tally[m.end(w)]++
		}
	}
	t.Logf("%d runs: %v", *runs/4, tally)
	for _, end := range []string{"moved", "aborted", "returned"} {
		if tally[end] < *runs/1000 {
			t.Errorf("only %d moves %s: the simulation does not go there often enough", tally[end], end)
		}
	}
}

// TestPowerLoss takes the target's power away after every single thing that happens between
// the commit and the end of the move, for good or until it boots again.
func TestPowerLoss(t *testing.T) {
	tally := map[string]int{}
	powerLoss(t, options{}, 1, tally)
	t.Log(tally)
	for _, end := range []string{"moved", "returned", "lost"} {
		if tally[end] == 0 {
			t.Errorf("no power loss ended with a move %s: %v", end, tally)
		}
	}
}

// powerLoss takes the power of one node away after the first thing between the commit and the end of a
// move, in another world after the second, and so on, and counts how those moves ended.
func powerLoss(t *testing.T, opt options, of int, tally map[string]int) {
	opt.calm, opt.maxMoves = true, 1
	for _, fault := range []func(*world, *node){(*world).reboot, (*world).lose} {
		for at, hit := 1, true; hit; at++ {
			w := newWorld(1, opt)
			hit = false
			left := at
			w.play(func() {
				if r := w.api.recs[w.last().id]; r.Decision == Committed && !r.HandedOver {
					if left--; left == 0 {
						fault(w, w.nodes[of])
						hit = true
					}
				}
			})
			if w.broken != "" {
				t.Errorf("node %d, after %d things: %s", of, at, w.broken)
			}
			if hit {
				tally[w.last().end(w)]++
			}
		}
	}
}

// TestCalm: without faults every move succeeds.
func TestCalm(t *testing.T) {
	for s := int64(1); s <= 300; s++ {
		broken, w := simulate(s, options{calm: true}, nil)
		if broken != "" {
			t.Fatalf("seed %d: %s", s, broken)
		}
		for _, m := range w.moves {
			if end := m.end(w); end != "moved" {
				t.Errorf("seed %d: %s, want moved", s, end)
			}
		}
	}
}

func (m *move) end(w *world) string {
	r := w.api.recs[m.id]
	switch {
	case r.Returned:
		return "returned"
	case r.Lost:
		return "lost"
	case r.Decision == Aborted:
		return "aborted"
	case r.Source.Forfeited:
		return "forfeited"
	case r.Target.Resumed:
		return "moved"
	}
	return fmt.Sprintf("%s, failed %v", r.Decision, r.Target.Failed)
}

var _ = rand.Int
