package picture

import (
	"fmt"
	"math"
	"strings"

	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/dashboards/result"
)

// row of a legend.
const row = 16

func (c *canvas) lines(p dashboards.Panel, data result.Panel, seconds float64, at box) {
	low, high := span(p, data)
	ticks := steps(p.Unit, low, high)
	low, high = min(low, ticks[0]), max(high, ticks[len(ticks)-1])
	plot := at.within(54, 4, 6, 22+c.legend(data, at))
	y := func(v float64) float64 { return plot.y + plot.h*(1-(v-low)/(high-low)) }
	for _, v := range ticks {
		c.stroke(plot.x, y(v), plot.x+plot.w, y(v), "#e6e8ea")
		c.text(plot.x-6, y(v)+4, "end", "#555", 11, format(p.Unit, v))
	}
	c.times(plot, seconds)
	for _, s := range p.Steps {
		if s.From >= low && s.From <= high {
			fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="6 4"/>`+"\n",
				plot.x, y(s.From), plot.x+plot.w, y(s.From), shade(s.Color))
		}
	}
	step := stepOf(data)
	for i, s := range data.Series {
		color := palette[i%len(palette)]
		var path strings.Builder
		for j, pt := range s.Points {
			verb := "L"
			if j == 0 || pt[0]-s.Points[j-1][0] > 2.5*step {
				verb = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", verb, plot.x+plot.w*pt[0]/seconds, y(pt[1]))
		}
		fmt.Fprintf(c, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", path.String(), color)
		if len(s.Points) == 1 {
			fmt.Fprintf(c, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`+"\n", plot.x+plot.w*s.Points[0][0]/seconds, y(s.Points[0][1]), color)
		}
	}
}

// legend is at the bottom of the box; it gives its height.
func (c *canvas) legend(data result.Panel, at box) float64 {
	type entry struct {
		x    float64
		row  int
		name string
	}
	var all []entry
	x, rows := 0.0, 0
	put := func(name string) {
		name = cut(name, at.w/2, 11)
		takes := 26 + letter*float64(len([]rune(name)))
		if x > 0 && x+takes > at.w {
			x, rows = 0, rows+1
		}
		all = append(all, entry{x, rows, name})
		x += takes
	}
	for _, s := range data.Series {
		put(s.Name)
	}
	if data.More > 0 {
		put(fmt.Sprintf("and %d more", data.More))
	}
	top := at.y + at.h - row*float64(rows+1)
	for i, e := range all {
		y := top + row*float64(e.row) + 12
		if i < len(data.Series) {
			c.rect(box{at.x + e.x, y - 7, 10, 4}, palette[i%len(palette)], "")
		}
		c.text(at.x+e.x+14, y-1, "start", "#333", 11, e.name)
	}
	return row * float64(rows+1)
}

// times are written below a plot, as minutes and seconds.
func (c *canvas) times(plot box, seconds float64) {
	for i := range 5 {
		t := seconds * float64(i) / 4
		x := plot.x + plot.w*float64(i)/4
		c.stroke(x, plot.y, x, plot.y+plot.h, "#f1f2f4")
		anchor := [5]string{"start", "middle", "middle", "middle", "end"}[i]
		c.text(x, plot.y+plot.h+14, anchor, "#555", 11, fmt.Sprintf("%d:%02d", int(t)/60, int(t)%60))
	}
}

// span is the range of values of a panel, from 0 unless some are less.
func span(p dashboards.Panel, data result.Panel) (low, high float64) {
	if p.Max > p.Min {
		return p.Min, p.Max
	}
	for _, s := range data.Series {
		for _, pt := range s.Points {
			low, high = min(low, pt[1]), max(high, pt[1])
		}
	}
	if high == low {
		high = low + 1
	}
	return low, high
}

// steps are four or so round numbers over a range, of what they are written in; they reach or
// pass its ends.
func steps(u dashboards.Unit, low, high float64) []float64 {
	per := 1.0
	for _, s := range scales[u] {
		if s.by > 1 && high >= s.by {
			per = s.by
			break
		}
	}
	raw := (high - low) / per / 4
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5, 10} {
		if unit*m >= raw*(1-1e-9) {
			unit *= m
			break
		}
	}
	var all []float64
	unit *= per
	for i := math.Floor(low/unit + 1e-9); ; i++ {
		all = append(all, i*unit)
		if i*unit >= high*(1-1e-9) {
			return all
		}
	}
}

// scales of units: from which value on, what it is divided by, what is written.
var scales = map[dashboards.Unit][]struct {
	by   float64
	name string
}{
	dashboards.Seconds:        {{60, " min"}, {1, " s"}, {1e-3, " ms"}, {1e-6, " µs"}},
	dashboards.Bytes:          {{1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}, {1, " B"}},
	dashboards.BytesPerSecond: {{1 << 30, " GiB/s"}, {1 << 20, " MiB/s"}, {1 << 10, " KiB/s"}, {1, " B/s"}},
	dashboards.PerSecond:      {{1e3, "k/s"}, {1, "/s"}},
	dashboards.Share:          {{0.01, " %"}},
	dashboards.Count:          {{1e6, "M"}, {1e3, "k"}, {1, ""}},
}

// format writes a value with its unit.
func format(u dashboards.Unit, v float64) string {
	all := scales[u]
	if v == 0 || len(all) == 0 {
		return "0"
	}
	for _, s := range all {
		if math.Abs(v) >= s.by*(1-1e-9) {
			return fmt.Sprintf("%.3g%s", v/s.by, s.name)
		}
	}
	last := all[len(all)-1]
	return fmt.Sprintf("%.2g%s", v/last.by, last.name)
}
