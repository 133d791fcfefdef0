package picture

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/dashboards/result"
)

func (c *canvas) number(p dashboards.Panel, data result.Panel, at box) {
	points := data.Series[0].Points
	v := points[len(points)-1][1]
	c.text(at.x+at.w/2, at.y+at.h/2+10, "middle", shade(p.Color(v)), 30, format(p.Unit, v))
}

// buckets has a row for each range of a classic histogram.
func (c *canvas) buckets(p dashboards.Panel, data result.Panel, seconds float64, at box) {
	var names []string
	var each []map[float64]float64
	most, below := 0.0, map[float64]float64{}
	for _, s := range data.Series {
		in := map[float64]float64{}
		upTo := map[float64]float64{}
		for _, pt := range s.Points {
			in[pt[0]] = max(0, pt[1]-below[pt[0]])
			upTo[pt[0]] = pt[1]
			most = max(most, in[pt[0]])
		}
		name := "more"
		if v, err := strconv.ParseFloat(s.Name, 64); err == nil && !math.IsInf(v, 0) {
			name = "≤ " + format(p.Unit, v)
		}
		names, each, below = append(names, name), append(each, in), upTo
	}
	plot := at.within(66, 4, 6, 22)
	tall := plot.h / float64(len(each))
	wide := plot.w * stepOf(data) / seconds
	c.times(plot, seconds)
	written := math.Inf(1)
	for i, in := range each {
		y := plot.y + plot.h - tall*float64(i+1)
		if written-y >= 12 {
			c.text(plot.x-6, y+tall/2+4, "end", "#555", 11, names[i])
			written = y
		}
		for _, t := range sorted(in) {
			if v := in[t]; v > 0 {
				x := plot.x + plot.w*t/seconds
				c.rect(box{x, y, min(wide, plot.x+plot.w-x), tall}.within(0, .5, .5, .5), orange(v/most), "")
			}
		}
	}
}

// stepOf is what lies between points.
func stepOf(data result.Panel) float64 {
	step := math.Inf(1)
	for _, s := range data.Series {
		for i := range s.Points[1:] {
			step = min(step, s.Points[i+1][0]-s.Points[i][0])
		}
	}
	if math.IsInf(step, 1) {
		return 1
	}
	return step
}

func (c *canvas) matrix(p dashboards.Panel, data result.Panel, at box) {
	cells := map[[2]string]float64{}
	var nodes []string
	low, high := math.Inf(1), 0.0
	for _, s := range data.Series {
		from, to, _ := strings.Cut(s.Name, " to ")
		v := s.Points[0][1]
		cells[[2]string{from, to}] = v
		low, high = min(low, v), max(high, v)
		nodes = append(nodes, from, to)
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	plot := at.within(60, 20, 6, 4)
	wide, tall := plot.w/float64(len(nodes)), plot.h/float64(len(nodes))
	for i, n := range nodes {
		c.text(plot.x+wide*(float64(i)+.5), plot.y-6, "middle", "#333", 11, cut(n, wide, 11))
		c.text(plot.x-8, plot.y+tall*(float64(i)+.5)+4, "end", "#333", 11, cut(n, 52, 11))
		for j, to := range nodes {
			cell := box{plot.x + wide*float64(j), plot.y + tall*float64(i), wide, tall}.within(1, 1, 1, 1)
			v, known := cells[[2]string{n, to}]
			if !known {
				c.rect(cell, "#f4f5f6", "")
				continue
			}
			c.rect(cell, heat(v, low, high), "")
			c.text(cell.x+cell.w/2, cell.y+cell.h/2+4, "middle", "#222", 12, format(p.Unit, v))
		}
	}
}

func (c *canvas) history(p dashboards.Panel, data result.Panel, seconds float64, at box) {
	low, high := math.Inf(1), math.Inf(-1)
	name := 0
	for _, s := range data.Series {
		name = max(name, len([]rune(s.Name)))
		for _, pt := range s.Points {
			low, high = min(low, pt[1]), max(high, pt[1])
		}
	}
	plot := at.within(min(at.w/3, 16+letter*float64(name)), 4, 6, 22+row)
	tall := plot.h / float64(len(data.Series))
	wide := plot.w * stepOf(data) / seconds
	c.times(plot, seconds)
	for i, s := range data.Series {
		y := plot.y + tall*float64(i)
		c.text(plot.x-8, y+tall/2+4, "end", "#333", 11, cut(s.Name, plot.x-at.x-8, 11))
		for _, pt := range s.Points {
			color := heat(pt[1], low, high)
			if len(p.Steps) > 0 {
				color = shade(p.Color(pt[1]))
			}
			x := plot.x + plot.w*pt[0]/seconds
			c.rect(box{x, y, min(wide, plot.x+plot.w-x), tall}.within(0, 1, .5, 1), color, "")
		}
	}
	if len(p.Steps) > 0 {
		return
	}
	c.text(plot.x, at.y+at.h-2, "start", "#555", 11, fmt.Sprintf("%s to %s", format(p.Unit, low), format(p.Unit, high)))
}

func (c *canvas) table(p dashboards.Panel, data result.Panel, at box) {
	var names []string
	for _, s := range data.Series {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	wide := at.w / float64(len(p.Queries)+1)
	y := func(i int) float64 { return at.y + 16 + 26*float64(i) }
	c.text(at.x, y(0), "start", "#555", 11, "node")
	for i, name := range names {
		c.stroke(at.x, y(i)+8, at.x+at.w, y(i)+8, "#e6e8ea")
		c.text(at.x, y(i+1), "start", "#222", 11, cut(name, wide, 11))
	}
	for j, q := range p.Queries {
		x := at.x + wide*float64(j+2)
		c.text(x, y(0), "end", "#555", 11, cut(q.Legend, wide-6, 11))
		for _, s := range data.Series {
			if s.Query == j {
				c.text(x, y(slices.Index(names, s.Name)+1), "end", "#222", 11, format(q.Unit, s.Points[0][1]))
			}
		}
	}
}

func sorted(m map[float64]float64) []float64 {
	var keys []float64
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func shade(c dashboards.Color) string {
	return map[dashboards.Color]string{dashboards.Green: "#2e7d4f", dashboards.Yellow: "#b38600", dashboards.Red: "#c0392b"}[c]
}

// heat goes from green to red by the logarithm, where both ends have one.
func heat(v, low, high float64) string {
	part := 0.0
	switch {
	case high <= low:
	case low > 0:
		part = math.Log(v/low) / math.Log(high/low)
	default:
		part = (v - low) / (high - low)
	}
	return mix([][3]float64{{126, 191, 133}, {245, 217, 110}, {226, 112, 92}}, part)
}

func orange(part float64) string {
	return mix([][3]float64{{254, 236, 217}, {247, 160, 80}, {160, 60, 10}}, part)
}

// mix is the colour at a part, 0 to 1, of the way from the first to the last.
func mix(colors [][3]float64, part float64) string {
	at := max(0, min(1, part)) * float64(len(colors)-1)
	i := min(int(at), len(colors)-2)
	f := at - float64(i)
	var rgb [3]int
	for j := range rgb {
		rgb[j] = int(math.Round(colors[i][j] + f*(colors[i+1][j]-colors[i][j])))
	}
	return fmt.Sprintf("#%02x%02x%02x", rgb[0], rgb[1], rgb[2])
}
