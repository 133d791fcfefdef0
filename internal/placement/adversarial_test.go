package placement

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// sane fails unless every score can be printed, encoded and compared.
func sane(t *testing.T, in []Candidate, got []Score) {
	t.Helper()
	if len(got) != len(in) {
		t.Fatalf("%d scores for %d candidates", len(got), len(in))
	}
	for _, s := range got {
		for name, x := range map[string]float64{"A": s.A, "points": s.Points, "cpu": float64(s.Idle.CPU)} {
			if math.IsNaN(x) || math.IsInf(x, 0) || x < 0 {
				t.Errorf("%s: %s is %v for %+v", s.Node, name, x, in)
			}
		}
		if s.Points > 100 || s.Idle.Memory < 0 || s.T < 0 {
			t.Errorf("out of range: %+v", s)
		}
		if !s.Known && len(s.Reasons) == 0 {
			t.Errorf("%s is unknown without a reason", s.Node)
		}
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
}

func TestSenselessLoadsAreUnknown(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for name, spoil := range map[string]func(*Candidate){
		"NaN allocatable":      func(c *Candidate) { c.Load.Allocatable.CPU = model.Cores(nan) },
		"NaN requested":        func(c *Candidate) { c.Load.Requested.CPU = model.Cores(nan) },
		"NaN used":             func(c *Candidate) { c.Load.Used.CPU = model.Cores(nan) },
		"infinite allocatable": func(c *Candidate) { c.Load.Allocatable.CPU = model.Cores(inf) },
		"infinite requests":    func(c *Candidate) { c.Load.Requested.CPU = model.Cores(inf) },
		"-infinite use":        func(c *Candidate) { c.Load.Used.CPU = model.Cores(-inf) },
		"negative memory":      func(c *Candidate) { c.Load.Allocatable.Memory = -1 },
		"no route":             func(c *Candidate) { c.Route = Route{}; c.Reasons = []Reason{{Kind: KindNoRoute}} },
		"negative use":         func(c *Candidate) { c.Load.Used.CPU = -100 },
		"negative requests":    func(c *Candidate) { c.Load.Requested.Memory = -1 << 40 },
		"negative route":       func(c *Candidate) { c.Route.Time = -ms },
		"load not known":       func(c *Candidate) { c.LoadKnown = false; c.Reasons = []Reason{{Kind: KindNoLoad}} },
	} {
		t.Run(name, func(t *testing.T) {
			in := []Candidate{cand("near", 4, 8, 1*ms, 0), cand("far", 4, 8, 4*ms, 0), cand("odd", 400, 800, 1*ms, 0)}
			spoil(&in[2])
			got := Rank(unit(), in)
			sane(t, in, got)
			if odd := find(t, got, "odd"); odd.Known || odd.Points != 50 || !slices.Contains(kinds(odd), KindMedian) {
				t.Errorf("got %+v, want the median 50 of 0 and 100 and a reason", odd)
			}
		})
	}
}

func TestExtremesStayFinite(t *testing.T) {
	in := []Candidate{
		cand("huge", math.MaxFloat64, 1, 1, 0),
		cand("tiny", math.SmallestNonzeroFloat64, 0, math.MaxInt64, math.MaxInt64),
		cand("zero time", 1, 1, 0, 0),
		cand("wide", 1, 1, math.MaxInt64, 1),
		cand("negative spread", 1, 1, ms, -ms),
		{Node: "most memory", Load: model.Load{Allocatable: model.Resources{Memory: math.MaxInt64}}, LoadKnown: true, Route: Route{Time: ms, Known: true}},
		{Node: "nothing"},
		{},
	}
	in[6].Reasons, in[7].Reasons = []Reason{{Kind: KindNoState}}, []Reason{{Kind: KindNoState}}
	for _, p := range []Params{
		unit(),
		{Alpha: math.MaxFloat64, Beta: math.MaxFloat64, Tau: math.SmallestNonzeroFloat64, Floor: 1, Exponent: MaxExponent, StaleAfter: 1},
		{Alpha: math.SmallestNonzeroFloat64, Tau: math.MaxFloat64, Floor: math.MaxInt64, Exponent: MaxExponent, StaleAfter: 1},
	} {
		if problem := p.Problem(); problem != "" {
			t.Fatal(problem)
		}
		sane(t, in, Rank(p, in))
	}
}

func TestBadParamsMakeAllEqual(t *testing.T) {
	nan := math.NaN()
	for name, spoil := range map[string]func(*Params){
		"NaN alpha":         func(p *Params) { p.Alpha = nan },
		"infinite alpha":    func(p *Params) { p.Alpha = math.Inf(1) },
		"NaN beta":          func(p *Params) { p.Beta = nan },
		"negative tau":      func(p *Params) { p.Tau = -1 },
		"infinite tau":      func(p *Params) { p.Tau = math.Inf(1) },
		"NaN exponent":      func(p *Params) { p.Exponent = nan },
		"negative floor":    func(p *Params) { p.Floor = -1 },
		"negative beta":     func(p *Params) { p.Beta = -1 },
		"infinite beta":     func(p *Params) { p.Beta = math.Inf(1) },
		"no weight":         func(p *Params) { p.Alpha, p.Beta = 0, 0 },
		"tau 0":             func(p *Params) { p.Tau = 0 },
		"NaN tau":           func(p *Params) { p.Tau = nan },
		"floor 0":           func(p *Params) { p.Floor = 0 },
		"negative exponent": func(p *Params) { p.Exponent = -1 },
		"great exponent":    func(p *Params) { p.Exponent = 11 },
		"no age":            func(p *Params) { p.StaleAfter = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			p := unit()
			spoil(&p)
			if p.Problem() == "" {
				t.Fatal("no problem found")
			}
			in := []Candidate{cand("a", 4, 8, 1*ms, 0), cand("b", 1, 1, 9*ms, 0)}
			got := Rank(p, in)
			sane(t, in, got)
			for _, s := range got {
				if s.Points != NeutralPoints || !slices.Contains(kinds(s), KindBadParams) {
					t.Errorf("%+v, want neutral points and a reason", s)
				}
			}
		})
	}
}

// random gives 1 to 8 candidates; equal values, full and unknown nodes are common.
func random(r *rand.Rand) []Candidate {
	in := make([]Candidate, 1+r.Intn(8))
	for i := range in {
		t := time.Duration(r.Intn(40)) * 100 * time.Microsecond
		in[i] = cand(model.NodeID(fmt.Sprint("n", i)), float64(r.Intn(5)), float64(r.Intn(3)), t, time.Duration(r.Intn(400))*time.Microsecond)
		in[i].Load.Requested = res(float64(r.Intn(3)), 0)
		in[i].Load.Used = res(r.Float64()*3, 0)
		if r.Intn(4) == 0 {
			in[i].LoadKnown, in[i].Reasons = false, []Reason{{Kind: KindNoLoad}}
		}
	}
	return in
}

// place is how many candidates have more points.
func place(ss []Score, id model.NodeID) (n int) {
	own := 0.0
	for _, s := range ss {
		if s.Node == id {
			own = s.Points
		}
	}
	for _, s := range ss {
		if s.Points > own+1e-9 {
			n++
		}
	}
	return n
}

func TestMoreIdleNeverLowersThePlace(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 20000 {
		in := random(r)
		i := r.Intn(len(in))
		before := place(Rank(unit(), in), in[i].Node)
		if r.Intn(2) == 0 {
			in[i].Load.Allocatable.CPU += model.Cores(r.Float64() * 4)
		} else {
			in[i].Load.Allocatable.Memory += model.Bytes(r.Float64() * 4 * float64(model.GiB))
		}
		if after := place(Rank(unit(), in), in[i].Node); after > before {
			t.Fatalf("%s went from place %d to %d with more that is idle: %+v", in[i].Node, before, after, in)
		}
	}
}

func TestTauChangesNothingButA(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for range 5000 {
		in, p, q := random(r), unit(), unit()
		q.Tau = math.Exp(r.Float64()*40 - 20)
		a, b := Rank(p, in), Rank(q, in)
		for i := range a {
			if a[i].Node != b[i].Node || a[i].Points != b[i].Points || !near(a[i].A, b[i].A*q.Tau) {
				t.Fatalf("tau %v: place %d is %+v, with tau 1 %+v", q.Tau, i, b[i], a[i])
			}
		}
	}
}

func TestOrderOfCandidatesDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	for range 5000 {
		in := random(r)
		a := Rank(unit(), in)
		sane(t, in, a)
		r.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		b := Rank(unit(), in)
		for i := range a {
			if a[i].Node != b[i].Node || a[i].Points != b[i].Points {
				t.Fatalf("place %d: %+v, then %+v", i, a[i], b[i])
			}
		}
	}
}

func TestNearerNeverCountsAsFarther(t *testing.T) {
	r := rand.New(rand.NewSource(4))
	for range 5000 {
		got := Rank(unit(), random(r))
		for _, a := range got {
			for _, b := range got {
				if a.Known && b.Known && a.Route.Time < b.Route.Time && a.T > b.T {
					t.Fatalf("%+v is nearer than %+v and counts as farther", a, b)
				}
			}
		}
	}
}
