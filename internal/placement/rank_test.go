package placement

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
)

const ms = time.Millisecond

// unit is the formula as it stands, with arithmetic that can be done in the head.
func unit() Params {
	return Params{Alpha: 1, Beta: 1, Tau: 1, Floor: 100 * time.Microsecond, Exponent: 1, StaleAfter: time.Minute}
}

// res is cores and GiB.
func res(cores, gib float64) model.Resources {
	return model.Resources{CPU: model.Cores(cores), Memory: model.Bytes(gib * float64(model.GiB))}
}

// cand is a node with idle resources (nothing requested or used) and a route time.
func cand(name model.NodeID, cores, gib float64, t, spread time.Duration) Candidate {
	return Candidate{
		Node: name, Load: model.Load{Allocatable: res(cores, gib)}, LoadKnown: true,
		Route: Route{Time: t, Spread: spread, Known: true},
	}
}

func near(a, b float64) bool {
	return math.Abs(a-b) <= 1e-9*math.Max(1, math.Max(math.Abs(a), math.Abs(b)))
}

func find(t *testing.T, ss []Score, id model.NodeID) Score {
	t.Helper()
	for _, s := range ss {
		if s.Node == id {
			return s
		}
	}
	t.Fatalf("no score for %s in %+v", id, ss)
	return Score{}
}

func kinds(s Score) (ks []Kind) {
	for _, r := range s.Reasons {
		ks = append(ks, r.Kind)
	}
	return ks
}

func TestRank(t *testing.T) {
	type want struct {
		node   model.NodeID
		a      float64
		points float64
	}
	unknown := func(name model.NodeID) Candidate {
		return Candidate{Node: name, Load: model.Load{Allocatable: res(9, 9)}}
	}
	for _, tt := range []struct {
		name   string
		params func(*Params)
		in     []Candidate
		want   []want
	}{
		{
			// A = (4 + 8) / T: 12/1 = 12, 12/2 = 6, 12/4 = 3.
			// Points: ln 12 - ln 3 = 2 ln 2, so 6 lies at half of it.
			name: "the shorter route wins among equal nodes",
			in:   []Candidate{cand("far", 4, 8, 4*ms, 0), cand("near", 4, 8, 1*ms, 0), cand("mid", 4, 8, 2*ms, 0)},
			want: []want{{"near", 12, 100}, {"mid", 6, 50}, {"far", 3, 0}},
		},
		{
			// (2+4)/1 = 6 against (8+16)/2 = 12: four times the resources beat half the way.
			name: "resources can make up for the way",
			in:   []Candidate{cand("near", 2, 4, 1*ms, 0), cand("big", 8, 16, 2*ms, 0)},
			want: []want{{"big", 12, 100}, {"near", 6, 0}},
		},
		{
			// (2*3 + 0.5*4) / (4*2) = 8/8 and (2*1 + 0.5*4) / (4*2) = 4/8.
			name:   "weights",
			params: func(p *Params) { p.Alpha, p.Beta, p.Tau = 2, 0.5, 4 },
			in:     []Candidate{cand("a", 3, 4, 2*ms, 0), cand("b", 1, 4, 2*ms, 0)},
			want:   []want{{"a", 1, 100}, {"b", 0.5, 0}},
		},
		{
			// T^2: 12/1 and 12/16.
			name:   "exponent 2",
			params: func(p *Params) { p.Exponent = 2 },
			in:     []Candidate{cand("a", 4, 8, 1*ms, 0), cand("b", 4, 8, 4*ms, 0)},
			want:   []want{{"a", 12, 100}, {"b", 0.75, 0}},
		},
		{
			// Resources alone: 2 and 6; the third has no route and needs none: 18.
			name:   "exponent 0 needs no routes",
			params: func(p *Params) { p.Exponent = 0 },
			in: []Candidate{cand("near", 1, 1, 1*ms, 0), cand("far", 3, 3, 9*ms, 0),
				{Node: "unmeasured", Load: model.Load{Allocatable: res(9, 9)}, LoadKnown: true}},
			want: []want{{"unmeasured", 18, 100}, {"far", 6, 50}, {"near", 2, 0}},
		},
		{
			// The floor is 0.1 ms: 12/0.1 for both.
			name: "below the floor all are equally near",
			in:   []Candidate{cand("a", 4, 8, time.Nanosecond, 0), cand("b", 4, 8, 90*time.Microsecond, 0)},
			want: []want{{"a", 120, 100}, {"b", 120, 100}},
		},
		{
			// 1.0+0.3 >= 1.5-0.3: both count as 1.0 ms. 2.0-0.3 = 1.7 > 1.3: a group of its own.
			name: "spreads that overlap are equal, one group at a time",
			in:   []Candidate{cand("c", 4, 8, 2*ms, 300*time.Microsecond), cand("b", 4, 8, 1500*time.Microsecond, 300*time.Microsecond), cand("a", 4, 8, 1*ms, 300*time.Microsecond)},
			want: []want{{"a", 12, 100}, {"b", 12, 100}, {"c", 6, 0}},
		},
		{
			// z overlaps x as well as y, but y was measured nearer and does not: z goes with y.
			name: "a wide spread does not overtake a nearer node",
			in:   []Candidate{cand("x", 4, 8, 1*ms, 0), cand("y", 4, 8, 10*ms, ms/2), cand("z", 4, 8, 50*ms, 50*ms)},
			want: []want{{"x", 12, 100}, {"y", 1.2, 0}, {"z", 1.2, 0}},
		},
		{
			// Known points 100, 50, 0: the median is 50.
			name: "the unknown get the median",
			in:   []Candidate{unknown("u"), cand("near", 4, 8, 1*ms, 0), cand("mid", 4, 8, 2*ms, 0), cand("far", 4, 8, 4*ms, 0)},
			want: []want{{"near", 12, 100}, {"mid", 6, 50}, {"u", 0, 50}, {"far", 3, 0}},
		},
		{
			// (100+0)/2.
			name: "the median of two lies between them",
			in:   []Candidate{cand("near", 4, 8, 1*ms, 0), unknown("u"), cand("far", 4, 8, 4*ms, 0)},
			want: []want{{"near", 12, 100}, {"u", 0, 50}, {"far", 3, 0}},
		},
		{
			name: "all unknown are equal",
			in:   []Candidate{unknown("c"), unknown("a"), unknown("b")},
			want: []want{{"a", 0, NeutralPoints}, {"b", 0, NeutralPoints}, {"c", 0, NeutralPoints}},
		},
		{
			// A full node is at 0, the worst of the others at 1: 1 + 99/2 in the middle.
			name: "full nodes come last and do not squeeze the others",
			in:   []Candidate{cand("full", 0, 0, 1*ms, 0), cand("near", 4, 8, 1*ms, 0), cand("mid", 4, 8, 2*ms, 0), cand("far", 4, 8, 4*ms, 0)},
			want: []want{{"near", 12, 100}, {"mid", 6, 50.5}, {"far", 3, 1}, {"full", 0, 0}},
		},
		{
			name: "all full",
			in:   []Candidate{cand("a", 0, 0, 1*ms, 0), cand("b", 0, 0, 2*ms, 0)},
			want: []want{{"a", 0, 0}, {"b", 0, 0}},
		},
		{name: "one", in: []Candidate{cand("a", 1, 1, 1*ms, 0)}, want: []want{{"a", 2, 100}}},
		{name: "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := unit()
			if tt.params != nil {
				tt.params(&p)
			}
			got := Rank(p, tt.in)
			if len(got) != len(tt.want) {
				t.Fatalf("%d scores, want %d", len(got), len(tt.want))
			}
			for i, w := range tt.want {
				if g := got[i]; g.Node != w.node || !near(g.A, w.a) || !near(g.Points, w.points) {
					t.Errorf("place %d: %s A=%v points=%v, want %s A=%v points=%v", i, g.Node, g.A, g.Points, w.node, w.a, w.points)
				}
			}
		})
	}
}

func TestIdleIsLessTheGreaterOfRequestedAndUsed(t *testing.T) {
	for _, tt := range []struct {
		name                         string
		allocatable, requested, used model.Resources
		usedKnown                    bool
		want                         model.Resources
	}{
		{"requested is greater", res(8, 16), res(3, 4), res(1, 2), true, res(8-3, 16-4)},
		{"used is greater", res(8, 16), res(3, 4), res(6, 10), true, res(8-6, 16-10)},
		{"each by itself", res(8, 16), res(3, 4), res(6, 2), true, res(8-6, 16-4)},
		{"use not known", res(8, 16), res(3, 4), res(6, 10), false, res(8-3, 16-4)},
		{"over-committed", res(2, 2), res(3, 1), res(1, 3), true, res(0, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Candidate{Node: "n", LoadKnown: tt.usedKnown, Route: Route{Time: ms, Known: true},
				Load: model.Load{Allocatable: tt.allocatable, Requested: tt.requested, Used: tt.used}}
			if diff := cmp.Diff(tt.want, Rank(unit(), []Candidate{c})[0].Idle); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	in := []Candidate{
		cand("a", 4, 8, 1*ms, ms),
		cand("b", 4, 8, 1500*time.Microsecond, 0),
		cand("full", 0, 0, 9*ms, 0),
		{Node: "quiet", LoadKnown: true, Reasons: []Reason{{Kind: KindNoRoute, Text: " from a"}}},
	}
	got := Rank(unit(), in)
	want := map[model.NodeID][]string{
		"a":     nil,
		"b":     {"route time 1.5ms counts as the 1ms of a: their spreads overlap"},
		"full":  {"nothing is idle on this node"},
		"quiet": {"no fresh route time to this node from a", "points are the median of the known nodes"},
	}
	for id, w := range want {
		var texts []string
		for _, r := range find(t, got, id).Reasons {
			texts = append(texts, r.String())
		}
		if diff := cmp.Diff(w, texts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
	if len(in[3].Reasons) != 1 {
		t.Error("Rank must not write into the candidates")
	}
	if b := find(t, got, "b"); b.Route.Time != 1500*time.Microsecond || b.T != 1*ms {
		t.Errorf("measured %v and counted %v, want 1.5ms and 1ms", b.Route.Time, b.T)
	}
}

// A node beside the peer with memory, and no CPU to speak of, does not win over one that is a
// little farther and idle; one that has what the pod wants now and then does. That is for half a core 0.5 + 2.33*0.71 = 2.15:
// with 0.5 idle (0.5 + 7)/0.2 * (0.5/2.15)^2 = 2.0, with 1.5 (1.5 + 7)/0.2 * (1.5/2.15)^2 = 20.7, and near has (6 + 7)/2 = 6.5.
func TestWhatThePodNeeds(t *testing.T) {
	in := []Candidate{
		{Node: "beside", LoadKnown: true, Load: model.Load{Allocatable: res(8, 32), Used: res(8, 4)}, Route: Route{Time: 50 * time.Microsecond, Known: true}},
		{Node: "near", LoadKnown: true, Load: model.Load{Allocatable: res(8, 32), Used: res(2, 4)}, Route: Route{Time: 2 * time.Millisecond, Known: true}},
	}
	best := func(needs model.Resources, used model.Cores) Score {
		for i := range in {
			in[i].Needs = needs
		}
		in[0].Load.Used.CPU = used
		return Rank(Defaults(), in)[0]
	}
	if got := best(model.Resources{}, 8); got.Node != "beside" {
		t.Errorf("%s is the best for a pod that needs nothing", got.Node)
	}
	for used, want := range map[model.Cores]model.NodeID{8: "near", 7.5: "near", 6.5: "beside"} {
		if got := best(res(0.5, 0.25), used); got.Node != want {
			t.Errorf("%s is the best while %v of 8 cores are in use beside the peer, want %s", got.Node, used, want)
		}
	}
	// A half of what it wants now and then, 1 core of u + 2.33*sqrt(u), counts a quarter.
	in[0].Load.Used.CPU, in[0].Needs = 7.5, model.Resources{}
	whole, half := Evaluate(Defaults(), in)[0], in[0]
	half.Needs = model.Resources{CPU: model.Cores(math.Pow((math.Sqrt(2.33*2.33+4)-2.33)/2, 2))}
	if got := Evaluate(Defaults(), []Candidate{half})[0]; math.Abs(got.A-whole.A/4) > 1e-9 || len(got.Reasons) == 0 || got.Reasons[0].Kind != KindCramped {
		t.Errorf("A is %v, want a quarter of %v; %v", got.A, whole.A, got.Reasons)
	}
	// A half of the memory counts half.
	half.Needs = model.Resources{Memory: 2 * whole.Idle.Memory}
	if got := Evaluate(Defaults(), []Candidate{half})[0]; math.Abs(got.A-whole.A/2) > 1e-9 {
		t.Errorf("A is %v, want half of %v", got.A, whole.A)
	}
	none := in[0]
	none.Load.Used.CPU, none.Needs = 9, res(0.1, 0)
	if got := Evaluate(Defaults(), []Candidate{none, in[1]})[0]; got.A != 0 || got.Points != 0 {
		t.Errorf("no CPU is idle: %+v", got)
	}
}
