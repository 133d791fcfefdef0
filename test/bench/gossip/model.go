package gossip

import (
	"math"

	"github.com/drover-project/drover/internal/gossip"
)

// The terms of the model: a figure of a cluster of n nodes is a sum of them, none negative, that
// is fitted to what was measured by least squares of the relative errors.
//
//	bytes a second    a + b·log2 n + c·n     what is exchanged with some others, by what all tell
//	time              a + b·log2 n           the depth of a tree, or the rounds of an epidemic
type weights []float64

type term func(n float64) float64

var (
	constant term = func(float64) float64 { return 1 }
	linear   term = func(n float64) float64 { return n }

	ofBytes = []term{constant, math.Log2, linear}
	ofTimes = []term{constant, math.Log2}
)

type point struct{ n, value float64 }

// fit gives the weights of the terms, of which it leaves out those that would be negative.
func fit(points []point, terms []term) weights {
	var best weights
	least := math.Inf(1)
	for set := 1; set < 1<<len(terms); set++ {
		m, ok := solve(points, terms, set)
		if !ok {
			continue
		}
		off := 0.0
		for _, p := range points {
			e := m.at(p.n, terms)/p.value - 1
			off += e * e
		}
		// More terms never fit worse; that they fit no better than by rounding is no reason.
		if off < least*(1-1e-9)-1e-18 {
			best, least = m, off
		}
	}
	return best
}

func (m weights) at(n float64, terms []term) float64 {
	sum := 0.0
	for i, w := range m {
		sum += w * terms[i](n)
	}
	return sum
}

// solve solves the normal equations for the terms in set; false: they have no solution, or one
// with a negative weight.
func solve(points []point, terms []term, set int) (weights, bool) {
	var chosen []int
	for i := range terms {
		if set>>i&1 == 1 {
			chosen = append(chosen, i)
		}
	}
	k := len(chosen)
	if len(points) < k {
		return nil, false
	}
	a := make([][]float64, k)
	for r := range a {
		a[r] = make([]float64, k+1)
		for _, p := range points {
			row := terms[chosen[r]](p.n) / p.value
			for c := range chosen {
				a[r][c] += row * terms[chosen[c]](p.n) / p.value
			}
			a[r][k] += row
		}
	}
	for c := range k {
		pivot := c
		for r := c + 1; r < k; r++ {
			if math.Abs(a[r][c]) > math.Abs(a[pivot][c]) {
				pivot = r
			}
		}
		if math.Abs(a[pivot][c]) < 1e-30 {
			return nil, false
		}
		a[c], a[pivot] = a[pivot], a[c]
		for r := range k {
			if r == c {
				continue
			}
			f := a[r][c] / a[c][c]
			for j := c; j <= k; j++ {
				a[r][j] -= f * a[c][j]
			}
		}
	}
	m := make(weights, len(terms))
	for i, t := range chosen {
		if m[t] = a[i][k] / a[i][i]; m[t] < 0 {
			return nil, false
		}
	}
	return m, true
}

// prediction is what the model says of a size: bytes sent by a node a second, and the times
// until 99 % of the nodes have the record that 99 in 100 are not slower than, in seconds.
type prediction struct {
	Nodes                        int
	Sent, Report, Told, Location float64
}

// predict asks the model for a size. The part of internal/spread is what a swarm of that size
// has shown, or one beyond which nothing is put off for longer than in it: then bytes grow with
// the nodes, and times with their logarithm. What clusters send beyond what a swarm does is
// fitted, and how many times as long as in a swarm it takes in them is a mean.
func predict(from []result, swarms []swarmed, n int) (p prediction, ok bool) {
	s, ok := swarmOf(swarms, n)
	if !ok {
		return p, false
	}
	var besides []point
	var longer [3]struct{ sum, count float64 }
	for i := range from {
		r := &from[i]
		like, known := swarmOf(swarms, r.Nodes)
		if !known {
			continue
		}
		if more := r.SentMean - like.Sent; more > 0 {
			besides = append(besides, point{float64(r.Nodes), more})
		}
		for k, of := range [...]struct{ is, model float64 }{
			report: {r.Report.Most99, like.Report.Most99}, location: {r.Location.Most99, like.Location.Most99}, told: {r.Told.Most99, like.Told.Most99},
		} {
			if of.is > 0 && of.is < never && of.model > 0 && of.model < never {
				longer[k].sum, longer[k].count = longer[k].sum+of.is/of.model, longer[k].count+1
			}
		}
	}
	if len(besides) == 0 {
		return p, false
	}
	took := func(k kind, t times) float64 {
		if longer[k].count == 0 || t.Most99 >= never {
			return never
		}
		return t.Most99 * longer[k].sum / longer[k].count
	}
	return prediction{Nodes: n, Sent: s.Sent + fit(besides, ofBytes).at(float64(n), ofBytes),
		Report: took(report, s.Report), Told: took(told, s.Told), Location: took(location, s.Location)}, true
}

// swarmOf gives the swarm of a size, or makes it from those that are smaller.
func swarmOf(swarms []swarmed, n int) (like swarmed, ok bool) {
	for _, s := range swarms {
		if s.Nodes == n {
			return s, true
		}
		if s.Nodes < n && s.Nodes > like.Nodes {
			like = s
		}
	}
	changed, repeated := gossip.Spaces(n)
	if c, r := gossip.Spaces(like.Nodes); like.Nodes == 0 || c != changed || r != repeated {
		return like, false
	}
	growth := func(value func(s *swarmed) float64) float64 {
		var points []point
		for i := range swarms {
			if v := value(&swarms[i]); v > 0 && v < never {
				points = append(points, point{float64(swarms[i].Nodes), v})
			}
		}
		if len(points) < 2 {
			return never
		}
		m := fit(points, ofTimes)
		return m.at(float64(n), ofTimes) - m.at(float64(like.Nodes), ofTimes)
	}
	toldBy := growth(func(s *swarmed) float64 { return s.Told.Most99 })
	placedBy := growth(func(s *swarmed) float64 { return s.Location.Most99 })
	like.Sent *= float64(n) / float64(like.Nodes)
	like.Told.Most99 = min(never, like.Told.Most99+toldBy)
	like.Report.Most99 = min(never, like.Report.Most99+toldBy) // it waits as long to be told
	like.Location.Most99 = min(never, like.Location.Most99+placedBy)
	like.Nodes = n
	return like, true
}
