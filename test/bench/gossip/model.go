package gossip

import "math"

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
// has shown; in a larger one than any, terms fitted to swarms. What clusters send beyond what a
// swarm does is fitted, and how many times as long as in a swarm it takes in them is a mean.
func predict(from []result, swarms []swarmed, n int) (p prediction, ok bool) {
	if len(from) < 2 || len(swarms) < 2 {
		return p, false
	}
	at := func(n int, terms []term, value func(s *swarmed) float64) float64 {
		var points []point
		for i := range swarms {
			v := value(&swarms[i])
			if swarms[i].Nodes == n && v < never {
				return v
			}
			if v > 0 && v < never {
				points = append(points, point{float64(swarms[i].Nodes), v})
			}
		}
		if len(points) == 0 {
			return never
		}
		return fit(points, terms).at(float64(n), terms)
	}
	sent := func(s *swarmed) float64 { return s.Sent }
	var besides []point
	for _, r := range from {
		if more := r.SentMean - at(r.Nodes, ofBytes, sent); more > 0 {
			besides = append(besides, point{float64(r.Nodes), more})
		}
	}
	p = prediction{Nodes: n, Sent: at(n, ofBytes, sent)}
	if len(besides) > 0 {
		p.Sent += fit(besides, ofBytes).at(float64(n), ofBytes)
	}
	took := func(ofSwarm func(s *swarmed) float64, ofResult func(r *result) float64) float64 {
		sum, count := 0.0, 0.0
		for i := range from {
			is, model := ofResult(&from[i]), at(from[i].Nodes, ofTimes, ofSwarm)
			if is > 0 && is < never && model > 0 && model < never {
				sum, count = sum+is/model, count+1
			}
		}
		said := at(n, ofTimes, ofSwarm)
		if count == 0 || said >= never {
			return never
		}
		return said * sum / count
	}
	p.Told = took(func(s *swarmed) float64 { return s.Told.Most99 }, func(r *result) float64 { return r.Told.Most99 })
	p.Location = took(func(s *swarmed) float64 { return s.Location.Most99 }, func(r *result) float64 { return r.Location.Most99 })
	p.Report = took(func(s *swarmed) float64 { return s.Report.Most99 }, func(r *result) float64 { return r.Report.Most99 })
	return p, true
}
