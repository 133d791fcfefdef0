package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// NeutralPoints is what every node gets when none is known.
const NeutralPoints = 50

// same is the difference of two logarithms below which two values of A are equal: 12/2 and
// 6/1 may differ in the last digit, and must not lie 100 points apart.
const same = 1e-9

// Rank applies the formula and lists the candidates best first: by points, then the known
// before the unknown, then by name. It is pure and takes any input, senseless ones too:
// those count as unknown.
func Rank(p Params, candidates []Candidate) []Score {
	scores := Evaluate(p, candidates)
	slices.SortStableFunc(scores, func(a, b Score) int {
		return cmp.Or(
			cmp.Compare(b.Points, a.Points),
			cmp.Compare(order(b.Known), order(a.Known)),
			cmp.Compare(a.Node, b.Node),
		)
	})
	return scores
}

// Evaluate is Rank in the order of the candidates, for callers that need no list.
func Evaluate(p Params, candidates []Candidate) []Score {
	scores := make([]Score, len(candidates))
	problem := p.Problem()
	for i, c := range candidates {
		scores[i] = score(p, c)
		if problem != "" {
			scores[i].Known = false
			scores[i].Reasons = append(scores[i].Reasons, Reason{Kind: KindBadParams, Text: problem})
		}
	}
	if p.Exponent != 0 {
		equalise(scores)
	}
	logs := make([]float64, len(scores))
	for i := range scores {
		if s := &scores[i]; s.Known {
			logs[i] = apply(p, s)
		}
	}
	award(scores, logs)
	return scores
}

// score fills in what one candidate's score takes from itself alone.
func score(p Params, c Candidate) Score {
	s := Score{
		Node:  c.Node,
		Idle:  idle(c.Load, c.LoadKnown),
		Route: c.Route,
		Known: c.LoadKnown,
		// A copy: candidates may be ranked again with other parameters.
		Reasons: slices.Clip(slices.Clone(c.Reasons)),
	}
	if text := senseless(c.Load); text != "" {
		s.Known = false
		s.Idle = model.Resources{}
		s.Reasons = append(s.Reasons, Reason{Kind: KindBadLoad, Text: text})
	}
	if c.Route.Known && c.Route.Time < 0 {
		s.Route = Route{}
		s.Reasons = append(s.Reasons, Reason{Kind: KindNoRoute, Text: fmt.Sprintf(": the measured one is %v", c.Route.Time)})
	}
	s.Route.Spread = max(0, s.Route.Spread)
	if s.Route.Known {
		s.T = max(p.Floor, s.Route.Time)
	} else if p.Exponent != 0 {
		s.Known = false
	}
	return s
}

// idle is C and M. Where use is not known, requests alone say what can be idle at most.
func idle(l model.Load, used bool) model.Resources {
	cpu, memory := l.Requested.CPU, l.Requested.Memory
	if used {
		cpu, memory = max(cpu, l.Used.CPU), max(memory, l.Used.Memory)
	}
	return model.Resources{
		CPU:    max(0, l.Allocatable.CPU-cpu),
		Memory: max(0, l.Allocatable.Memory-memory),
	}
}

// senseless names the first figure of a load that cannot be.
func senseless(l model.Load) string {
	for _, f := range []struct {
		name string
		r    model.Resources
	}{{"allocatable", l.Allocatable}, {"requested", l.Requested}, {"used", l.Used}} {
		if cpu := float64(f.r.CPU); !(cpu >= 0) || math.IsInf(cpu, 0) {
			return fmt.Sprintf("%s CPU is %v cores", f.name, cpu)
		}
		if f.r.Memory < 0 {
			return fmt.Sprintf("%s memory is %d bytes", f.name, f.r.Memory)
		}
	}
	return ""
}

// equalise makes route times equal that cannot be told apart. The nodes are gone through
// from near to far; the first of a group stands for it, and every next node whose
// [T-spread, T+spread] overlaps that of the first joins. So each node is in one group
// (being equal is transitive), and no node ever counts as nearer than one that was
// measured nearer.
func equalise(scores []Score) {
	var near []*Score
	for i := range scores {
		if s := &scores[i]; s.Known {
			near = append(near, s)
		}
	}
	slices.SortFunc(near, func(a, b *Score) int {
		if c := cmp.Compare(a.T, b.T); c != 0 {
			return c // most often; the rest need not be looked at
		}
		return cmp.Or(cmp.Compare(a.Route.Spread, b.Route.Spread), cmp.Compare(a.Node, b.Node))
	})
	var first *Score
	for _, s := range near {
		// Compared as a distance: a sum of two durations can overflow.
		if first == nil || s.T-first.T > first.Route.Spread && s.T-first.T-first.Route.Spread > s.Route.Spread {
			first = s
			continue
		}
		if s.T != first.T {
			s.Reasons = append(s.Reasons, Reason{Kind: KindEqualRoute, Node: first.Node, Value: s.T, Limit: first.T})
			s.T = first.T
		}
	}
}

// apply sets A and gives its logarithm without tau, which is the same for all: so tau
// cannot change an order even by rounding. It is -Inf where nothing is idle.
func apply(p Params, s *Score) float64 {
	worth := clamp(p.Alpha*float64(s.Idle.CPU) + p.Beta*s.Idle.Memory.GiB())
	if worth == 0 {
		s.A = 0
		s.Reasons = append(s.Reasons, Reason{Kind: KindFull})
		return math.Inf(-1)
	}
	if p.Exponent == 0 {
		s.A = clamp(worth / p.Tau)
		return math.Log(worth)
	}
	ms := milliseconds(s.T)
	s.A = clamp(worth / (p.Tau * math.Pow(ms, p.Exponent)))
	return math.Log(worth) - clamp(p.Exponent*math.Log(ms))
}

// award turns logarithms of A into points.
func award(scores []Score, logs []float64) {
	lo, hi := math.Inf(1), math.Inf(-1)
	full := false
	for i, s := range scores {
		switch {
		case !s.Known:
		case math.IsInf(logs[i], -1):
			full = true
		default:
			lo, hi = min(lo, logs[i]), max(hi, logs[i])
		}
	}
	// A full node is infinitely worse on this scale. It gets 0, and the worst of the
	// others 1, so that the rest keep their distances.
	base := 0.0
	if full {
		base = 1
	}
	known := make([]float64, 0, len(scores))
	for i := range scores {
		s := &scores[i]
		if !s.Known {
			continue
		}
		switch {
		case math.IsInf(logs[i], -1):
			s.Points = 0
		case hi-lo < same:
			s.Points = 100
		default:
			s.Points = base + (100-base)*min(1, (logs[i]-lo)/(hi-lo))
		}
		known = append(known, s.Points)
	}
	neutral(scores, known)
}

// neutral gives the unknown their points.
func neutral(scores []Score, known []float64) {
	if len(known) == len(scores) {
		return
	}
	points, why := float64(NeutralPoints), Reason{Kind: KindAllUnknown}
	if len(known) > 0 {
		slices.Sort(known)
		points, why = (known[(len(known)-1)/2]+known[len(known)/2])/2, Reason{Kind: KindMedian}
	}
	for i := range scores {
		if s := &scores[i]; !s.Known {
			s.A, s.Points = 0, points
			s.Reasons = append(s.Reasons, why)
		}
	}
}

// clamp keeps a value finite: it goes into logarithms and JSON.
func clamp(x float64) float64 { return max(-math.MaxFloat64, min(math.MaxFloat64, x)) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func order(known bool) int {
	if known {
		return 1
	}
	return 0
}
