// Command dashboards writes what is made of the dashboards and rules in hack/dashboards: the
// chart's files, the runbook, the list of all metrics, and pictures of the dashboards with the
// data that are beside them in docs.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/drover-project/drover/hack/dashboards"
	"github.com/drover-project/drover/hack/dashboards/catalog"
	"github.com/drover-project/drover/hack/dashboards/picture"
	"github.com/drover-project/drover/hack/dashboards/result"
)

func main() {
	root := flag.String("root", ".", "the checkout")
	flag.Parse()
	if err := write(*root); err != nil {
		fmt.Fprintln(os.Stderr, "dashboards:", err)
		os.Exit(1)
	}
}

// write writes what can be made, also when data for some picture are missing: a lab that is to
// give them reads the rest.
func write(root string) error {
	made, missing := files(root)
	for name, b := range made {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, name), b, 0o644); err != nil {
			return err
		}
	}
	return missing
}

// files are all that is made, by name; with an error those that could be.
func files(root string) (map[string][]byte, error) {
	metrics, err := catalog.Scan(root)
	if err != nil {
		return nil, fmt.Errorf("look for metrics: %w", err)
	}
	rules, err := dashboards.Rules()
	if err != nil {
		return nil, err
	}
	made := map[string][]byte{
		"docs/metrics.md": catalog.Page(metrics), "docs/alerts.md": dashboards.Runbook(), "docs/dashboards.md": page(),
		"manifests/drover/files/rules.yaml": rules,
	}
	var missing []error
	for _, d := range dashboards.All() {
		if made["manifests/drover/files/dashboards/"+d.Name+".json"], err = d.JSON(); err != nil {
			return nil, err
		}
		svg, err := drawn(root, d)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		made["docs/dashboards/"+d.Name+".svg"] = svg
	}
	return made, errors.Join(missing...)
}

// drawn is the picture of a dashboard with the data in docs.
func drawn(root string, d dashboards.Dashboard) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(root, "docs/dashboards", d.Name+".json"))
	if err != nil {
		return nil, fmt.Errorf("data of dashboard %s, which make docs-dashboards gets: %w", d.Name, err)
	}
	var data result.Board
	if err := json.Unmarshal(b, &data); err != nil {
		return nil, fmt.Errorf("data of dashboard %s: %w", d.Name, err)
	}
	return picture.Draw(d, data)
}

// page tells what each dashboard looks like.
func page() []byte {
	var b bytes.Buffer
	b.WriteString("<!-- made by \"make dashboards\" of hack/dashboards -->\n# Dashboards\n\n" +
		"Five for Grafana, in [manifests/drover/files/dashboards](../manifests/drover/files/dashboards);\n" +
		"[install.md](install.md#dashboards-and-alerts) says how to have them. They are made from code\n" +
		"(`hack/dashboards`), name no data source of their own, and have variables for data source, node and namespace.\n\n" +
		"The pictures are drawn of what the lab's Prometheus answered to each panel's queries while a pod was placed near its\n" +
		"peer, starved by a neighbour, and moved (`make docs-dashboards`); the data are beside them. Grafana draws the same\n" +
		"queries in its own way, and no test starts one: what is tested is that each query gives data, and that every field is in the\n" +
		"schema that Grafana's own SDK has. Three nodes and some two minutes: what\n" +
		"takes days to show is not in them. At the left agents and scheduler start anew, with other flags. Of more than ten lines those are drawn that rise highest.\n")
	for _, d := range dashboards.All() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n![The dashboard %s with the data of the lab](dashboards/%s.svg)\n\n[Data](dashboards/%s.json)\n\n| panel | what it shows |\n|---|---|\n",
			d.Title, d.Description, d.Title, d.Name, d.Name)
		for _, p := range d.Panels {
			fmt.Fprintf(&b, "| %s | %s |\n", p.Title, p.Description)
		}
	}
	return b.Bytes()
}
