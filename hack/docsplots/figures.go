package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/drover-project/drover/hack/plot"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// figure is a diagram with its data, which are what the ranking itself gives.
type figure struct {
	Name   string   `json:"-"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	Series []series `json:"series"`

	axes  func(xs, ys []float64) (x, y plot.Axis)
	marks bool
}

type series struct {
	Name string `json:"name"`
	// Points are pairs of x and y.
	Points [][2]float64 `json:"points"`
}

func (s *series) add(x, y float64) {
	s.Points = append(s.Points, [2]float64{plot.Short(x), plot.Short(y)})
}

// draw gives the diagram and its data as files.
func (f figure) draw() (svg, data []byte, err error) {
	var xs, ys []float64
	var keys []plot.Key
	var lines []plot.Line
	for i, s := range f.Series {
		line := plot.Line{Color: plot.Colors[i%len(plot.Colors)], Marks: f.marks}
		for _, p := range s.Points {
			xs, ys = append(xs, p[0]), append(ys, p[1])
			line.Points = append(line.Points, plot.Point{X: p[0], Y: p[1]})
		}
		keys, lines = append(keys, plot.Key{Name: s.Name, Color: line.Color}), append(lines, line)
	}
	x, y := f.axes(xs, ys)
	x.Name, y.Name = f.X, f.Y
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err = e.Encode(f)
	return plot.Draw(keys, plot.Panel{X: x, Y: y, Lines: lines}), b.Bytes(), err
}

func bothLog(xs, ys []float64) (x, y plot.Axis) { return plot.Log("", xs...), plot.Log("", ys...) }

// node is one with so many idle cores, with 4 GiB each, at that distance.
func node(name string, cores float64, t, spread time.Duration) placement.Candidate {
	return placement.Candidate{
		Node: model.NodeID(name), LoadKnown: true,
		Load:  model.Load{Allocatable: model.Resources{CPU: model.Cores(cores), Memory: model.Bytes(cores * 4 * float64(model.GiB))}},
		Route: placement.Route{Time: t, Spread: spread, Known: true},
	}
}

// worth is A of a node alone.
func worth(p placement.Params, cores float64, t time.Duration) float64 {
	return placement.Evaluate(p, []placement.Candidate{node("n", cores, t, 0)})[0].A
}

func ms(t time.Duration) float64 { return float64(t) / float64(time.Millisecond) }

// decades gives times from one to the other, so many in each decade.
func decades(from, to time.Duration, each int) (all []time.Duration) {
	n := int(math.Round(math.Log10(float64(to)/float64(from)) * float64(each)))
	for i := range n + 1 {
		all = append(all, time.Duration(math.Round(float64(from)*math.Pow(10, float64(i)/float64(each))/1e3))*time.Microsecond)
	}
	return all
}

// figures are all of them.
func figures() []figure { return []figure{floor(), exponent(), band(), scale()} }

// floor: what a shorter way is worth below and above it.
func floor() figure {
	f := figure{Name: "floor", X: "measured route time, ms", Y: "A of 4 idle cores and 16 GiB", axes: bothLog}
	for _, floor := range []time.Duration{50 * time.Microsecond, placement.Defaults().Floor, time.Millisecond} {
		p := placement.Defaults()
		p.Floor = floor
		s := series{Name: "routeTimeFloor " + floor.String()}
		for _, t := range decades(10*time.Microsecond, 10*time.Millisecond, 20) {
			s.add(ms(t), worth(p, 4, t))
		}
		f.Series = append(f.Series, s)
	}
	return f
}

// exponent: how many times as much must be idle to make up for the way.
func exponent() figure {
	f := figure{Name: "exponent", X: "route time, ms", Y: "idle cores that are worth one at 0.2 ms", axes: bothLog}
	for _, e := range []float64{0, 0.5, 1, 2} {
		p := placement.Defaults()
		p.Exponent = e
		s := series{Name: fmt.Sprint("routeTimeExponent ", e)}
		for _, t := range decades(p.Floor, 50*p.Floor, 20) {
			s.add(ms(t), worth(p, 1, p.Floor)/worth(p, 1, t))
		}
		f.Series = append(f.Series, s)
	}
	return f
}

// band: as what the route times of many nodes count when each has a spread.
func band() figure {
	f := figure{Name: "band", X: "measured route time, ms", Y: "route time that counts, ms", axes: func(_, _ []float64) (x, y plot.Axis) {
		a := plot.Axis{To: 4, Ticks: []float64{0, 1, 2, 3, 4}}
		return a, a
	}}
	for _, percent := range []int{0, 5, 20} {
		var in []placement.Candidate
		for t := 200 * time.Microsecond; t <= 4*time.Millisecond; t += 50 * time.Microsecond {
			in = append(in, node(fmt.Sprintf("n%04d", t.Microseconds()), 4, t, t*time.Duration(percent)/100))
		}
		s := series{Name: fmt.Sprintf("spread %d %% of it", percent)}
		for i, score := range placement.Evaluate(placement.Defaults(), in) {
			s.add(ms(in[i].Route.Time), ms(score.T))
		}
		f.Series = append(f.Series, s)
	}
	return f
}

// scale: points of seven nodes that have the same idle, beside what a linear scale would give.
func scale() figure {
	f := figure{Name: "scale", X: "route time, ms", Y: "points", marks: true, axes: func(xs, _ []float64) (x, y plot.Axis) {
		return plot.Log("", xs...), plot.Axis{To: 100, Ticks: []float64{0, 20, 40, 60, 80, 100}}
	}}
	times := []time.Duration{200, 500, 1000, 2000, 5000, 10000, 20000}
	var in []placement.Candidate
	for _, t := range times {
		in = append(in, node(fmt.Sprintf("n%05d", t), 4, t*time.Microsecond, 0))
	}
	as := func(name string, scores []placement.Score, points func(placement.Score) float64) {
		s := series{Name: name}
		for i, score := range scores[:len(times)] {
			s.add(ms(in[i].Route.Time), points(score))
		}
		f.Series = append(f.Series, s)
	}
	points := func(s placement.Score) float64 { return s.Points }
	seven := placement.Evaluate(placement.Defaults(), in)
	as("logarithmic, as it is", seven, points)
	as("linear", seven, func(s placement.Score) float64 {
		least, greatest := seven[len(times)-1].A, seven[0].A
		return 100 * (s.A - least) / (greatest - least)
	})
	as("with one more at 200 ms", placement.Evaluate(placement.Defaults(), append(in, node("far", 4, 200*time.Millisecond, 0))), points)
	as("with one more that is full", placement.Evaluate(placement.Defaults(), append(in, node("full", 0, time.Millisecond, 0))), points)
	return f
}
