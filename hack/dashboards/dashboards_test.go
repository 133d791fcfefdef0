package dashboards_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"github.com/drover-project/drover/hack/dashboards"
)

// Panels have what a reader needs, and numbers of their own.
func TestPanelsAreComplete(t *testing.T) {
	for _, d := range dashboards.All() {
		if d.Title == "" || d.Description == "" {
			t.Errorf("%s has no title or description", d.Name)
		}
		ids := map[int]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] || p.ID < 1 {
				t.Errorf("%s: panel %d is there twice", d.Name, p.ID)
			}
			ids[p.ID] = true
			if p.Title == "" || p.Description == "" || p.Unit == "" || len(p.Queries) == 0 {
				t.Errorf("%s: panel %d lacks a title, description, unit or query: %+v", d.Name, p.ID, p)
			}
			for _, q := range p.Queries {
				if q.Legend == "" || p.Kind == dashboards.Table && q.Unit == "" {
					t.Errorf("%s: panel %d: a query has no legend, or a column no unit: %s", d.Name, p.ID, q.Expr)
				}
			}
			if !slices.IsSortedFunc(p.Steps, func(a, b dashboards.Step) int { return int(a.From - b.From) }) {
				t.Errorf("%s: panel %d: steps are in no order", d.Name, p.ID)
			}
		}
	}
}

// What Grafana reads has all panels side by side and names no data source of any cluster.
func TestDashboardsFitTheGrid(t *testing.T) {
	for _, d := range dashboards.All() {
		b, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			UID    string
			Panels []struct {
				ID      int
				Type    string
				GridPos struct{ X, Y, W, H int }
			}
			Templating struct{ List []struct{ Name string } }
		}
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if got.UID != "drover-"+d.Name || len(got.Panels) != len(d.Panels) {
			t.Errorf("%s: UID %q, %d panels of %d", d.Name, got.UID, len(got.Panels), len(d.Panels))
		}
		for _, uid := range regexp.MustCompile(`"uid": "([^"]*)"`).FindAllStringSubmatch(string(b), -1) {
			if uid[1] != "${datasource}" && uid[1] != got.UID {
				t.Errorf("%s: names the data source %q", d.Name, uid[1])
			}
		}
		for i, p := range got.Panels {
			if p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: panel %d is wider than the grid: %+v", d.Name, p.ID, p.GridPos)
			}
			for _, q := range got.Panels[:i] {
				a, b := p.GridPos, q.GridPos
				if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
					t.Errorf("%s: panels %d and %d overlap", d.Name, p.ID, q.ID)
				}
			}
		}
		variables := map[string]bool{}
		for _, v := range got.Templating.List {
			variables[v.Name] = true
		}
		for _, used := range regexp.MustCompile(`\$([a-z]+)`).FindAllStringSubmatch(string(b), -1) {
			if !variables[used[1]] {
				t.Errorf("%s: there is no variable %s", d.Name, used[1])
			}
		}
	}
}

// Grafana's own schema of dashboards, and of each kind of panel, knows every field, and misses none.
func TestGrafanaKnowsEveryField(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for _, d := range dashboards.All() {
		b, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var read dashboard.Dashboard
		// Without a fault it is a list of errors that is empty, and not nil.
		if err := read.UnmarshalJSONStrict(b); err != nil && err.Error() != "" {
			t.Errorf("%s: %v", d.Name, err)
		}
		if len(read.Panels) != len(d.Panels) {
			t.Errorf("%s: %d panels are read of %d", d.Name, len(read.Panels), len(d.Panels))
		}
	}
}

// An alert says what is wrong, how bad it is, and what to do; its links lead somewhere.
func TestAlertsSayWhatToDo(t *testing.T) {
	names := map[string]bool{}
	for _, a := range dashboards.Alerts() {
		if names[a.Name] {
			t.Errorf("%s is there twice", a.Name)
		}
		names[a.Name] = true
		if a.Severity != dashboards.Critical && a.Severity != dashboards.Warning {
			t.Errorf("%s: severity %q", a.Name, a.Severity)
		}
		if a.Summary == "" || a.Description == "" || a.Why == "" || len(a.Do) == 0 {
			t.Errorf("%s lacks a summary, a description or what to do: %+v", a.Name, a)
		}
	}
	page := string(dashboards.Runbook())
	headings := map[string]string{"": page}
	for _, link := range regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`).FindAllStringSubmatch(page, -1) {
		file, anchor := link[1], strings.TrimPrefix(link[2], "#")
		if _, read := headings[file]; !read {
			b, err := os.ReadFile(filepath.Join(root, "docs", file))
			if err != nil {
				t.Errorf("%s: %v", link[0], err)
				continue
			}
			headings[file] = string(b)
		}
		if anchor != "" && !slices.Contains(anchors(headings[file]), anchor) {
			t.Errorf("%s leads nowhere: there is %v", link[0], anchors(headings[file]))
		}
	}
}

// anchors of a page's headings, as GitHub makes them.
func anchors(page string) (all []string) {
	for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		all = append(all, strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return all
}
