package dashboards

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Recording is an expression that Prometheus keeps the value of.
type Recording struct {
	Record, Expr string
	// Labels that the result has.
	Labels []string
	// Help is what it is.
	Help string
}

// Severity is how soon somebody has to act.
type Severity string

// Severities: at once, or within a working day.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
)

// Alert is something that a person has to act on.
type Alert struct {
	Name, Expr string
	// For is how long the expression has to hold; empty: one evaluation.
	For      string
	Severity Severity
	// Summary and Description are annotations: templates of Prometheus.
	Summary, Description string
	// Why and Do are the runbook: what it means, and what to do, step by step.
	Why string
	Do  []string
}

// runbook is where Runbook's text is published.
const runbook = "https://github.com/drover-project/drover/blob/main/docs/alerts.md#"

// where names the place of an alert by whichever label the scrape gave.
const where = "{{ or $labels.node $labels.instance }}"

// Rules are the groups as a rules file of Prometheus, which has no comments of its own.
func Rules() ([]byte, error) {
	var recordings, alerts []object
	for _, r := range Recordings() {
		recordings = append(recordings, object{"record": r.Record, "expr": r.Expr})
	}
	for _, a := range Alerts() {
		o := object{
			"alert": a.Name, "expr": a.Expr, "labels": object{"severity": string(a.Severity)},
			"annotations": object{"summary": a.Summary, "description": a.Description, "runbook_url": runbook + strings.ToLower(a.Name)},
		}
		if a.For != "" {
			o["for"] = a.For
		}
		alerts = append(alerts, o)
	}
	b, err := yaml.Marshal(object{"groups": []object{
		{"name": "drover.recordings", "rules": recordings}, {"name": "drover.alerts", "rules": alerts},
	}})
	head := "# Prometheus rules of Drover, made by \"make dashboards\" of hack/dashboards. A plain rules file; the chart\n" +
		"# renders the same groups as a PrometheusRule (metrics.prometheusRule.enabled).\n"
	return append([]byte(head), b...), err
}

// Runbook is the page that alerts link to.
func Runbook() []byte {
	var b bytes.Buffer
	b.WriteString("<!-- made by \"make dashboards\" of hack/dashboards/alerts.go -->\n# Alerts\n\n" +
		"Each is something that a person has to act on. [install.md](install.md#dashboards-and-alerts) says how to have them.\n" +
		"Alerts and recorded values are in one file, [rules.yaml](../manifests/drover/files/rules.yaml).\n\n" +
		"| alert | severity | when |\n|---|---|---|\n")
	for _, a := range Alerts() {
		when := "`" + cell(a.Expr) + "`"
		if a.For != "" {
			when += " for " + a.For
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", a.Name, strings.ToLower(a.Name), a.Severity, when)
	}
	for _, a := range Alerts() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", a.Name, a.Why)
		for i, step := range a.Do {
			fmt.Fprintf(&b, "%d. %s\n", i+1, step)
		}
	}
	b.WriteString("\n## Recorded values\n\n| name | what |\n|---|---|\n")
	for _, r := range Recordings() {
		fmt.Fprintf(&b, "| `%s` | %s, by %s |\n", r.Record, r.Help, strings.Join(r.Labels, ", "))
	}
	return b.Bytes()
}

// cell is text in a table of Markdown.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// Recordings are what several dashboards, alerts or users of metrics want of what is costly,
// or differs from cluster to cluster, to ask for.
func Recordings() []Recording {
	by := func(labels ...string) string { return strings.Join(labels, ", ") }
	container := []string{"node", "namespace", "pod", "container", "resource"}
	route := []string{"node", "peer", "path"}
	pods := func(expr string, labels ...string) string { return everywhere(ofPods(expr, labels...)) }
	return []Recording{
		{
			Record: "namespace_pod_container:drover_container_contention_ratio:max", Labels: container,
			Expr: "max by (" + by(container...) + ") (" + pods("drover_container_contention_ratio{POD}", "resource") + ")",
			Help: "share of its time for which others kept the container from the resource, with labels of the container's own pod however it was scraped",
		},
		{
			Record: "namespace_pod_container:drover_container_severe:max", Labels: container,
			Expr: "max by (" + by(container...) + ") (" + pods(`drover_container_suffering{POD,grade="severe"}`, "resource", "grade") + ")",
			Help: "1 while the container suffers severely, likewise",
		},
		{
			Record: "node_peer_path:drover_route_probes_unanswered:ratio_rate5m", Labels: route,
			Expr: "sum by (" + by(route...) + `) (rate(drover_route_probes_total{result!="answered"}[5m])) / sum by (` + by(route...) + ") (rate(drover_route_probes_total[5m]))",
			Help: "share of the probes that were lost or not sent",
		},
		{
			Record: "node:drover_cpu_idle:cores", Labels: []string{"node"},
			Expr: "max by (node) (drover_node_cpu_allocatable_cores) - max by (node) (drover_node_cpu_used_cores)",
			Help: "CPU that pods may use and that is not in use",
		},
		{
			Record: "node:drover_memory_idle:bytes", Labels: []string{"node"},
			Expr: "max by (node) (drover_node_memory_allocatable_bytes) - max by (node) (drover_node_memory_used_bytes)",
			Help: "memory that pods may use and that is not in use",
		},
		{
			Record: "drover_scheduler_unknown_scores:ratio_rate10m", Labels: []string{"nothing"},
			Expr: "sum(rate(drover_scheduler_unknown_scores_total[10m])) / (sum(rate(drover_scheduler_scores_total[10m])) > 0)",
			Help: "share of the scores that were neutral; nothing while nothing is scored",
		},
		{
			Record: "outcome:drover_controller_migrations_ended:increase1h", Labels: []string{"outcome"},
			Expr: "sum by (outcome) (increase(drover_controller_migration_duration_seconds_count[1h]))",
			Help: "PodMigrations that ended in the last hour",
		},
		{
			Record: "drover_migration_frozen_seconds:p99_1h", Labels: []string{"nothing"},
			Expr: "histogram_quantile(0.99, sum by (le) (rate(drover_migration_frozen_seconds_bucket[1h])))",
			Help: "frozen time that 99 % of the moves of the last hour stayed below; NaN when there was none",
		},
	}
}

// Recorded gives the recording of that name.
func Recorded(name string) (Recording, bool) {
	all := Recordings()
	i := slices.IndexFunc(all, func(r Recording) bool { return r.Record == name })
	if i < 0 {
		return Recording{}, false
	}
	return all[i], true
}
