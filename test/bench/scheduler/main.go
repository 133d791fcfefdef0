package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/drover-project/drover/test/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var (
		out      = flag.String("out", "out/bench/scheduler.json", "`file` for the figures")
		sizes    = flag.String("nodes", "1000,5000", "numbers of nodes")
		pods     = flag.Int("pods", 3000, "pods that wait when the scheduler of a round starts; a sixth for the plugins that RouteTime is held against, which are slow")
		more     = flag.Int("stream", 1000, "pods of a round's stream")
		rate     = flag.Float64("rate", 50, "pods a second of the stream")
		rounds   = flag.Int("rounds", 7, "rounds; medians over them are reported; two for the plugins that RouteTime is held against")
		parts    = flag.String("parts", "score,cycle,whole", "what is measured")
		only     = flag.String("profiles", "", "profiles of the whole scheduler; empty: all")
		logs     = flag.String("logs", "", "`directory` for configurations and logs of the schedulers; empty: none is kept")
		events   = flag.Bool("events", true, "RouteTime tells every bound pod by an event how its node was scored, as drover-scheduler does by default")
		schedule = flag.String("schedule", "", "run a scheduler by this configuration `file` (used by the benchmark itself)")
	)
	flag.Parse()
	log.SetLogger(logr.Discard())
	if err := do(ctx, *schedule, settings{*out, numbers(*sizes), load{*pods, *more, *rate}, *rounds, strings.Split(*parts, ","), *only, *logs, *events}); err != nil {
		fmt.Fprintln(os.Stderr, "scheduler:", err)
		os.Exit(1)
	}
}

type settings struct {
	out    string
	sizes  []int
	load   load
	rounds int
	parts  []string
	only   string
	logs   string
	events bool
}

func numbers(list string) (all []int) {
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "scheduler: -nodes: %q is no number of nodes\n", s)
			os.Exit(2)
		}
		all = append(all, n)
	}
	return all
}

func do(ctx context.Context, configuration string, o settings) error {
	if configuration != "" {
		return schedule(ctx, configuration, o.sizes[0], o.events)
	}
	var metrics []report.Metric
	if slices.Contains(o.parts, "score") {
		metrics = append(metrics, scoreAlone(append([]int{100}, o.sizes...))...)
	}
	if slices.Contains(o.parts, "cycle") {
		ms, err := shares(ctx, o.sizes, o.rounds, min(o.load.more, 200))
		if err != nil {
			return err
		}
		metrics = append(metrics, ms...)
	}
	if slices.Contains(o.parts, "whole") {
		ms, err := whole(ctx, o)
		if err != nil {
			return err
		}
		metrics = append(metrics, ms...)
	}
	if err := report.Print(os.Stdout, metrics); err != nil {
		return err
	}
	return report.Write(o.out, metrics)
}

// whole measures all profiles at all sizes.
func whole(ctx context.Context, o settings) (metrics []report.Metric, err error) {
	dir := o.logs
	if dir == "" {
		if dir, err = os.MkdirTemp("", "bench-scheduler"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
	}
	rates := map[string][]float64{} // pods/s by profile, of each size
	for _, n := range o.sizes {
		runs, err := compare(ctx, dir, n, o)
		if err != nil {
			return nil, fmt.Errorf("%d nodes: %w", n, err)
		}
		metrics = append(metrics, judge(n, runs)...)
		for name, all := range runs {
			rates[name] = append(rates[name], median(of(all, func(r run) float64 { return r.perSecond })))
		}
	}
	if last := len(o.sizes) - 1; last > 0 && rates["default"] != nil {
		// How much of the rate is left in the largest cluster, beside the default profile.
		left := func(name string) float64 { return rates[name][last] / rates[name][0] }
		for _, name := range []string{"routetime", "routetime+peers"} {
			if rates[name] != nil {
				metrics = append(metrics, report.AtLeast(fmt.Sprintf("growth/nodes=%d-to-%d/%s", o.sizes[0], o.sizes[last], name), left(name), "ratio", 0.97*left("default"), left("default")))
			}
		}
	}
	return metrics, nil
}

// compare runs all profiles, round by round.
func compare(ctx context.Context, dir string, n int, o settings) (map[string][]run, error) {
	w := newWorld(n)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	watcher := &http.Server{Handler: w}
	go watcher.Serve(l)
	defer watcher.Close()
	c, err := newCluster(ctx, w)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	c.events = o.events
	runs := map[string][]run{}
	for number := range o.rounds {
		all := profiles("http://" + l.Addr().String())
		// None always comes first, where the API server has had time to rest.
		for i := range all {
			p := all[(i+number)%len(all)]
			if o.only != "" && !slices.Contains(strings.Split(o.only, ","), p.name) {
				continue
			}
			l := o.load
			if p.rival {
				if l.pods /= 6; number >= 2 {
					continue
				}
			}
			r, err := c.round(ctx, dir, number, p, l)
			if err != nil {
				return nil, fmt.Errorf("profile %s: %w", p.name, err)
			}
			fmt.Printf("%d nodes, round %d, %s: %.0f pods/s; p50 %.1f ms, p99 %.1f ms\n", n, number+1, p.name, r.perSecond, r.p50, r.p99)
			runs[p.name] = append(runs[p.name], r)
		}
	}
	return runs, nil
}

func of(runs []run, what func(run) float64) (values []float64) {
	for _, r := range runs {
		values = append(values, what(r))
	}
	return values
}

// judge holds RouteTime against the default profile and against the other plugins.
func judge(n int, runs map[string][]run) (metrics []report.Metric) {
	mid := map[string]run{}
	for name, all := range runs {
		mid[name] = run{
			perSecond: median(of(all, func(r run) float64 { return r.perSecond })),
			p50:       median(of(all, func(r run) float64 { return r.p50 })),
			p99:       median(of(all, func(r run) float64 { return r.p99 })),
		}
	}
	base := mid["default"]
	for _, name := range []string{"routetime", "routetime+peers"} {
		r, ran := mid[name]
		if !ran {
			continue
		}
		prefix := fmt.Sprintf("whole/nodes=%d/%s/", n, name)
		metrics = append(metrics,
			report.AtLeast(prefix+"throughput", r.perSecond, "pods/s", 0.97*base.perSecond, base.perSecond),
			report.AtMost(prefix+"latency-p50", r.p50, "ms", 1.05*base.p50, base.p50),
			report.AtMost(prefix+"latency-p99", r.p99, "ms", 1.05*base.p99, base.p99))
		for _, other := range []string{"networkoverhead", "targetloadpacking"} {
			if theirs, ran := mid[other]; ran {
				metrics = append(metrics,
					report.AtLeast(prefix+"throughput-against-"+other, r.perSecond, "pods/s", theirs.perSecond, theirs.perSecond),
					report.AtMost(prefix+"latency-p99-against-"+other, r.p99, "ms", theirs.p99, theirs.p99))
			}
		}
	}
	return metrics
}
