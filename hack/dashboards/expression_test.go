package dashboards_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/rulefmt"

	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/dashboards/catalog"
	"github.com/drover-project/drover/hack/dashboards/result"
)

const root = "../.."

// scraped are the labels that every scrape adds, and what becomes of those that it has from both.
var scraped = []string{"node", "pod", "namespace", "instance", "exported_namespace", "exported_pod", "exported_container", "exported_node"}

// known gives the labels of a series by its name, which a histogram has several of; false: there is no such.
func known(all []catalog.Metric, name string) ([]string, bool) {
	if r, ok := dashboards.Recorded(name); ok || name == "up" {
		return r.Labels, true
	}
	for _, m := range all {
		of := []string{""}
		switch m.Type {
		case catalog.Histogram:
			of = []string{"_bucket", "_sum", "_count"}
		case catalog.Summary:
			of = []string{"", "_sum", "_count"}
		}
		for _, suffix := range of {
			if name == m.Name+suffix {
				return m.Labels, true
			}
		}
	}
	return nil, false
}

// reads fails the test for an expression that Prometheus would not take, or that reads what no
// program serves.
func reads(t *testing.T, all []catalog.Metric, what, expr string) {
	t.Helper()
	selectors, err := dashboards.Selectors(expr)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if len(selectors) == 0 {
		t.Errorf("%s reads nothing: %s", what, expr)
	}
	for _, s := range selectors {
		labels, ok := known(all, s.Metric)
		if !ok {
			t.Errorf("%s: no program serves %s", what, s.Metric)
		}
		for _, l := range s.Labels {
			if !slices.Contains(labels, l) && !slices.Contains(scraped, l) {
				t.Errorf("%s: %s has no label %s, it has %v", what, s.Metric, l, labels)
			}
		}
	}
}

func metrics(t *testing.T) []catalog.Metric {
	t.Helper()
	all, err := catalog.Scan(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever the variables are set to, expressions are Prometheus' and read metrics that there are.
func TestExpressionsReadWhatIsServed(t *testing.T) {
	all := metrics(t)
	now := time.Now()
	for _, p := range []result.Prometheus{
		{From: now.Add(-time.Hour), To: now, Path: "node"},
		{From: now.Add(-time.Hour), To: now, Path: "pod", Namespace: "a|b"},
	} {
		reads(t, all, "variable namespace", p.Expr(dashboards.NamespacesQuery))
		for _, d := range dashboards.All() {
			for _, panel := range d.Panels {
				for _, q := range panel.Queries {
					expr := p.Expr(q.Expr)
					reads(t, all, d.Name+": "+panel.Title, expr)
					if strings.Contains(strings.ReplaceAll(expr, `"$1"`, ""), "$") {
						t.Errorf("%s: %s: a variable is left: %s", d.Name, panel.Title, expr)
					}
				}
			}
		}
	}
	for _, r := range dashboards.Recordings() {
		reads(t, all, r.Record, r.Expr)
	}
	for _, a := range dashboards.Alerts() {
		reads(t, all, a.Name, a.Expr)
	}
}

// An expression that reads what is not there, or by a label that is not, is found out.
func TestUnknownMetricsAreFound(t *testing.T) {
	all := metrics(t)
	if _, ok := known(all, "drover_gossip_queued_records"); ok {
		t.Error("a metric that is gone is known")
	}
	if labels, ok := known(all, "drover_migration_frozen_seconds_bucket"); !ok || slices.Contains(labels, "path") {
		t.Errorf("buckets of a histogram: %v, %v", labels, ok)
	}
	if _, err := dashboards.Selectors("sum(rate(x[5m])"); err == nil {
		t.Error("an expression without its end is taken")
	}
}

// What promtool checks of a rules file: names, expressions, durations, templates.
func TestRulesAreSound(t *testing.T) {
	b, err := dashboards.Rules()
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(b)
	for _, err := range errs {
		t.Error(err)
	}
	n := 0
	for _, g := range groups.Groups {
		n += len(g.Rules)
	}
	if want := len(dashboards.Recordings()) + len(dashboards.Alerts()); n != want {
		t.Errorf("%d rules are read back of %d", n, want)
	}
}
