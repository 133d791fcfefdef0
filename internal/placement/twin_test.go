package placement

import (
	"fmt"
	"math"
	"math/big"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// twin is the formula as docs/placement.md has it, in exact arithmetic, and with no thought of
// speed. The exponent is a whole number.
func twin(p Params, in []Candidate) map[model.NodeID]Score {
	out, needs := map[model.NodeID]Score{}, map[model.NodeID]model.Resources{}
	for _, c := range in {
		needs[c.Node] = c.Needs
		s := Score{Node: c.Node, Known: p.Problem() == "" && c.LoadKnown}
		l := c.Load
		for _, r := range []model.Resources{l.Allocatable, l.Requested, l.Used} {
			if math.IsNaN(float64(r.CPU)) || math.IsInf(float64(r.CPU), 0) || r.CPU < 0 || r.Memory < 0 {
				s.Known = false
			}
		}
		near := c.Route.Known && c.Route.Time >= 0
		s.Known = s.Known && (near || p.Exponent == 0)
		if s.Known {
			s.Idle.CPU = max(0, l.Allocatable.CPU-max(l.Requested.CPU, l.Used.CPU))
			s.Idle.Memory = max(0, l.Allocatable.Memory-max(l.Requested.Memory, l.Used.Memory))
			if near {
				s.T = max(p.Floor, c.Route.Time)
			}
		}
		out[c.Node] = s
	}
	if p.Exponent > 0 {
		twinGroups(in, out)
	}
	logs, least, greatest, full := map[model.NodeID]float64{}, math.Inf(1), math.Inf(-1), false
	for id, s := range out {
		if !s.Known {
			continue
		}
		a := twinA(p, s, needs[id])
		if a.Sign() == 0 {
			full = true
			continue
		}
		s.A, _ = a.Float64()
		s.A = min(s.A, math.MaxFloat64)
		out[id], logs[id] = s, logOf(a)
		least, greatest = min(least, logs[id]), max(greatest, logs[id])
	}
	var points []float64
	for id, s := range out {
		if log, some := logs[id]; some {
			s.Points = 100
			if greatest-least > same {
				s.Points = 100 * (log - least) / (greatest - least)
				if full {
					s.Points = 1 + 99*(log-least)/(greatest-least)
				}
			}
			out[id] = s
		}
		if s.Known {
			points = append(points, s.Points)
		}
	}
	neutral := 50.
	if n := len(points); n > 0 {
		slices.Sort(points)
		neutral = (points[n/2] + points[(n-1)/2]) / 2
	}
	for id, s := range out {
		if !s.Known {
			s.Points = neutral
			out[id] = s
		}
	}
	return out
}

// twinGroups takes the nearest that is in no group, again and again, and with it all whose
// spreads reach it.
func twinGroups(in []Candidate, out map[model.NodeID]Score) {
	left := map[model.NodeID]*big.Int{} // T
	spread := map[model.NodeID]*big.Int{}
	for _, c := range in {
		if s := out[c.Node]; s.Known {
			left[c.Node], spread[c.Node] = big.NewInt(int64(s.T)), big.NewInt(max(0, int64(c.Route.Spread)))
		}
	}
	nearest := func() (first model.NodeID) {
		for id := range left {
			if first == "" {
				first = id
				continue
			}
			by := left[id].Cmp(left[first])
			if by == 0 {
				by = spread[id].Cmp(spread[first])
			}
			if by < 0 || by == 0 && id < first {
				first = id
			}
		}
		return first
	}
	for first := nearest(); first != ""; {
		own := out[first].T
		reach := new(big.Int).Add(big.NewInt(int64(own)), spread[first])
		delete(left, first)
		// One that does not reach begins the next group, also when one farther away would.
		next := nearest()
		for next != "" && new(big.Int).Sub(left[next], spread[next]).Cmp(reach) <= 0 {
			s := out[next]
			s.T = own
			out[next] = s
			delete(left, next)
			next = nearest()
		}
		first = next
	}
}

func twinA(p Params, s Score, needs model.Resources) *big.Rat {
	rat := func(x float64) *big.Rat { return new(big.Rat).SetFloat64(x) }
	worth := new(big.Rat).Mul(rat(p.Alpha), rat(float64(s.Idle.CPU)))
	worth.Add(worth, new(big.Rat).Mul(rat(p.Beta), big.NewRat(int64(s.Idle.Memory), int64(model.GiB))))
	room := big.NewRat(1, 1)
	least := func(part *big.Rat) {
		if part.Cmp(room) < 0 {
			room = part
		}
	}
	if n := float64(needs.CPU); n > 0 && !math.IsInf(n, 1) {
		part := new(big.Rat).Quo(rat(float64(s.Idle.CPU)), rat(n+2.33*math.Sqrt(n)))
		part.Mul(part, part)
		if f, _ := part.Float64(); f == 0 {
			part = new(big.Rat) // less than a float64 can be is nothing
		}
		least(part)
	}
	if needs.Memory > 0 {
		least(big.NewRat(int64(s.Idle.Memory), int64(needs.Memory)))
	}
	worth.Mul(worth, room)
	if worth.Quo(worth, rat(p.Tau)); worth.Sign() == 0 {
		return worth
	}
	for range int(p.Exponent) {
		worth.Quo(worth, big.NewRat(int64(s.T), int64(time.Millisecond)))
	}
	return worth
}

func logOf(a *big.Rat) float64 {
	mantissa := new(big.Float).SetRat(a)
	exponent := mantissa.MantExp(mantissa)
	m, _ := mantissa.Float64()
	return math.Log(m) + float64(exponent)*math.Ln2
}

// hostile gives 0 to 8 candidates, with everything in them that is no figure, or a strange one.
func hostile(r *rand.Rand) (Params, []Candidate) {
	pick := func(odd ...float64) float64 {
		if r.Intn(12) == 0 {
			return odd[r.Intn(len(odd))]
		}
		return float64(r.Intn(6)) + float64(r.Intn(2))*r.Float64()
	}
	cpu := func() model.Cores {
		return model.Cores(pick(0, math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e-300, math.MaxFloat64/4))
	}
	amount := func() model.Bytes {
		if r.Intn(20) == 0 {
			return []model.Bytes{-1, math.MinInt64, math.MaxInt64, 1}[r.Intn(4)]
		}
		return model.Bytes(r.Intn(8)) * model.GiB
	}
	some := func() model.Resources { return model.Resources{CPU: cpu(), Memory: amount()} }
	span := func() time.Duration {
		if r.Intn(12) == 0 {
			return []time.Duration{0, -1, math.MinInt64, math.MaxInt64, 1}[r.Intn(5)]
		}
		return time.Duration(r.Intn(40)) * 100 * time.Microsecond
	}
	p := Params{Alpha: float64(r.Intn(3)) / 2, Beta: float64(1+r.Intn(4)) / 4, Tau: 1 + r.Float64(), Floor: time.Duration(1 + r.Intn(1e6)),
		Exponent: float64([]int{0, 1, 1, 1, 2, 10}[r.Intn(6)]), StaleAfter: time.Minute}
	if r.Intn(50) == 0 {
		p.Tau = []float64{0, -1, math.NaN(), math.Inf(1)}[r.Intn(4)]
	}
	var needs model.Resources
	if r.Intn(2) > 0 {
		if needs = some(); needs.CPU > math.MaxFloat32 && !math.IsInf(float64(needs.CPU), 1) {
			needs.CPU = 6 // a part of idle cores that is beyond float64 is nobody's
		}
	}
	in := make([]Candidate, r.Intn(9))
	for i := range in {
		in[i] = Candidate{Node: model.NodeID(fmt.Sprint("n", i)), LoadKnown: r.Intn(8) > 0,
			Load:  model.Load{Allocatable: some(), Requested: some(), Used: some()},
			Route: Route{Time: span(), Spread: span() / 4, Known: r.Intn(8) > 0}, Needs: needs}
		if r.Intn(3) > 0 {
			in[i].Load.Allocatable = in[i].Load.Allocatable.Plus(model.Resources{CPU: 6, Memory: 4 * model.GiB})
		}
		if !in[i].LoadKnown {
			in[i].Reasons = append(in[i].Reasons, Reason{Kind: KindNoLoad})
		}
		if !in[i].Route.Known {
			in[i].Reasons = append(in[i].Reasons, Reason{Kind: KindNoRoute})
		}
	}
	if len(in) > 0 && r.Intn(8) == 0 { // all equal
		for i := range in {
			id := in[i].Node
			in[i] = in[0]
			in[i].Node = id
		}
	}
	return p, in
}

func TestRankAgreesWithANaiveTwin(t *testing.T) {
	r := rand.New(rand.NewSource(6))
	sizes, unknown, grouped, full := map[int]bool{}, 0, 0, 0
	for range 50000 {
		p, in := hostile(r)
		got, want := Rank(p, in), twin(p, in)
		sane(t, in, got)
		sizes[len(in)] = true
		for i, s := range got {
			w := want[s.Node]
			close := func(a, b float64) bool { return a == b || math.Abs(a-b) <= 1e-6*max(a, b) }
			if s.Known != w.Known || math.Abs(s.Points-w.Points) > 1e-4 || s.Known && (!close(s.A, w.A) || s.T != w.T || s.Idle != w.Idle) {
				t.Fatalf("%+v\nthe twin says %+v\nof %+v\nby %+v", s, w, in, p)
			}
			if i > 0 && (got[i-1].Points < s.Points || got[i-1].Points == s.Points && got[i-1].Known == s.Known && got[i-1].Node >= s.Node) {
				t.Fatalf("%+v comes before %+v", got[i-1], s)
			}
			switch {
			case !s.Known:
				unknown++
			case s.A == 0:
				full++
			case slices.Contains(kinds(s), KindEqualRoute):
				grouped++
			}
		}
	}
	// The cases are there.
	if len(sizes) != 9 || unknown < 1000 || grouped < 1000 || full < 1000 {
		t.Errorf("sizes %v; %d unknown, %d grouped, %d full scores", sizes, unknown, grouped, full)
	}
}
