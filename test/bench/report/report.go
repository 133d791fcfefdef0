// Package report writes what a benchmark measured, in the form that all of them share.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"text/tabwriter"
)

// Metric is one figure of one run.
type Metric struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Goal is the bound that Value was held against, Met whether it kept to it.
	Goal float64 `json:"goal"`
	Met  bool    `json:"met"`
	// Baseline is the figure of what ours is compared with, in the same run; 0: nothing is.
	Baseline float64 `json:"baseline"`
}

// AtMost is a figure that is good when it is not above its goal.
func AtMost(name string, value float64, unit string, goal, baseline float64) Metric {
	return Metric{name, value, unit, goal, value <= goal, baseline}
}

// AtLeast is a figure that is good when it is not below its goal.
func AtLeast(name string, value float64, unit string, goal, baseline float64) Metric {
	return Metric{name, value, unit, goal, value >= goal, baseline}
}

// Print prints the metrics as a table.
func Print(to io.Writer, metrics []Metric) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "metric\tvalue\tgoal\tbaseline\tunit\tmet")
	for _, m := range metrics {
		met := "yes"
		if !m.Met {
			met = "NO"
		}
		fmt.Fprintf(w, "%s\t%.4g\t%.4g\t%.4g\t%s\t%s\n", m.Name, m.Value, m.Goal, m.Baseline, m.Unit, met)
	}
	return w.Flush()
}

// Write writes the metrics to a file, whose directory is made if need be. A figure that is
// not finite is an error: it was not measured.
func Write(file string, metrics []Metric) error { return WriteWith(file, metrics, nil) }

// WriteWith is Write with more beside the metrics, by name.
func WriteWith(file string, metrics []Metric, more map[string]any) error {
	for _, m := range metrics {
		if math.IsNaN(m.Value+m.Goal+m.Baseline) || math.IsInf(m.Value+m.Goal+m.Baseline, 0) {
			return fmt.Errorf("metric %s was not measured: value %v, goal %v, baseline %v", m.Name, m.Value, m.Goal, m.Baseline)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	all := map[string]any{"metrics": metrics}
	maps.Copy(all, more)
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// Read reads the metrics that Write has written.
func Read(file string) ([]Metric, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all struct {
		Metrics []Metric `json:"metrics"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return all.Metrics, nil
}
