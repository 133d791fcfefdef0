package placement

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
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
func Evaluate(p Params, candidates []Candidate) []Score { return new(Buffer).Evaluate(p, candidates) }

// Evaluate is the function Evaluate without memory of its own.
func (b *Buffer) Evaluate(p Params, candidates []Candidate) []Score {
	b.scores, b.logs = sized(b.scores, len(candidates)), sized(b.logs, len(candidates))
	own := b.own(candidates)
	if b.many && !own {
		b.kept.make(len(candidates), most)
	}
	problem := p.Problem()
	for i := range candidates {
		s, c := &b.scores[i], &candidates[i]
		reasons := c.Reasons
		if !own { // they may be ranked again with other parameters
			reasons = append(b.kept.of(i), reasons...)
		}
		score(s, p, c, reasons)
		if problem != "" {
			s.Known = false
			s.Reasons = append(s.Reasons, Reason{Kind: KindBadParams, Text: problem})
		}
	}
	if p.Exponent != 0 {
		b.equalise()
	}
	for i := range b.scores {
		s := &b.scores[i]
		b.logs[i] = math.NaN()
		if !s.Known {
			continue
		}
		if p.Exponent != 0 {
			b.equal(i)
		}
		b.logs[i] = apply(p, s, candidates[i].Needs)
	}
	b.award()
	return b.scores
}

// score fills in what one candidate's score takes from itself alone. The reasons are the candidate's.
func score(s *Score, p Params, c *Candidate, reasons []Reason) {
	*s = Score{
		Node:    c.Node,
		Idle:    idle(&c.Load, c.LoadKnown),
		Route:   c.Route,
		Known:   c.LoadKnown,
		Reasons: reasons,
	}
	if text := senseless(&c.Load); text != "" {
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
}

// idle is C and M. Where use is not known, requests alone say what can be idle at most.
func idle(l *model.Load, used bool) model.Resources {
	if used {
		return l.Idle()
	}
	unmeasured := *l
	unmeasured.Used = model.Resources{}
	return unmeasured.Idle()
}

// senseless names the first figure of a load that cannot be.
func senseless(l *model.Load) string {
	if sound(l.Allocatable) && sound(l.Requested) && sound(l.Used) {
		return ""
	}
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

func sound(r model.Resources) bool { return r.CPU >= 0 && r.CPU <= math.MaxFloat64 && r.Memory >= 0 }

// equalise finds route times that cannot be told apart. The nodes are gone through
// from near to far; the first of a group stands for it, and every next node whose
// [T-spread, T+spread] overlaps that of the first joins. So each node is in one group
// (being equal is transitive), and no node ever counts as nearer than one that was
// measured nearer. Of equally near nodes the one of the least spread, then name, comes first.
//
// It goes to and fro among the nodes, so it does with two words of each.
func (b *Buffer) equalise() {
	order := b.nearToFar()
	b.first = sized(b.first, len(b.scores))
	first := int32(-1)
	for len(order) > 0 {
		// Equally near nodes overlap: only the first of them can begin a group.
		least := order[0]
		t, equal := b.spans[least].t, 1
		for ; equal < len(order) && b.spans[order[equal]].t == t; equal++ {
			i := order[equal]
			if by := cmp.Compare(b.spans[i].spread, b.spans[least].spread); by < 0 || by == 0 && b.scores[i].Node < b.scores[least].Node {
				least = i
			}
		}
		// Compared as a distance: a sum of two durations can overflow.
		if first < 0 || apart(b.spans[first], b.spans[least]) {
			first = least
		}
		for _, i := range order[:equal] {
			b.first[i] = first
		}
		order = order[equal:]
	}
}

// span is a route time and its spread.
type span struct{ t, spread time.Duration }

// apart tells whether two do not overlap; far is no nearer than near.
func apart(near, far span) bool {
	return far.t-near.t > near.spread && far.t-near.t-near.spread > far.spread
}

// equal has a known score count with the route time of the first of its group.
func (b *Buffer) equal(i int) {
	s, first := &b.scores[i], b.first[i]
	if t := b.spans[first].t; t != s.T {
		s.Reasons = append(s.Reasons, Reason{Kind: KindEqualRoute, Node: b.scores[first].Node, Value: s.T, Limit: t})
		s.T = t
	}
}

// nearToFar lists the known scores by T.
func (b *Buffer) nearToFar() []int32 {
	b.spans = sized(b.spans, len(b.scores))
	order, farthest := b.order[:0], time.Duration(0)
	for i := range b.scores {
		if s := &b.scores[i]; s.Known {
			order = append(order, int32(i))
			b.spans[i] = span{s.T, s.Route.Spread}
			farthest = max(farthest, s.T)
		}
	}
	b.order = order
	width := bits.Len(uint(len(b.scores)))
	if bits.Len64(uint64(farthest))+width > 64 {
		slices.SortFunc(order, func(i, j int32) int { return cmp.Compare(b.spans[i].t, b.spans[j].t) })
		return order
	}
	// T and number in one word: that is sorted several times as fast.
	keys := sized(b.keys, len(order))
	for k, i := range order {
		keys[k] = uint64(b.spans[i].t)<<width | uint64(i)
	}
	b.keys, b.spare = sortFrom(keys, sized(b.spare, len(order)), width)
	for k, key := range b.keys {
		order[k] = int32(key & (1<<width - 1))
	}
	return order
}

// sortFrom sorts keys by their bits from one on (by bytes, the least first: no comparison is mispredicted), and
// gives them and what is spare then, which is as long.
func sortFrom(keys, spare []uint64, from int) (sorted, left []uint64) {
	var all uint64
	for _, key := range keys {
		all |= key
	}
	for ; all>>from != 0; from += 8 {
		var next [257]int32 // where the next of each byte goes
		for _, key := range keys {
			next[1+key>>from&0xff]++
		}
		for i := range 256 {
			next[i+1] += next[i]
		}
		for _, key := range keys {
			at := &next[key>>from&0xff]
			spare[*at] = key
			*at++
		}
		keys, spare = spare, keys
	}
	return keys, spare
}

// apply sets A and gives its logarithm without tau, which is the same for all: so tau
// cannot change an order even by rounding. It is -Inf where nothing is idle.
func apply(p Params, s *Score, needs model.Resources) float64 {
	worth := clamp(p.Alpha*float64(s.Idle.CPU) + p.Beta*s.Idle.Memory.GiB())
	needs = needed(needs)
	part := room(s.Idle, needs)
	if part < 1 {
		s.Reasons = append(s.Reasons, Reason{Kind: KindCramped, Use: needs})
	}
	if worth == 0 || part == 0 {
		s.A = 0
		s.Reasons = append(s.Reasons, Reason{Kind: KindFull})
		return math.Inf(-1)
	}
	ms := milliseconds(s.T)
	if p.Exponent == 1 {
		if a := worth * part / ms; a > least && a < 1/least {
			s.A = clamp(a / p.Tau)
			return math.Log(a)
		}
	}
	log := math.Log(worth)
	if part < 1 {
		log += math.Log(part)
	}
	if p.Exponent == 0 {
		s.A = clamp(worth * part / p.Tau)
		return log
	}
	s.A = clamp(worth * part / (p.Tau * math.Pow(ms, p.Exponent)))
	return log - clamp(p.Exponent*math.Log(ms))
}

// headroom is how many standard deviations of the demand for CPU a pod finds idle beyond its mean, where R is 1.
const headroom = 2.33

// room is R, 0 to 1, by the resource of which less is there: idle memory in proportion to what the pod needs, and the
// square of idle CPU in proportion to what it wants now and then. How many cores calls that come at random want at once has as
// its variance its mean (Poisson; the square-root staffing of Halfin and Whitt, 1981), and exceeds mean + 2.33 deviations
// 1 % of the time.
func room(idle, needs model.Resources) float64 {
	part := 1.0
	if needs.CPU > 0 {
		part = min(part, float64(idle.CPU/wanted(needs.CPU)))
		part *= part
	}
	if needs.Memory > 0 {
		part = min(part, float64(idle.Memory)/float64(needs.Memory))
	}
	return part
}

// wanted is how many cores a pod that uses so many on the mean wants now and then.
func wanted(mean model.Cores) model.Cores {
	return mean + headroom*model.Cores(math.Sqrt(float64(mean)))
}

// needed leaves of a need what can be one.
func needed(r model.Resources) model.Resources {
	if !(r.CPU > 0 && r.CPU <= math.MaxFloat64) {
		r.CPU = 0
	}
	r.Memory = max(0, r.Memory)
	return r
}

// least is what a float64 can hold with all its digits, and far less than any A.
const least = 1e-200

// award turns logarithms of A into points; those of the unknown are not numbers.
func (b *Buffer) award() {
	lo, hi, full, unknown := math.Inf(1), math.Inf(-1), false, false
	for _, l := range b.logs {
		switch {
		case math.IsNaN(l):
			unknown = true
		case math.IsInf(l, -1):
			full = true
		default:
			lo, hi = min(lo, l), max(hi, l)
		}
	}
	// A full node is infinitely worse on this scale. It gets 0, and the worst of the
	// others 1, so that the rest keep their distances.
	base := 0.0
	if full {
		base = 1
	}
	for i, l := range b.logs {
		s := &b.scores[i]
		switch {
		case math.IsNaN(l):
		case math.IsInf(l, -1):
			s.Points = 0
		case hi-lo < same:
			s.Points = 100
		default:
			s.Points = base + (100-base)*min(1, (l-lo)/(hi-lo))
		}
		if len(s.Reasons) == 0 {
			s.Reasons = nil
		}
	}
	if unknown {
		b.neutral()
	}
}

// neutral gives the unknown their points.
func (b *Buffer) neutral() {
	known := b.points[:0]
	for i := range b.scores {
		if s := &b.scores[i]; s.Known {
			known = append(known, s.Points)
		}
	}
	b.points = known
	points, why := float64(NeutralPoints), Reason{Kind: KindAllUnknown}
	if len(known) > 0 {
		slices.Sort(known)
		points, why = (known[(len(known)-1)/2]+known[len(known)/2])/2, Reason{Kind: KindMedian}
	}
	for i := range b.scores {
		if s := &b.scores[i]; !s.Known {
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
