package decide

import (
	"context"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// What is on its way to a node counts as if it were there; n3 is the better one without it.
func TestWhatIsOnItsWayCounts(t *testing.T) {
	for name, c := range map[string]struct {
		coming  Coming
		to      model.NodeID
		against string // of n3 alone
	}{
		"nothing":    {Coming{}, "n3", ""},
		"a little":   {Coming{Use: model.Resources{CPU: .1}}, "n3", ""},
		"reordered":  {Coming{Use: model.Resources{CPU: 1}}, "n2", ""},                                                    // 1.35 cores used of n3, 0.7 of n2
		"requests":   {Coming{Requests: model.Resources{CPU: 3.5}}, "n2", "3.50 cores are requested of 4.00"},             // and 1 more
		"memory":     {Coming{Requests: model.Resources{Memory: 7.5 * 1024 * model.MiB}}, "n2", "7.50 GiB are requested"}, // and 1 more
		"use":        {Coming{Use: model.Resources{CPU: 3.1}}, "n2", "0.55 cores are idle"},                               // 4-0.35-3.1
		"memory use": {Coming{Use: model.Resources{Memory: 6.75 * 1024 * model.MiB}}, "n2", "7.75 GiB are in use"},        // with 1 in use
		"its CPU":    {Coming{Use: model.Resources{CPU: 1.5}}, "n2", "it would wait about 0.53 there for cpu"},            // 1*(1.85/4)/(3.5/4)
	} {
		t.Run(name, func(t *testing.T) {
			in := scene()
			in.Coming = map[model.NodeID]Coming{"n3": c.coming, "unheard-of": {Use: model.Resources{CPU: 1}}}
			was := in.View.Nodes["n3"].State.Load
			if d := Decide(Default(), in, now); d.Move == nil || d.Move.To != c.to {
				t.Errorf("%+v, want %s", d, c.to)
			}
			if !reflect.DeepEqual(in.View.Nodes["n3"].State.Load, was) {
				t.Error("the picture was changed, which others read")
			}
			change(&in, "n2", func(n *view.Node) { n.Alive = false })
			d := Decide(Default(), in, now)
			if (d.Move == nil) != (c.against != "") {
				t.Fatalf("%+v of n3 alone, want a reason against it: %q", d, c.against)
			}
			for _, want := range []string{c.against, "on their way there"} {
				if d.Move == nil && !strings.Contains(d.Verdicts[0].Message, want) {
					t.Errorf("%q, want %q in it", d.Verdicts[0].Message, want)
				}
			}
		})
	}
}

// Two nodes that decide in the same moment: the second one has not heard of the first one's order,
// but finds it when it asks again.
func TestTwoNodesDoNotChooseTheSame(t *testing.T) {
	ordered := map[model.NodeID]Coming{}
	loop := func(orders *[]model.NodeID) *Loop {
		return NewLoop(LoopConfig{
			Config: Default(), Interval: time.Second, Log: slog.New(slog.DiscardHandler),
			Gather: func(_ context.Context, fresh bool) (Input, time.Time, error) {
				in := scene()
				in.Suffering[0].Run = 2
				if fresh {
					in.Coming = ordered
				}
				return in, now, nil
			},
			Order: func(_ context.Context, m Move) error {
				*orders = append(*orders, m.To)
				c := ordered[m.To]
				c.Requests, c.Use = c.Requests.Plus(m.Pod.Requests), c.Use.Plus(model.Resources{CPU: m.Pod.Run, Memory: m.Pod.Memory})
				ordered[m.To] = c
				return nil
			},
		})
	}
	// 2 of 4 cores each: n2 and n3 take one each, and nobody takes the third.
	var orders []model.NodeID
	for range 3 {
		if err := loop(&orders).round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []model.NodeID{"n3", "n2"}; !reflect.DeepEqual(orders, want) {
		t.Errorf("ordered to %v, want %v", orders, want)
	}
}
