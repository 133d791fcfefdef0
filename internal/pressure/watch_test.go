package pressure

import (
	"math"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
)

func of(v float64) *float64 { return &v }

func TestMemoryStall(t *testing.T) {
	for _, c := range []struct {
		name   string
		memory Memory
		want   float64
	}{
		{"nothing is known", Memory{NodeHeld: 1}, 0},
		{"the node is short", Memory{NodeHeld: 1, Stalled: of(.4), NodeStalled: .9, NodeFree: .05}, .4},
		{"the node has plenty", Memory{NodeHeld: 1, Stalled: of(.4), NodeStalled: .9, NodeFree: .5}, 0},
		// 95 of 100 MiB: it would be as near anywhere.
		{"near its own limit", Memory{NodeHeld: 1, Stalled: of(.4), NodeStalled: .9, NodeFree: .05, Usage: 95 * model.MiB, Limit: 100 * model.MiB}, 0},
		{"below its own limit", Memory{NodeHeld: 1, Stalled: of(.4), NodeStalled: .9, NodeFree: .05, Usage: 80 * model.MiB, Limit: 100 * model.MiB}, .4},
		// 30 of the 120 pages that were waited for: 0.8*30/120 = 0.2.
		{"by the node's PSI", Memory{NodeHeld: 1, NodeStalled: .8, Faults: 30, NodeFaults: 120, NodeFree: .05}, .2},
		// Its cache fills its limit, and it misses what was dropped.
		{"thrashing within its own limit", Memory{NodeHeld: 1, Stalled: of(.4), NodeFree: .05, Faults: 9, Usage: 5 * model.MiB, Held: 99 * model.MiB, Limit: 100 * model.MiB}, 0},
		{"a full cache, and nothing missed", Memory{NodeHeld: 1, Stalled: of(.4), NodeFree: .05, Usage: 5 * model.MiB, Held: 99 * model.MiB, Limit: 100 * model.MiB}, .4},
		// 0.4*(1-20/100): a fifth of what is held is its own.
		{"the node is full of cache, and drops what is missed", Memory{Stalled: of(.4), NodeFree: .4, Faults: 9, OwnHeld: 20, NodeHeld: 100, NodeSize: 102}, .32},
		{"the node is full of cache, and nothing is missed", Memory{Stalled: of(.4), NodeFree: .4, OwnHeld: 20, NodeHeld: 100, NodeSize: 102}, 0},
		{"it fills the node alone", Memory{Stalled: of(.4), NodeFree: .4, Faults: 9, OwnHeld: 98, NodeHeld: 100, NodeSize: 102}, .008},
		{"by the node's PSI, nobody faulted", Memory{NodeHeld: 1, NodeStalled: .8, NodeFree: .05}, 0},
		{"not a number", Memory{NodeHeld: 1, Stalled: of(math.NaN()), NodeFree: .05}, 0},
		{"free memory that is not a number", Memory{NodeHeld: 1, Stalled: of(.4), NodeFree: math.NaN()}, 0},
	} {
		if got := c.memory.Stall(); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestIOStall(t *testing.T) {
	for _, c := range []struct {
		name string
		io   IO
		want float64
	}{
		{"nothing is known", IO{}, 0},
		{"alone", IO{Stalled: of(.9), NodeStalled: .9, Own: 100, Node: 100}, 0},
		// 300 of 400: 0.8*0.75 = 0.6.
		{"beside a greater one", IO{Stalled: of(.8), NodeStalled: .9, Own: 100, Others: 300, Node: 400}, .6},
		// What nobody is charged with may be its own: 0.8*100/400.
		{"written back later", IO{Stalled: of(.8), NodeStalled: .9, Own: 0, Others: 100, Node: 400}, .2},
		{"devices of which the node tells nothing", IO{Stalled: of(.8), Own: 100, Others: 300}, .6},
		{"a limit of its own", IO{Stalled: of(.8), Own: 100, Others: 300, Node: 400, Limited: true}, 0},
		// 0.8*(100/400)*(300/400) = 0.15.
		{"by the node's PSI", IO{NodeStalled: .8, Own: 100, Others: 300, Node: 400}, .15},
		{"not a number", IO{Stalled: of(.8), Own: math.NaN(), Others: 300, Node: 400}, 0},
	} {
		if got := c.io.Stall(); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// Each resource is graded for itself; the worst is the one that is told first.
func TestWatch(t *testing.T) {
	w := NewWatch(Default())
	memory := func(stalled float64) Sample {
		return Sample{
			CPU:    &CPU{Wait: .3, Run: .7, Others: 1, Limit: 2, Owed: &Owed{Others: .3}},
			Memory: &Memory{NodeHeld: 1, Stalled: of(stalled), NodeFree: .01},
		}
	}
	var states States
	for second := range 7 {
		states = w.Feed(at(float64(second)), memory(.5))
	}
	if r, s := states.Worst(); r != model.OnMemory || s.Grade != model.Severe || states[model.OnCPU].Grade != model.Tight || states[model.OnIO].Grade != model.Fine {
		t.Errorf("%v is the worst of %+v, want memory severe, CPU tight, IO fine", r, states)
	}
	for second := range 7 {
		states = w.Feed(at(float64(second+7)), memory(0))
	}
	if r, s := states.Worst(); r != model.OnCPU || s.Grade != model.Tight {
		t.Errorf("%v is the worst of %+v, want CPU", r, states)
	}
	// What is not read any more ends.
	states = w.Feed(at(14).Add(time.Minute), Sample{})
	if r, s := states.Worst(); r != model.OnCPU || s != (State{Grade: model.Fine}) {
		t.Errorf("%v is the worst of %+v, want nothing", r, states)
	}
}
