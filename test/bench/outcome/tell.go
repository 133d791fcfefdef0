package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/drover-project/drover/test/bench/report"
)

func table(to io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func tell(to io.Writer, all []result) {
	t := table(to)
	fmt.Fprint(t, "world\tkind\t")
	for _, who := range everybody {
		fmt.Fprintf(t, "%s p50\tp99 (ms)\trequests/s\t", who)
	}
	fmt.Fprintln(t)
	for _, r := range all {
		fmt.Fprintf(t, "%d\t%s\t", r.w.seed, r.w.kind)
		for _, who := range everybody {
			fmt.Fprintf(t, "%.2f\t%.2f\t%.0f\t", r.middle(who, p50), r.middle(who, p99), r.middle(who, rate))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

// tellTails tells of the 99th percentile where it comes from, by kinds: medians over the worlds.
func tellTails(to io.Writer, all []result) {
	t := table(to)
	fmt.Fprintln(t, "kind\tplaced by\tp99 (ms)\tof it ways\twork\twaiting\tof the default's\t")
	for _, kind := range []string{zonesKind, edgeKind, flatKind} {
		some := only(all, kind)
		for _, who := range everybody {
			fmt.Fprintf(t, "%s\t%s\t", kind, who)
			for _, of := range []func(figures) float64{
				p99,
				func(f figures) float64 { return milliseconds(f.ways) },
				func(f figures) float64 { return milliseconds(f.worked) },
				func(f figures) float64 { return milliseconds(f.waited()) },
			} {
				var each []float64
				for _, r := range some {
					each = append(each, r.middle(who, of))
				}
				fmt.Fprintf(t, "%.1f\t", report.Median(each))
			}
			fmt.Fprintf(t, "%.2f\t\n", report.Median(ratios(some, who, byDefault, p99)))
		}
	}
	t.Flush()
}

func only(all []result, kind string) (some []result) {
	for _, r := range all {
		if r.w.kind == kind {
			some = append(some, r)
		}
	}
	return some
}

// ratios are those of one to another that placed, world by world.
func ratios(all []result, a, b string, of func(figures) float64) (each []float64) {
	for _, r := range all {
		each = append(each, r.middle(a, of)/r.middle(b, of))
	}
	return each
}

// tailGoal is what the 99th percentile is to be of the default profile's.
const tailGoal = .55

// judge holds the figures against the goals.
func judge(all []result) []report.Metric {
	var metrics []report.Metric
	add := func(name string, make func(string, float64, string, float64, float64) report.Metric, goal float64, each []float64) {
		low, high := interval(each)
		metrics = append(metrics, make(name, report.Median(each), "ratio", goal, 1),
			// Nobody's goal is for these: they say how sure the median is.
			make(name+"/interval-low", low, "ratio", goal, 1), make(name+"/interval-high", high, "ratio", goal, 1))
	}
	add("p50-over-oracle", report.AtMost, 1.1, ratios(all, byRoute, byOracle, p50))
	add("p50-over-networkoverhead", report.AtMost, 1, ratios(all, byRoute, byOverhead, p50))
	add("p99-over-networkoverhead", report.AtMost, 1, ratios(all, byRoute, byOverhead, p99))
	add("p99-over-default", report.AtMost, tailGoal, ratios(all, byRoute, byDefault, p99))
	for _, kind := range []string{zonesKind, edgeKind, flatKind} {
		if some := only(all, kind); len(some) > 0 {
			metrics = append(metrics, report.AtMost("p99-over-default/"+kind, report.Median(ratios(some, byRoute, byDefault, p99)), "ratio", tailGoal, 1))
		}
	}
	// What those would have had that know everything: how far the goal can be reached at all.
	add("oracle/p99-over-default", report.AtMost, tailGoal, ratios(all, byOracle, byDefault, p99))
	add("tail-oracle/p99-over-default", report.AtMost, tailGoal, ratios(all, byTail, byDefault, p99))
	add("tail-oracle/p50-over-oracle", report.AtMost, 1.1, ratios(all, byTail, byOracle, p50))
	add("throughput-over-default", report.AtLeast, 1, ratios(all, byRoute, byDefault, rate))
	add("throughput-over-networkoverhead", report.AtLeast, 1, ratios(all, byRoute, byOverhead, rate))
	return metrics
}

// interval is that of 95 % for the median, by the bootstrap.
func interval(all []float64) (low, high float64) {
	r := rand.New(rand.NewPCG(1, 1))
	medians := make([]float64, 10_000)
	again := make([]float64, len(all))
	for i := range medians {
		for j := range again {
			again[j] = all[r.IntN(len(all))]
		}
		medians[i] = report.Median(again)
	}
	slices.Sort(medians)
	return medians[len(medians)/40], medians[len(medians)-len(medians)/40-1]
}

// row is a world's in the file.
type row struct {
	Seed uint64          `json:"seed"`
	Kind string          `json:"kind"`
	By   map[string]cell `json:"by"`
}

// cell is how one did that placed, times in milliseconds.
type cell struct {
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Ways   float64 `json:"ways"`
	Waited float64 `json:"waited"` // of P99
	Rate   float64 `json:"requestsPerSecond"`
	Places [][]int `json:"places"` // of each run, the node of each service
}

func rows(all []result) (told []row) {
	for _, r := range all {
		by := map[string]cell{}
		for _, who := range everybody {
			c := cell{P50: r.middle(who, p50), P99: r.middle(who, p99), Rate: r.middle(who, rate)}
			c.Ways = r.middle(who, func(f figures) float64 { return milliseconds(f.ways) })
			c.Waited = r.middle(who, func(f figures) float64 { return milliseconds(f.waited()) })
			for _, f := range r.by[who] {
				c.Places = append(c.Places, f.place)
			}
			by[who] = c
		}
		told = append(told, row{r.w.seed, r.w.kind, by})
	}
	return told
}

// tellTrials tells how far the model is off the lab, and the lab off itself.
func tellTrials(to io.Writer, cost time.Duration, all []outcome) []report.Metric {
	fmt.Fprintf(to, "a call costs %v of the CPU beyond its work, in the first trial\n", cost)
	t := table(to)
	fmt.Fprintln(t, "in the lab\tp50 (ms)\trounds\tmodel\tp99 (ms)\trounds\tmodel\t")
	var off, apart []float64
	for _, o := range all {
		fmt.Fprintf(t, "%s\t", o.name)
		pooled := slices.Concat(o.rounds...)
		for _, q := range []float64{.5, .99} {
			lab, model := quantile(pooled, q), quantile(o.model, q)
			low, high := between(o.rounds, q)
			fmt.Fprintf(t, "%.2f\t%.2f-%.2f\t%.2f\t", milliseconds(lab), milliseconds(low), milliseconds(high), milliseconds(model))
			off = append(off, max(float64(model)/float64(lab), float64(lab)/float64(model))-1)
			apart = append(apart, float64(high)/float64(low)-1)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	return []report.Metric{
		report.AtMost("model/error-median", report.Median(off), "ratio", .2, 0),
		report.AtMost("model/error-greatest", slices.Max(off), "ratio", .5, 0),
		report.AtMost("lab/rounds-apart-median", report.Median(apart), "ratio", .2, 0),
	}
}
