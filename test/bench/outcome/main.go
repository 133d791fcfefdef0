// Command outcome measures what placing by measurement buys: a chain of services in worlds that
// docs/outcome.md describes, placed by several schedulers and by an oracle. It writes
// out/bench/outcome.json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"k8s.io/client-go/rest"

	"github.com/drover-project/drover/test/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("outcome", flag.ContinueOnError)
	out := fs.String("out", "out/bench/outcome.json", "`file` for the figures")
	seeds := fs.Int("seeds", 20, "how many worlds")
	requests := fs.Int("requests", 20_000, "how many requests of each kind in each world")
	cost := fs.Duration("cost", 0, "of the CPU, for a call beyond its work; 0: the lab is asked, and says how far off the model is")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *seeds < 2 || *requests < 1000 {
		return fmt.Errorf("%d worlds of %d requests tell nothing: at least 2 of 1000", *seeds, *requests)
	}
	var metrics []report.Metric
	if *cost == 0 {
		found, trials, err := calibrate(ctx)
		if err != nil {
			return err
		}
		*cost = found
		metrics = append(metrics, tellTrials(os.Stdout, found, trials)...)
	}
	server, stop, err := startServer()
	if err != nil {
		return err
	}
	defer stop()
	var all []result
	for seed := range uint64(*seeds) {
		w := generate(seed)
		w.cost = *cost
		r, err := play(ctx, server, &w, *requests)
		if err != nil {
			return fmt.Errorf("world %d: %w", seed, err)
		}
		fmt.Fprintf(os.Stderr, "world %d of %d\n", seed+1, *seeds)
		all = append(all, r)
	}
	tell(os.Stdout, all)
	metrics = append(metrics, judge(all)...)
	return errors.Join(report.Print(os.Stdout, metrics), report.Write(*out, metrics))
}

// who places.
const (
	byDefault  = "default"
	byRoute    = "RouteTime"
	byOverhead = "NetworkOverhead"
	byOracle   = "oracle"
)

var everybody = []string{byDefault, byRoute, byOverhead, byOracle}

// figures is how one placement did.
type figures struct {
	place    []int
	p50, p99 time.Duration
	rate     float64 // requests a second of 64 users
}

// result is one world's, by who placed. Who breaks ties at random placed several times.
type result struct {
	w  *world
	by map[string][]figures
}

const closedUsers = 64

func play(ctx context.Context, server *rest.Config, w *world, requests int) (result, error) {
	r := result{w, map[string][]figures{}}
	places, err := placements(ctx, server, w)
	if err != nil {
		return r, err
	}
	places[byOracle] = [][]int{oracle(w, requests/10, w.seed, shortlist)}
	for who, all := range places {
		for _, place := range all {
			took := open(w, place, requests, w.seed)
			r.by[who] = append(r.by[who], figures{
				place, quantile(took, .5), quantile(took, .99), closed(w, place, closedUsers, requests, w.seed),
			})
		}
	}
	return r, nil
}

// middle is the median over the placements of one that placed.
func (r result) middle(who string, of func(figures) float64) float64 {
	var all []float64
	for _, f := range r.by[who] {
		all = append(all, of(f))
	}
	return report.Median(all)
}

func p50(f figures) float64  { return f.p50.Seconds() * 1000 }
func p99(f figures) float64  { return f.p99.Seconds() * 1000 }
func rate(f figures) float64 { return f.rate }

func tell(to io.Writer, all []result) {
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
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

// judge holds the figures against the goals.
func judge(all []result) []report.Metric {
	ratios := func(a, b string, of func(figures) float64) []float64 {
		var each []float64
		for _, r := range all {
			each = append(each, r.middle(a, of)/r.middle(b, of))
		}
		return each
	}
	var metrics []report.Metric
	add := func(name string, make func(string, float64, string, float64, float64) report.Metric, goal float64, each []float64) {
		low, high := interval(each)
		metrics = append(metrics, make(name, report.Median(each), "ratio", goal, 1),
			// Nobody's goal is for these: they say how sure the median is.
			make(name+"/interval-low", low, "ratio", goal, 1), make(name+"/interval-high", high, "ratio", goal, 1))
	}
	add("p50-over-oracle", report.AtMost, 1.1, ratios(byRoute, byOracle, p50))
	add("p50-over-networkoverhead", report.AtMost, 1, ratios(byRoute, byOverhead, p50))
	add("p99-over-networkoverhead", report.AtMost, 1, ratios(byRoute, byOverhead, p99))
	add("p99-over-default", report.AtMost, .55, ratios(byRoute, byDefault, p99))
	add("throughput-over-default", report.AtLeast, 1, ratios(byRoute, byDefault, rate))
	add("throughput-over-networkoverhead", report.AtLeast, 1, ratios(byRoute, byOverhead, rate))
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

// tellTrials tells how far the model is off the lab.
func tellTrials(to io.Writer, cost time.Duration, all []outcome) []report.Metric {
	fmt.Fprintf(to, "a call costs %v of the CPU beyond its work, by the first trial\n", cost)
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "in the lab\tp50 (ms)\tmodel\tp99 (ms)\tmodel\t")
	var off []float64
	for i, o := range all {
		ms := func(of []time.Duration, q float64) float64 { return quantile(of, q).Seconds() * 1000 }
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t\n", o.name, ms(o.lab, .5), ms(o.model, .5), ms(o.lab, .99), ms(o.model, .99))
		for _, q := range []float64{.5, .99} {
			if i > 0 || q != .5 {
				off = append(off, max(ms(o.model, q)/ms(o.lab, q), ms(o.lab, q)/ms(o.model, q))-1)
			}
		}
	}
	t.Flush()
	return []report.Metric{
		report.AtMost("model/error-median", report.Median(off), "ratio", .2, 0),
		report.AtMost("model/error-greatest", slices.Max(off), "ratio", .5, 0),
	}
}
