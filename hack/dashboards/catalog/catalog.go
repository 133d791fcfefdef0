// Package catalog reads out of the source which metrics Drover's programs have.
package catalog

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Type of a metric, as Prometheus calls it.
type Type string

// The types there are.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
	Summary   Type = "summary"
)

// Metric is one family.
type Metric struct {
	Name, Help string
	Type       Type
	// Labels that the program gives; those of the scrape come on top.
	Labels []string
	// Programs that serve it.
	Programs []string
}

// programs by where a metric is made, the longest fitting path.
var programs = map[string][]string{
	"nodeagent":         {"drover-agent"},
	"plugin":            {"drover-scheduler"},
	"controller":        {"drover-controller"},
	"internal/gossip":   {"drover-agent", "drover-scheduler"},
	"internal/refusals": {"drover-agent", "drover-controller"},
}

// wrapped are labels that a registry adds to what is made in files whose path begins so.
var wrapped = map[string][]string{"nodeagent/measure/routes_": {"path"}}

// types of what is made by NewDesc alone, and is neither a gauge nor ends in _total.
var types = map[string]Type{"drover_route_time_round_trip_seconds": Histogram}

// makers of client_golang, by what they make. NewDesc's arguments are the name, the help and the labels.
var makers = map[string]Type{
	"NewCounter": Counter, "NewCounterVec": Counter, "NewCounterFunc": Counter,
	"NewGauge": Gauge, "NewGaugeVec": Gauge, "NewGaugeFunc": Gauge,
	"NewHistogram": Histogram, "NewHistogramVec": Histogram, "NewSummary": Summary, "NewSummaryVec": Summary,
	"NewDesc": "",
}

// Scan gives the metrics of the checkout at root, by name. What it cannot read is an error, so that
// no metric is left out: names, helps and labels have to be written down where a metric is made.
func Scan(root string) ([]Metric, error) {
	found := map[string]Metric{}
	var dirs []string
	for _, top := range []string{"cmd", "controller", "internal", "nodeagent", "plugin"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() && e.Name() != "testdata" {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for _, dir := range dirs {
		p, err := parse(dir)
		if err != nil {
			return nil, err
		}
		made, err := p.metrics(root)
		if err != nil {
			return nil, err
		}
		for _, m := range made {
			found[m.Name] = m
		}
	}
	var all []Metric
	for _, m := range found {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// source is one directory's package without its tests.
type source struct {
	files *token.FileSet
	trees []*ast.File
	// values of the package's variables and constants, as they are written.
	values map[string]ast.Expr
}

func parse(dir string) (*source, error) {
	s := &source{files: token.NewFileSet(), values: map[string]ast.Expr{}}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(s.files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		s.trees = append(s.trees, tree)
		for _, d := range tree.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok && len(v.Values) == len(v.Names) {
					for i, n := range v.Names {
						s.values[n.Name] = v.Values[i]
					}
				}
			}
		}
	}
	return s, nil
}

// metrics are those that the package makes.
func (s *source) metrics(root string) (all []Metric, err error) {
	for _, tree := range s.trees {
		ast.Inspect(tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || err != nil {
				return err == nil
			}
			by := maker(call)
			if by == "" {
				return true
			}
			at := s.files.Position(call.Pos())
			m, cause := s.metric(by, call)
			if cause == nil && m.Name != "" {
				m, cause = m.served(root, at.Filename)
			}
			if cause != nil {
				err = fmt.Errorf("%s: %w", at, cause)
			} else if m.Name != "" {
				all = append(all, m)
			}
			return true
		})
	}
	return all, err
}

// maker is the call's function, if it makes metrics.
func maker(call *ast.CallExpr) string {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if p, ok := f.X.(*ast.Ident); !ok || p.Name != "prometheus" {
		return ""
	}
	if _, ok := makers[f.Sel.Name]; !ok {
		return ""
	}
	return f.Sel.Name
}

// metric reads one call. One without a name is part of another's metric.
func (s *source) metric(by string, call *ast.CallExpr) (m Metric, err error) {
	if by == "NewDesc" {
		return s.desc(call.Args)
	}
	options, ok := call.Args[0].(*ast.CompositeLit)
	if !ok {
		return m, fmt.Errorf("the options are not written down here")
	}
	m.Type = makers[by]
	for _, e := range options.Elts {
		field := e.(*ast.KeyValueExpr)
		switch field.Key.(*ast.Ident).Name {
		case "Name":
			m.Name, err = s.text(field.Value)
		case "Help":
			m.Help, err = s.text(field.Value)
		case "ConstLabels":
			m.Labels, err = s.keys(field.Value)
		case "Namespace", "Subsystem":
			err = fmt.Errorf("metrics have their whole name in Name")
		}
		if err != nil {
			return m, err
		}
	}
	if strings.HasSuffix(by, "Vec") {
		labels, err := s.list(call.Args[1])
		m.Labels = append(m.Labels, labels...)
		return m, err
	}
	return m, nil
}

func (s *source) desc(args []ast.Expr) (m Metric, err error) {
	if m.Name, err = s.text(args[0]); err != nil {
		return m, err
	}
	if m.Help, err = s.text(args[1]); err != nil {
		return m, err
	}
	m.Type = cmp.Or(types[m.Name], Gauge)
	if strings.HasSuffix(m.Name, "_total") {
		m.Type = Counter
	}
	m.Labels, err = s.list(args[2])
	return m, err
}

// served completes a metric by where it is made.
func (m Metric) served(root, file string) (Metric, error) {
	path, err := filepath.Rel(root, file)
	if err != nil {
		return m, err
	}
	best := ""
	for dir := range programs {
		if strings.HasPrefix(path, dir+"/") && len(dir) > len(best) {
			best = dir
		}
	}
	if best == "" {
		return m, fmt.Errorf("no program is known that serves %s: add its directory to programs of hack/dashboards/catalog", m.Name)
	}
	m.Programs = programs[best]
	for prefix, labels := range wrapped {
		if strings.HasPrefix(path, prefix) {
			m.Labels = append(slices.Clone(m.Labels), labels...)
		}
	}
	return m, nil
}

// text is a string's value.
func (s *source) text(e ast.Expr) (string, error) {
	switch x := e.(type) {
	case *ast.BasicLit:
		return strconv.Unquote(x.Value)
	case *ast.Ident:
		if v := s.values[x.Name]; v != nil {
			return s.text(v)
		}
	case *ast.BinaryExpr:
		left, err := s.text(x.X)
		if err != nil {
			return "", err
		}
		right, err := s.text(x.Y)
		return left + right, err
	}
	return "", fmt.Errorf("a name or help is not written down here: %T", e)
}

// list is a []string's value: literals, package variables, and append, slices.Clone and slices of such.
func (s *source) list(e ast.Expr) (all []string, err error) {
	switch x := e.(type) {
	case *ast.Ident:
		if x.Name == "nil" {
			return nil, nil
		}
		if v := s.values[x.Name]; v != nil {
			return s.list(v)
		}
	case *ast.SliceExpr:
		return s.list(x.X)
	case *ast.CompositeLit:
		for _, element := range x.Elts {
			one, err := s.text(element)
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		return all, nil
	case *ast.CallExpr:
		if f, ok := x.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Clone" {
			return s.list(x.Args[0])
		}
		if f, ok := x.Fun.(*ast.Ident); ok && f.Name == "append" {
			if all, err = s.list(x.Args[0]); err != nil {
				return nil, err
			}
			for _, arg := range x.Args[1:] {
				one, err := s.text(arg)
				if err != nil {
					return nil, err
				}
				all = append(all, one)
			}
			return all, nil
		}
	}
	return nil, fmt.Errorf("labels are not written down here: %T", e)
}

// keys are those of a prometheus.Labels.
func (s *source) keys(e ast.Expr) (all []string, err error) {
	l, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil, fmt.Errorf("labels are not written down here: %T", e)
	}
	for _, element := range l.Elts {
		key, err := s.text(element.(*ast.KeyValueExpr).Key)
		if err != nil {
			return nil, err
		}
		all = append(all, key)
	}
	return all, nil
}

// Page lists the metrics for docs.
func Page(metrics []Metric) []byte {
	var b bytes.Buffer
	b.WriteString("<!-- made by \"make dashboards\" out of the source -->\n# Metrics\n\n" +
		"Every metric of Drover's programs, on port 7949 of each, path /metrics; those of Go and of the process (`go_*`, `process_*`)\n" +
		"come on top. A histogram has `_bucket`, `_sum` and `_count`, a summary `_sum` and `_count`. [install.md](install.md#dashboards-and-alerts)\n" +
		"says which labels the scrape should add, and where those of pods go. What metrics tell is explained in [placement.md](placement.md),\n" +
		"[route-times.md](route-times.md), [contention.md](contention.md), [moves.md](moves.md), [lifecycle.md](lifecycle.md) and [gossip.md](gossip.md).\n")
	groups := map[string][]Metric{}
	for _, m := range metrics {
		by := strings.Join(m.Programs, " and ")
		groups[by] = append(groups[by], m)
	}
	var names []string
	for by := range groups {
		names = append(names, by)
	}
	slices.Sort(names)
	for _, by := range names {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | what it is |\n|---|---|---|---|\n", by)
		for _, m := range groups[by] {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, strings.Join(m.Labels, ", "), strings.ReplaceAll(m.Help, "|", `\|`))
		}
	}
	return b.Bytes()
}
