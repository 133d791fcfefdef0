package deploy

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// The PrometheusRule is the plain rules file, and is there only when it is asked for.
func TestRulesAreRendered(t *testing.T) {
	if m, err := render(t, nil); err != nil || strings.Contains(m, "PrometheusRule") {
		t.Errorf("rendered without being asked for (%v)", err)
	}
	m, err := render(t, map[string]any{"metrics": map[string]any{"prometheusRule": map[string]any{"enabled": true, "labels": map[string]any{"release": "prom"}}}})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile("../../manifests/drover/files/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := yaml.Unmarshal(plain, &want); err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(m, "\n---") {
		var rule struct {
			Kind     string
			Metadata struct{ Labels map[string]string }
			Spec     map[string]any
		}
		if yaml.Unmarshal([]byte(doc), &rule) != nil || rule.Kind != "PrometheusRule" {
			continue
		}
		if d := cmp.Diff(want, rule.Spec); d != "" || rule.Metadata.Labels["release"] != "prom" {
			t.Errorf("labels %v, differs from the rules file (-file +rendered):\n%s", rule.Metadata.Labels, d)
		}
		return
	}
	t.Error("no PrometheusRule is rendered")
}
