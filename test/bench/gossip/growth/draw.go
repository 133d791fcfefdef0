package growth

import (
	"errors"
	"fmt"

	"github.com/drover-project/drover/hack/plot"
)

type system struct{ name, title, color string }

var systems = []system{{"drover", "drover", plot.Colors[0]}, {"memberlist", "memberlist with its defaults", plot.Colors[1]}}

const goalColor = "#c02020"

type figure struct {
	title string
	label func(v float64) string
	value func(p Point) float64
	goal  func(g Goal) float64
}

var figures = []figure{
	{"time until 99 % of the nodes have a report, s", nil, func(p Point) float64 { return p.Seconds }, func(g Goal) float64 { return g.Seconds }},
	{"what a node sends, KB/s", func(v float64) string { return fmt.Sprintf("%.4g", v/1000) }, func(p Point) float64 { return p.Bytes }, func(g Goal) float64 { return g.Bytes }},
}

// Draw makes an SVG of two panels, all axes logarithmic. What the model says is dashed.
func Draw(g Growth) ([]byte, error) {
	if len(g.Points) == 0 {
		return nil, errors.New("no points")
	}
	var keys []plot.Key
	for _, s := range systems {
		keys = append(keys, plot.Key{Name: s.title, Color: s.color, Mark: true})
	}
	keys = append(keys, plot.Key{Name: "by the model", Color: "#555555", Mark: true, Hollow: true}, plot.Key{Name: "goal", Color: goalColor})
	var panels []plot.Panel
	for _, f := range figures {
		panels = append(panels, f.panel(g))
	}
	return plot.Draw(keys, panels...), nil
}

func (f figure) panel(g Growth) plot.Panel {
	var p plot.Panel
	var nodes, values []float64
	for _, s := range systems {
		line := plot.Line{Color: s.color, Marks: true}
		for _, pt := range g.Points {
			if pt.System == s.name && f.value(pt) > 0 {
				line.Points = append(line.Points, plot.Point{X: float64(pt.Nodes), Y: f.value(pt), Hollow: pt.Modelled})
				nodes, values = append(nodes, float64(pt.Nodes)), append(values, f.value(pt))
			}
		}
		p.Lines = append(p.Lines, line)
	}
	for _, goal := range g.Goals {
		values = append(values, f.goal(goal))
	}
	p.X, p.Y = plot.Log("nodes", nodes...), plot.Log(f.title, values...)
	p.X.Label, p.Y.Label = func(v float64) string { return fmt.Sprintf("%.0f", v) }, f.label
	from := p.X.From
	for _, goal := range g.Goals {
		to := float64(goal.Nodes)
		p.Lines = append(p.Lines, plot.Line{Color: goalColor, Wide: true, Points: []plot.Point{{X: from, Y: f.goal(goal)}, {X: to, Y: f.goal(goal)}}})
		from = to
	}
	return p
}
