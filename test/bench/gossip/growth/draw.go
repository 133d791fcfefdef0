package growth

import (
	"bytes"
	"errors"
	"fmt"
	"math"
)

const (
	width, height        = 860, 400
	left, top            = 56.0, 58.0
	panelWide, panelTall = 330.0, 270.0
	gap                  = 88.0
)

// axis is logarithmic, between powers of ten and their halves.
type axis struct{ from, to, at, length float64 }

func (a axis) place(v float64) float64 {
	return a.at + a.length*(math.Log(v)-math.Log(a.from))/(math.Log(a.to)-math.Log(a.from))
}

// span is the least range of steps 1, 2, 5 that holds the values.
func span(values []float64) (from, to float64) {
	from, to = math.Inf(1), 0
	for _, v := range values {
		from, to = min(from, v), max(to, v)
	}
	down, up := steps(from/10, from), steps(to, to*10)
	return down[len(down)-1], up[0]
}

// steps are the numbers 1, 2 and 5 times a power of ten, between two.
func steps(from, to float64) []float64 {
	var all []float64
	for e := math.Floor(math.Log10(from)); e <= math.Ceil(math.Log10(to)); e++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, e); v >= from*(1-1e-9) && v <= to*(1+1e-9) {
				all = append(all, v)
			}
		}
	}
	return all
}

type style struct{ name, color string }

var systems = []style{{"drover", "#0b6e4f"}, {"memberlist", "#b3541e"}}

type panel struct {
	title string
	unit  func(v float64) string
	value func(p Point) float64
	goal  func(g Goal) float64
}

var panels = []panel{
	{"time until 99 % of the nodes have a report, s", plain, func(p Point) float64 { return p.Seconds }, func(g Goal) float64 { return g.Seconds }},
	{"what a node sends, KB/s", func(v float64) string { return plain(v / 1000) }, func(p Point) float64 { return p.Bytes }, func(g Goal) float64 { return g.Bytes }},
}

func plain(v float64) string { return fmt.Sprintf("%.4g", v) }

// Draw makes an SVG of two panels, both axes logarithmic.
func Draw(g Growth) ([]byte, error) {
	if len(g.Points) == 0 {
		return nil, errors.New("no points")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	legend(&b)
	for i, p := range panels {
		p.draw(&b, g, left+float64(i)*(panelWide+gap))
	}
	b.WriteString("</svg>\n")
	return b.Bytes(), nil
}

func legend(b *bytes.Buffer) {
	x := left
	for _, s := range systems {
		name := s.name
		if name == "memberlist" {
			name = "memberlist with its defaults"
		}
		mark(b, x, 18, s.color, false)
		fmt.Fprintf(b, `<text x="%.1f" y="22" fill="#222">%s</text>`+"\n", x+10, name)
		x += 30 + 7*float64(len(name))
	}
	mark(b, x, 18, "#555555", true)
	fmt.Fprintf(b, `<text x="%.1f" y="22" fill="#222">by the model</text>`+"\n", x+10)
	x += 120
	fmt.Fprintf(b, `<line x1="%.1f" y1="18" x2="%.1f" y2="18" stroke="#c02020" stroke-width="2"/><text x="%.1f" y="22" fill="#222">goal</text>`+"\n", x, x+18, x+24)
}

func mark(b *bytes.Buffer, x, y float64, color string, hollow bool) {
	fill := color
	if hollow {
		fill = "#ffffff"
	}
	fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s" stroke="%s" stroke-width="1.6"/>`+"\n", x, y, fill, color)
}

func (p panel) draw(b *bytes.Buffer, g Growth, at float64) {
	var nodes, values []float64
	for _, pt := range g.Points {
		if p.value(pt) > 0 {
			nodes, values = append(nodes, float64(pt.Nodes)), append(values, p.value(pt))
		}
	}
	for _, goal := range g.Goals {
		values = append(values, p.goal(goal))
	}
	x, y := axis{at: at, length: panelWide}, axis{at: top + panelTall, length: -panelTall}
	x.from, x.to = span(nodes)
	y.from, y.to = span(values)
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="#222" font-weight="bold">%s</text>`+"\n", at-30, top-12, p.title)
	for _, v := range steps(y.from, y.to) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#e3e3e3"/>`, at, y.place(v), at+panelWide, y.place(v))
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="end" fill="#444">%s</text>`+"\n", at-6, y.place(v)+4, p.unit(v))
	}
	for _, v := range steps(x.from, x.to) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#e3e3e3"/>`, x.place(v), top, x.place(v), top+panelTall)
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#444">%.0f</text>`+"\n", x.place(v), top+panelTall+17, v)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#444">nodes</text>`+"\n", at+panelWide/2, top+panelTall+36)
	before := x.from
	for _, goal := range g.Goals {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#c02020" stroke-width="2"/>`+"\n",
			x.place(before), y.place(p.goal(goal)), x.place(float64(goal.Nodes)), y.place(p.goal(goal)))
		before = float64(goal.Nodes)
	}
	for _, s := range systems {
		p.line(b, g, s, x, y)
	}
}

// line joins the points of a system, and dashes what the model says.
func (p panel) line(b *bytes.Buffer, g Growth, s style, x, y axis) {
	var last *Point
	for i := range g.Points {
		pt := &g.Points[i]
		if pt.System != s.name || p.value(*pt) <= 0 {
			continue
		}
		if last != nil {
			dash := ""
			if pt.Modelled {
				dash = ` stroke-dasharray="5 4"`
			}
			fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="1.6"%s/>`+"\n",
				x.place(float64(last.Nodes)), y.place(p.value(*last)), x.place(float64(pt.Nodes)), y.place(p.value(*pt)), s.color, dash)
		}
		last = pt
	}
	for _, pt := range g.Points {
		if pt.System == s.name && p.value(pt) > 0 {
			mark(b, x.place(float64(pt.Nodes)), y.place(p.value(pt)), s.color, pt.Modelled)
		}
	}
}
