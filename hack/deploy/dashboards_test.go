package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Dashboards are ConfigMaps with the sidecar's label, and are there only when they are asked for.
func TestDashboardsAreRendered(t *testing.T) {
	if m, err := render(t, nil); err != nil || strings.Contains(m, "drover-dashboard-") {
		t.Errorf("rendered without being asked for (%v)", err)
	}
	m, err := render(t, map[string]any{"metrics": map[string]any{"dashboards": map[string]any{
		"enabled": true, "labels": map[string]any{"team": "a"}, "annotations": map[string]any{"grafana_folder": "Drover"}}}})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../manifests/drover/files/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards (%v)", err)
	}
	want := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		want["drover-"+filepath.Base(f)] = strings.TrimSpace(string(b))
	}
	for _, doc := range strings.Split(m, "\n---") {
		var c corev1.ConfigMap
		if yaml.Unmarshal([]byte(doc), &c) != nil || c.Kind != "ConfigMap" || !strings.HasPrefix(c.Name, "drover-dashboard-") {
			continue
		}
		if c.Labels["grafana_dashboard"] != "1" || c.Labels["team"] != "a" || c.Annotations["grafana_folder"] != "Drover" {
			t.Errorf("%s: labels %v, annotations %v", c.Name, c.Labels, c.Annotations)
		}
		for name, content := range c.Data {
			if strings.TrimSpace(content) != want[name] {
				t.Errorf("%s: %s is not the file", c.Name, name)
			}
			delete(want, name)
		}
	}
	if len(want) != 0 {
		t.Errorf("%d dashboards are in no ConfigMap", len(want))
	}
}
