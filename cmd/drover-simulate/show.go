package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/drover-project/drover/internal/simulate"
)

// show writes an answer as a table, or as JSON.
func show(out io.Writer, a *simulate.Answer, output string) error {
	if output == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(a)
	}
	wide := output == "wide"
	showPods(out, a, wide)
	showPending(out, a)
	showSummary(out, a)
	showNodes(out, a, wide)
	return nil
}

// table aligns its columns.
type table struct {
	*tabwriter.Writer
	out io.Writer
	raw bytes.Buffer
}

func newTable(out io.Writer) *table {
	t := &table{out: out}
	t.Writer = tabwriter.NewWriter(&t.raw, 0, 0, 3, ' ', 0)
	return t
}

// row writes a row of cells; one that is empty says "-".
func (t *table) row(cells ...string) {
	for i := range cells {
		if cells[i] == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.Writer, strings.Join(cells, "\t"))
}

// end writes all, without blanks at ends of lines.
func (t *table) end() {
	t.Flush()
	for line := range strings.Lines(t.raw.String()) {
		fmt.Fprintln(t.out, strings.TrimRight(line, " \n"))
	}
}

// heads are the names of the profiles behind a first cell.
func heads(first string, a *simulate.Answer) []string {
	cells := []string{first}
	for _, p := range a.Profiles {
		cells = append(cells, p.Name)
	}
	return cells
}

func showPods(out io.Writer, a *simulate.Answer, wide bool) {
	t := newTable(out)
	t.row(append(heads("POD", a), "DIFFERS")...)
	for i, pod := range a.Profiles[0].Pods {
		cells, differs := []string{pod.Pod()}, " "
		for _, p := range a.Profiles {
			if p.Pods[i].Node != pod.Node {
				differs = "*"
			}
			cells = append(cells, place(p.Pods[i], a.Runs, wide))
		}
		t.row(append(cells, differs)...)
	}
	t.end()
}

// place is where a pod came.
func place(o simulate.Outcome, runs int, wide bool) string {
	text := o.Node
	if text == "" {
		text = "pending"
	}
	if runs > 1 {
		text += fmt.Sprintf(" (%d of %d)", o.Runs, runs)
	}
	if wide && o.RouteTime != nil {
		text += fmt.Sprintf(" %.3f ms", *o.RouteTime)
	}
	return text
}

// showPending tells why pods are pending, each reason once for every profile.
func showPending(out io.Writer, a *simulate.Answer) {
	for _, p := range a.Profiles {
		var reasons []string
		pods := map[string][]string{}
		for _, o := range p.Pods {
			if o.Node != "" {
				continue
			}
			if len(pods[o.Reason]) == 0 {
				reasons = append(reasons, o.Reason)
			}
			pods[o.Reason] = append(pods[o.Reason], o.Pod())
		}
		for _, reason := range reasons {
			who := pods[reason][0]
			if more := len(pods[reason]) - 1; more > 0 {
				who += fmt.Sprintf(" and %d more", more)
			}
			fmt.Fprintf(out, "\nPENDING by %s: %s: %s\n", p.Name, who, reason)
		}
	}
}

func showSummary(out io.Writer, a *simulate.Answer) {
	fmt.Fprintln(out)
	t := newTable(out)
	title := "SUMMARY"
	if a.Runs > 1 {
		title = fmt.Sprintf("MEAN OF %d RUNS", a.Runs)
	}
	t.row(heads(title, a)...)
	line := func(name string, cell func(s *simulate.Summary) string) {
		cells := []string{name}
		for i := range a.Profiles {
			cells = append(cells, cell(&a.Profiles[i].Summary))
		}
		t.row(cells...)
	}
	line("pods placed", func(s *simulate.Summary) string { return fmt.Sprintf("%s of %d", number(s.Placed), s.Pods) })
	line("nodes that got any", func(s *simulate.Summary) string { return strconv.Itoa(len(s.PerNode)) })
	line("most pods on a node", func(s *simulate.Summary) string {
		if len(s.PerNode) == 0 {
			return ""
		}
		return number(slices.Max(slices.Collect(maps.Values(s.PerNode))))
	})
	line("route time to peers, mean (ms)", func(s *simulate.Summary) string { return ifAny(s.Routes, s.RouteMean) })
	line("route time to peers, p99 (ms)", func(s *simulate.Summary) string { return ifAny(s.Routes, s.RouteP99) })
	line("cross-zone pairs of peers", func(s *simulate.Summary) string {
		if s.Pairs == 0 {
			return ""
		}
		return fmt.Sprintf("%s of %s", number(s.CrossZone), number(s.Pairs))
	})
	line("pods by zone", func(s *simulate.Summary) string { return zones(s.PerZone) })
	line("greatest share of CPU requested", func(s *simulate.Summary) string { return share(s.CPU) })
	line("greatest share of memory requested", func(s *simulate.Summary) string { return share(s.Memory) })
	line("cores beyond what was idle", func(s *simulate.Summary) string {
		if s.Measured == 0 {
			return ""
		}
		return fmt.Sprintf("%.2f", s.Overshoot)
	})
	t.end()
}

func ifAny(of, ms float64) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf("%.3f", ms)
}

func share(s simulate.Share) string { return fmt.Sprintf("%.1f %% (%s)", 100*s.Share, s.Node) }

func zones(per map[string]float64) string {
	var parts []string
	for _, zone := range slices.Sorted(maps.Keys(per)) {
		name := zone
		if name == "" {
			name = "none"
		}
		parts = append(parts, name+" "+number(per[zone]))
	}
	return strings.Join(parts, ", ")
}

// number is a count, or the mean of some.
func number(x float64) string { return strconv.FormatFloat(math.Round(100*x)/100, 'f', -1, 64) }

// fewNodes is of how many nodes pods are told; wide: of all.
const fewNodes = 20

func showNodes(out io.Writer, a *simulate.Answer, wide bool) {
	all := map[string]bool{}
	for _, p := range a.Profiles {
		for node := range p.Summary.PerNode {
			all[node] = true
		}
	}
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(out)
	t := newTable(out)
	t.row(heads("PODS ON", a)...)
	names := slices.Sorted(maps.Keys(all))
	rest := 0
	if !wide && len(names) > fewNodes {
		names, rest = names[:fewNodes], len(names)-fewNodes
	}
	for _, node := range names {
		cells := []string{node}
		for _, p := range a.Profiles {
			cells = append(cells, number(p.Summary.PerNode[node]))
		}
		t.row(cells...)
	}
	t.end()
	if rest > 0 {
		fmt.Fprintf(out, "and %d more nodes (-o wide: all)\n", rest)
	}
}
