package dashboards

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Selector is what an expression reads of one metric.
type Selector struct {
	Metric string
	// Labels that it selects by.
	Labels []string
	// Text is the selector alone, an expression of its own.
	Text string
}

// Selectors are what an expression reads, without variables of Grafana's. What is no expression
// of Prometheus is an error.
func Selectors(expr string) ([]Selector, error) {
	tree, err := parser.ParseExpr(expr)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", expr, err)
	}
	var all []Selector
	parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		s := Selector{Metric: v.Name}
		for _, m := range v.LabelMatchers {
			if m.Name != labels.MetricName {
				s.Labels = append(s.Labels, m.Name)
			}
		}
		slices.Sort(s.Labels)
		alone := *v
		alone.Offset, alone.OriginalOffset = 0, 0
		s.Text = alone.String()
		all = append(all, s)
		return nil
	})
	return all, nil
}
