// Package picture draws dashboards from what a Prometheus gave for them, as SVG that is the
// same on every machine. It is no Grafana: it shows what each panel is about.
package picture

import (
	"bytes"
	"fmt"
	"html"

	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/dashboards/result"
)

const (
	column, line = 50, 30 // of Grafana's grid, in pixels
	gap          = 4      // between panels, on each side
	width        = 24*column + 2*gap
	head         = 44 // above the panels
	letter       = 6.1
)

// palette of lines, in this order; legends have as many at most.
var palette = []string{"#0b6e4f", "#b3541e", "#2f5d9b", "#8a4b9c", "#a8860b", "#2b8a9e", "#a33b52", "#5f6368", "#6f9a2b", "#c76b9f"}

// Draw makes the picture of a dashboard.
func Draw(d dashboards.Dashboard, b result.Board) ([]byte, error) {
	data := map[int]result.Panel{}
	for _, p := range b.Panels {
		data[p.ID] = p
	}
	var body canvas
	x, y, tallest := 0, 0, 0
	for _, p := range d.Panels {
		w, h := p.Size()
		if x+w > 24 {
			x, y, tallest = 0, y+tallest, 0
		}
		of, ok := data[p.ID]
		if !ok {
			return nil, fmt.Errorf("dashboard %s: there are no data for panel %d (%s): run make docs-dashboards", d.Name, p.ID, p.Title)
		}
		body.panel(p, of, b.Seconds, box{float64(x*column + 2*gap), float64(head + y*line + gap), float64(w*column - 2*gap), float64(h*line - 2*gap)})
		x, tallest = x+w, max(tallest, h)
	}
	var out canvas
	height := head + (y+tallest)*line + gap
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", width, height)
	out.rect(box{0, 0, width, float64(height)}, "#eef0f2", "")
	out.text(2*gap, 28, "start", "#222", 17, "Drover / "+d.Title)
	out.Write(body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes(), nil
}

// box is a part of the picture.
type box struct{ x, y, w, h float64 }

// within is the box without margins.
func (b box) within(left, top, right, bottom float64) box {
	return box{b.x + left, b.y + top, b.w - left - right, b.h - top - bottom}
}

type canvas struct{ bytes.Buffer }

func (c *canvas) panel(p dashboards.Panel, data result.Panel, seconds float64, at box) {
	c.rect(at, "#ffffff", "#d5d9dd")
	c.text(at.x+10, at.y+19, "start", "#222", 12.5, cut(p.Title, at.w-20, 12.5))
	inner := at.within(10, 30, 10, 8)
	switch p.Kind {
	case dashboards.Number:
		c.number(p, data, inner)
	case dashboards.Buckets:
		c.buckets(p, data, seconds, inner)
	case dashboards.Matrix:
		c.matrix(p, data, inner)
	case dashboards.History:
		c.history(p, data, seconds, inner)
	case dashboards.Table:
		c.table(p, data, inner)
	default:
		c.lines(p, data, seconds, inner)
	}
}

func (c *canvas) rect(b box, fill, stroke string) {
	edge := ""
	if stroke != "" {
		edge = ` stroke="` + stroke + `"`
	}
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"%s/>`+"\n", b.x, b.y, b.w, b.h, fill, edge)
}

func (c *canvas) text(x, y float64, anchor, color string, size float64, s string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" font-size="%.1f">%s</text>`+"\n", x, y, anchor, color, size, html.EscapeString(s))
}

func (c *canvas) stroke(x1, y1, x2, y2 float64, color string) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, color)
}

// cut shortens what is wider than w.
func cut(s string, w, size float64) string {
	most := int(w / (letter * size / 11))
	if r := []rune(s); len(r) > most && most > 1 {
		return string(r[:most-1]) + "…"
	}
	return s
}
