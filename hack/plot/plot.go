// Package plot draws the figures of the documentation: panels of lines beside each other, as
// SVG that is the same on every machine.
package plot

import (
	"bytes"
	"fmt"
	"html"
	"strconv"
	"strings"
)

const (
	left, right          = 56.0, 56.0
	panelWide, panelTall = 330.0, 270.0
	gap                  = 88.0
	row                  = 18.0       // of the legend
	over, under          = 40.0, 50.0 // a panel, beside the legend
	letter               = 7.0        // as wide as most fonts have one on average
)

// Colors for lines, in this order.
var Colors = []string{"#0b6e4f", "#b3541e", "#2f5d9b", "#8a4b9c"}

// Point of a line.
type Point struct {
	X, Y float64
	// Hollow is one that was not measured: its mark is hollow, and what leads to it dashed.
	Hollow bool
}

// Line joins points in their order.
type Line struct {
	Color  string
	Points []Point
	// Marks draws each point.
	Marks bool
	// Wide is drawn wider.
	Wide bool
}

// Panel is one diagram.
type Panel struct {
	X, Y  Axis
	Lines []Line
}

// Key explains what a line, or else a mark, stands for.
type Key struct {
	Name, Color  string
	Mark, Hollow bool
}

// Short leaves four digits of a number for a figure's data: the last ones of a float differ from
// machine to machine.
func Short(x float64) float64 {
	v, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 4, 64), 64) // it is a number
	return v
}

// Draw makes the figure.
func Draw(keys []Key, panels ...Panel) []byte {
	var b bytes.Buffer
	width := left + float64(len(panels))*(panelWide+gap) - gap + right
	var explained bytes.Buffer
	top := row*float64(legend(&explained, keys, width)) + over
	height := top + panelTall + under
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" fill="#ffffff"/>`+"\n", width, height)
	b.Write(explained.Bytes())
	for i, p := range panels {
		p.draw(&b, left+float64(i)*(panelWide+gap), top)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// legend gives the number of its rows.
func legend(b *bytes.Buffer, keys []Key, width float64) int {
	x, rows := left, 1
	for _, k := range keys {
		takes := 42 + letter*float64(len([]rune(k.Name)))
		if x > left && x+takes > width {
			x, rows = left, rows+1
		}
		y := row * float64(rows)
		if k.Mark {
			mark(b, x+9, y, k.Color, k.Hollow)
		} else {
			stroke(b, x, y, x+18, y, k.Color, "2", false)
		}
		text(b, x+24, y+4, "start", "#222", k.Name)
		x += takes
	}
	return rows
}

func (p Panel) draw(b *bytes.Buffer, at, top float64) {
	x := func(v float64) float64 { return at + panelWide*p.X.part(v) }
	y := func(v float64) float64 { return top + panelTall*(1-p.Y.part(v)) }
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="#222" font-weight="bold">%s</text>`+"\n", at-30, top-12, html.EscapeString(p.Y.Name))
	for _, v := range p.Y.Ticks {
		stroke(b, at, y(v), at+panelWide, y(v), "#e3e3e3", "1", false)
		text(b, at-9, y(v)+4, "end", "#444", p.Y.label(v))
	}
	for _, v := range p.X.Ticks {
		stroke(b, x(v), top, x(v), top+panelTall, "#e3e3e3", "1", false)
		text(b, x(v), top+panelTall+17, "middle", "#444", p.X.label(v))
	}
	text(b, at+panelWide/2, top+panelTall+36, "middle", "#444", p.X.Name)
	for _, l := range p.Lines {
		width := "1.6"
		if l.Wide {
			width = "2"
		}
		var solid []string // drawn as one: pieces would show where they meet
		for i, to := range l.Points {
			if to.Hollow {
				polyline(b, solid, l.Color, width)
				solid = nil
				if i > 0 {
					from := l.Points[i-1]
					stroke(b, x(from.X), y(from.Y), x(to.X), y(to.Y), l.Color, width, true)
				}
			}
			solid = append(solid, fmt.Sprintf("%.1f,%.1f", x(to.X), y(to.Y)))
		}
		polyline(b, solid, l.Color, width)
		for _, pt := range l.Points {
			if l.Marks {
				mark(b, x(pt.X), y(pt.Y), l.Color, pt.Hollow)
			}
		}
	}
}

func stroke(b *bytes.Buffer, x1, y1, x2, y2 float64, color, width string, dashed bool) {
	dash := ""
	if dashed {
		dash = ` stroke-dasharray="5 4"`
	}
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%s"%s/>`+"\n", x1, y1, x2, y2, color, width, dash)
}

func polyline(b *bytes.Buffer, points []string, color, width string) {
	if len(points) > 1 {
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%s" stroke-linejoin="round"/>`+"\n", strings.Join(points, " "), color, width)
	}
}

func mark(b *bytes.Buffer, x, y float64, color string, hollow bool) {
	fill := color
	if hollow {
		fill = "#ffffff"
	}
	fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s" stroke="%s" stroke-width="1.6"/>`+"\n", x, y, fill, color)
}

func text(b *bytes.Buffer, x, y float64, anchor, color, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, color, html.EscapeString(s))
}
