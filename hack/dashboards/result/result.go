// Package result is what a Prometheus gives for the panels of a dashboard.
package result

import (
	"bytes"
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"

	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/plot"
)

// Board is what the panels of one dashboard gave.
type Board struct {
	Name string `json:"name"`
	// Seconds that the data are of.
	Seconds float64 `json:"seconds"`
	// Step between points, in seconds.
	Step   float64 `json:"step"`
	Panels []Panel `json:"panels"`
}

// Panel is what the queries of one gave.
type Panel struct {
	ID     int      `json:"id"`
	Series []Series `json:"series"`
	// More series there were that are not here.
	More int `json:"more,omitempty"`
}

// Series is one with its legend.
type Series struct {
	Name string `json:"name"`
	// Query that gave it, by its place in the panel.
	Query int `json:"query,omitempty"`
	// Points are pairs of seconds from the beginning and value.
	Points [][2]float64 `json:"points"`
}

// mostLines are kept of a panel of lines.
const mostLines = 10

// Keep shortens numbers, and leaves those lines that rise highest.
func (p Panel) Keep(kind dashboards.Kind) Panel {
	for i := range p.Series {
		for j, pt := range p.Series[i].Points {
			p.Series[i].Points[j] = [2]float64{plot.Short(pt[0]), plot.Short(pt[1])}
		}
	}
	if kind == dashboards.Lines && len(p.Series) > mostLines {
		slices.SortStableFunc(p.Series, func(a, b Series) int { return cmp.Compare(b.top(), a.top()) })
		p.More, p.Series = len(p.Series)-mostLines, p.Series[:mostLines]
	}
	slices.SortStableFunc(p.Series, func(a, b Series) int {
		x, errX := strconv.ParseFloat(a.Name, 64)
		y, errY := strconv.ParseFloat(b.Name, 64)
		if errX == nil && errY == nil {
			return cmp.Compare(x, y)
		}
		return cmp.Or(cmp.Compare(a.Query, b.Query), cmp.Compare(a.Name, b.Name))
	})
	return p
}

func (s Series) top() float64 {
	top := s.Points[0][1]
	for _, pt := range s.Points {
		top = max(top, pt[1])
	}
	return top
}

// JSON is one line for each panel.
func (b Board) JSON() ([]byte, error) {
	panels := b.Panels
	b.Panels = nil
	head, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Write(bytes.TrimSuffix(head, []byte("null}")))
	for i, p := range panels {
		one, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		out.WriteString([]string{"[\n", ",\n"}[min(i, 1)])
		out.Write(one)
	}
	out.WriteString("\n]}\n")
	return out.Bytes(), nil
}

var placeholder = regexp.MustCompile(`{{ *(\w+) *}}`)

// legend fills a legend in.
func legend(of string, labels map[string]string) string {
	return placeholder.ReplaceAllStringFunc(of, func(s string) string { return labels[placeholder.FindStringSubmatch(s)[1]] })
}
