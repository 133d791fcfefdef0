package decide

import (
	"math"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// For want of memory it goes where that is to be had, however idle the CPU is here.
func TestGoForMemory(t *testing.T) {
	scene := func() Input {
		in := scene()
		in.Suffering[0].Resource, in.Suffering[0].Wait = model.OnMemory, .4
		change(&in, "n1", func(n *view.Node) { n.State.Load.Used = model.Resources{CPU: .5, Memory: 8 * model.GiB} })
		for id, stalled := range map[model.NodeID]float64{"n2": .05, "n3": .3} {
			change(&in, id, func(n *view.Node) {
				n.State.Load.Pressures = map[model.Resource]float64{model.OnMemory: stalled}
			})
		}
		return in
	}
	// n3 is better by the formula, but a task stalls there 0.3 of the time: 0.3*2 > 0.4.
	d := Decide(Default(), scene(), now)
	if d.Move == nil || d.Move.To != "n2" || d.Move.Predicted != .05 {
		t.Fatalf("%+v, want n2", d)
	}
	const want = "shop/web/app waits 0.40 s a second for the memory of n1, for others; on n2, where 1.00 of 8.00 GiB are in use, " +
		"it would wait about 0.05; it would be frozen for about 1.3s"
	if d.Move.Message != want {
		t.Errorf("message\n %s\nwant\n %s", d.Move.Message, want)
	}
	in := scene()
	change(&in, "n2", func(n *view.Node) { n.State.Load.Pressures = nil })
	if d := Decide(Default(), in, now); d.Move != nil || !strings.Contains(d.Verdicts[0].Message, "n2: it does not tell how much is waited there for memory") {
		t.Errorf("%+v, want none: an agent that does not tell of memory may be as short of it", d)
	}
}

// Where it would make the node short of memory, it would suffer as it does here, and come back.
func TestWantOfMemoryIsNotTakenAlong(t *testing.T) {
	for used, goes := range map[model.Bytes]bool{6800 * model.MiB: true, 7200 * model.MiB: false} { // of 8192, with the pod's 400
		in := scene()
		in.Suffering[0].Resource, in.Suffering[0].Wait = model.OnMemory, .4
		for _, id := range []model.NodeID{"n2", "n3"} {
			change(&in, id, func(n *view.Node) {
				n.State.Load.Used.Memory = used
				n.State.Load.Pressures = map[model.Resource]float64{model.OnMemory: 0}
			})
		}
		d := Decide(Default(), in, now)
		if (d.Move != nil) != goes {
			t.Errorf("%d MiB in use: %+v, want a move: %v", used/model.MiB, d, goes)
		}
		if want := "n3: it would be short of memory there"; !goes && !strings.Contains(d.Verdicts[0].Message, want) {
			t.Errorf("%q, want %q in it", d.Verdicts[0].Message, want)
		}
	}
}

// One that suffers for the CPU and for memory goes only where it is clearly better off in both.
func TestEveryResourceItSuffersForCounts(t *testing.T) {
	const whole = 8 * model.GiB
	for name, c := range map[string]struct {
		worst, also model.Resource
		spoil       func(n *view.Node) // n3, the better one by the formula; n2 is fit
		against     string
	}{
		"as short of memory": {model.OnCPU, model.OnMemory, func(n *view.Node) { n.State.Load.Pressures[model.OnMemory] = .3 }, "it would wait about 0.30 there for memory, not 2 times less"},
		"does not tell":      {model.OnCPU, model.OnMemory, func(n *view.Node) { n.State.Load.Pressures = nil }, "it does not tell how much is waited there for memory"},
		"told no number":     {model.OnCPU, model.OnIO, func(n *view.Node) { n.State.Load.Pressures[model.OnIO] = math.NaN() }, "a wait of NaN there for io makes no sense"},
		"little left of it":  {model.OnCPU, model.OnMemory, func(n *view.Node) { n.State.Load.Used.Memory = 7200 * model.MiB }, "it would be short of memory there"},
		"disk as busy":       {model.OnMemory, model.OnIO, func(n *view.Node) { n.State.Load.Pressures[model.OnIO] = .5 }, "it would wait about 0.50 there for io"},
		"CPU as busy":        {model.OnMemory, model.OnCPU, func(n *view.Node) { n.State.Load.Used.CPU = 3 }, "there for cpu, not 2 times less"},
	} {
		t.Run(name, func(t *testing.T) {
			scene := func() Input {
				in := scene()
				in.Suffering[0].Resource, in.Suffering[0].Also = c.worst, map[model.Resource]float64{c.also: .5}
				for _, id := range []model.NodeID{"n2", "n3"} {
					change(&in, id, func(n *view.Node) {
						n.State.Load.Pressures = map[model.Resource]float64{model.OnMemory: .05, model.OnIO: .05}
						n.State.Load.Allocatable.Memory = whole
					})
				}
				return in
			}
			in := scene()
			if d := Decide(Default(), in, now); d.Move == nil || d.Move.To != "n3" {
				t.Fatalf("%+v, want n3 while it is fit", d)
			}
			change(&in, "n3", c.spoil)
			if d := Decide(Default(), in, now); d.Move == nil || d.Move.To != "n2" {
				t.Errorf("%+v, want n2", d)
			}
			change(&in, "n2", func(n *view.Node) { n.Alive = false })
			if d := Decide(Default(), in, now); d.Move != nil || !strings.Contains(d.Verdicts[0].Message, c.against) {
				t.Errorf("%+v, want none: %s", d, c.against)
			}
		})
	}
}

// What others use of the CPU here has to be known, also where it is not what it suffers for most.
func TestUnknownHereInWhatItSuffersForLess(t *testing.T) {
	in := scene()
	in.Suffering[0].Resource, in.Suffering[0].Also = model.OnMemory, map[model.Resource]float64{model.OnCPU: .6}
	change(&in, "n1", func(n *view.Node) { n.State.Load.Used.CPU = .5 })
	if d := Decide(Default(), in, now); d.Move != nil || d.Verdicts[0].Code != UnknownHere {
		t.Errorf("%+v, want %s", d, UnknownHere)
	}
}

func TestMessageNamesAllThatItSuffersFor(t *testing.T) {
	in := scene()
	in.Suffering[0].Also = map[model.Resource]float64{model.OnIO: .7, model.OnMemory: .5}
	change(&in, "n3", func(n *view.Node) {
		n.State.Load.Pressures = map[model.Resource]float64{model.OnMemory: .05, model.OnIO: .1}
	})
	const want = "it would wait about 0.10; for memory 0.50 here, about 0.05 there; for io 0.70 here, about 0.10 there; it would be frozen"
	if d := Decide(Default(), in, now); d.Move == nil || !strings.Contains(d.Move.Message, want) {
		t.Errorf("%+v, want %q in it", d, want)
	}
}
