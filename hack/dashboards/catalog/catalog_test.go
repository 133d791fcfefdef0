package catalog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// write makes a checkout with one file of an agent.
func write(t *testing.T, content string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"cmd", "controller", "internal", "nodeagent", "plugin"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "nodeagent", "a.go"), []byte("package nodeagent\n"+content), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestScan(t *testing.T) {
	got, err := Scan(write(t, `
var labels = []string{"pod"}
const prefix = "drover_"
var d = prometheus.NewDesc(prefix+"x_total", "An x.", append(slices.Clone(labels), "kind"), nil)
var g = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "drover_g", Help: "A g.", ConstLabels: prometheus.Labels{"event": e}}, held)
func f() {
	prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "drover_h", Help: "An h."}, labels[:1:1])
	prometheus.NewHistogram(prometheus.HistogramOpts{Buckets: b})
}`))
	if err != nil {
		t.Fatal(err)
	}
	agent := []string{"drover-agent"}
	want := []Metric{
		{Name: "drover_g", Help: "A g.", Type: Gauge, Labels: []string{"event"}, Programs: agent},
		{Name: "drover_h", Help: "An h.", Type: Histogram, Labels: []string{"pod"}, Programs: agent},
		{Name: "drover_x_total", Help: "An x.", Type: Counter, Labels: []string{"pod", "kind"}, Programs: agent},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// No metric is left out because it could not be read.
func TestScanFailsForWhatItCannotRead(t *testing.T) {
	for name, content := range map[string]string{
		"name":    `func f(name string) { prometheus.NewDesc("drover_"+name, "help", nil, nil) }`,
		"options": `func f(o prometheus.GaugeOpts) { prometheus.NewGauge(o) }`,
		"labels":  `func f(l []string) { prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "drover_g", Help: "h"}, l) }`,
		"parts":   `var g = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "drover", Name: "g", Help: "h"})`,
	} {
		if got, err := Scan(write(t, content)); err == nil || !strings.Contains(err.Error(), "a.go:2") {
			t.Errorf("%s: %v, %v; want an error that says where", name, got, err)
		}
	}
}
