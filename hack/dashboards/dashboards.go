// Package dashboards has Drover's Grafana dashboards and Prometheus rules as data. The files of
// the chart and the runbook in docs are made of it, and the tests run every expression of it.
package dashboards

import "strings"

// Dashboard is one of Grafana's.
type Dashboard struct {
	// Name is that of its file; its UID is "drover-" and the name.
	Name               string
	Title, Description string
	// Path has a variable for the way between nodes: by their own network, or by their pods'.
	Path   bool
	Panels []Panel
}

// Kind is how a panel shows what its queries give.
type Kind string

// The kinds of panels.
const (
	// Lines over time.
	Lines Kind = "timeseries"
	// Number is the last value of each series.
	Number Kind = "stat"
	// Buckets of a histogram over time, coloured by how much is in each; the legend is {{le}}.
	Buckets Kind = "heatmap"
	// Matrix has a row for each label node and a column for each label peer, as they are now.
	Matrix Kind = "matrix"
	// History has a row of coloured cells over time for each series.
	History Kind = "status-history"
	// Table has a row for each label node and a column for each query, as they are now.
	Table Kind = "table"
)

// Panel is one of a dashboard's. IDs are never given again: links and alerts name them.
type Panel struct {
	ID                 int
	Kind               Kind
	Title, Description string
	Unit               Unit
	Queries            []Query
	// Steps colour values from each on; what is below the first is green.
	Steps []Step
	// Min and Max of the axis, or of the colours; equal: of the data.
	Min, Max float64
	// Width, of 24, and Height, of 30 pixels; 0: 12 and 8.
	Width, Height int
}

// Query is an expression with the legend of its series.
type Query struct {
	Expr, Legend string
	// Unit of a table's column.
	Unit Unit
}

// Unit is one by Grafana's name.
type Unit string

// Units of panels.
const (
	Seconds        Unit = "s"
	Bytes          Unit = "bytes"
	BytesPerSecond Unit = "binBps"
	PerSecond      Unit = "cps"
	Share          Unit = "percentunit" // 0 to 1
	Count          Unit = "short"
)

// Step is a threshold and the colour from there on.
type Step struct {
	From  float64
	Color Color
}

// Color by Grafana's name.
type Color string

// Colours of thresholds.
const (
	Green  Color = "green"
	Yellow Color = "yellow"
	Red    Color = "red"
)

// Size is the panel's with its defaults.
func (p Panel) Size() (width, height int) {
	width, height = 12, 8
	if p.Width > 0 {
		width = p.Width
	}
	if p.Height > 0 {
		height = p.Height
	}
	return width, height
}

// Color is that of a value by the steps.
func (p Panel) Color(v float64) Color {
	color := Green
	for _, s := range p.Steps {
		if v >= s.From {
			color = s.Color
		}
	}
	return color
}

// Instant tells whether the panel shows this moment alone.
func (p Panel) Instant() bool { return p.Kind == Matrix || p.Kind == Table }

// All are the dashboards.
func All() []Dashboard {
	return []Dashboard{placement(), routes(), contention(), migrations(), members()}
}

// one is a panel's only query.
func one(expr, legend string) []Query { return []Query{{Expr: expr, Legend: legend}} }

// quantiles of a classic histogram over what selects its buckets.
func quantiles(buckets string) []Query {
	of := func(q, name string) Query {
		return Query{Expr: "histogram_quantile(" + q + ", sum by (le) (rate(" + buckets + "[$__rate_interval])))", Legend: name}
	}
	return []Query{of("0.5", "half"), of("0.99", "99 %")}
}

// ofPods reads series that tell of pods other than the one that is scraped. Where labels of
// targets win (Prometheus' default, without honor_labels), those of the series are called
// exported_namespace and so on; both ways the result has node, namespace, pod, container and the
// other labels that are named. In expr POD stands for the selection of them. Of two agents of one
// node, an old one and its successor, the greater value counts: their series differ in the labels
// that are replaced, and could not both stay.
func ofPods(expr string, labels ...string) string {
	with := func(selection string, by ...string) string {
		return "max by (" + strings.Join(append(by, labels...), ", ") + ") (" + strings.ReplaceAll(expr, "POD", selection+`,node=~"$node"`) + ")"
	}
	renamed := with(`exported_namespace=~"$namespace"`, "node", "container", "exported_namespace", "exported_pod", "exported_container")
	for _, label := range []string{"namespace", "pod", "container"} {
		renamed = `label_replace(` + renamed + `, "` + label + `", "$1", "exported_` + label + `", "(.+)")`
	}
	return "(" + renamed + " or " + with(`exported_namespace="",namespace=~"$namespace"`, "node", "namespace", "pod", "container") + ")"
}

// ofNodes does the same for drover-scheduler's series of nodes. In expr NODE stands for the selection.
func ofNodes(expr string) string {
	with := func(label, selection string) string {
		return "max by (" + label + ") (" + strings.ReplaceAll(expr, "NODE", selection) + ")"
	}
	return `(label_replace(` + with("exported_node", `exported_node!="",exported_node=~"$node"`) + `, "node", "$1", "exported_node", "(.+)") or ` +
		with("node", `exported_node="",node=~"$node"`) + ")"
}

// everywhere is an expression of a dashboard for all nodes and namespaces, as rules have it.
func everywhere(expr string) string {
	return strings.NewReplacer(`,node=~"$node"`, "", "$namespace", ".+").Replace(expr)
}
