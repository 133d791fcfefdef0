// Command measure compares what Drover measures with the truth and with plain probers, says
// what measuring costs, and how soon and how rightly contention is noticed. It prints tables
// and writes the figures as JSON. It wants root, and a machine that is otherwise quiet.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/drover-project/drover/test/bench/report"
)

func main() {
	out := flag.String("out", "out/bench/measure.json", "`file` for the figures")
	part := flag.String("parts", "routes,cost,rest,badinput,alarms,contention", "what is measured")
	only := flag.String("loads", "", "what is run with and without Drover beside it for cost; empty: "+strings.Join(namesOf(loads), ","))
	reps := flag.Int("runs", 3, "how often everything is measured; medians are told")
	length := flag.Duration("length", 10*time.Second, "how long each prober works in one run")
	scenarios := flag.Int("scenarios", 100, "how many seeded scenarios of contention are played")
	as := flag.String("role", "", "for the benchmark's own processes")
	flag.Parse()
	err := func() error {
		if *as != "" {
			return play(*as, flag.Args())
		}
		chosen, err := choose(*only)
		if err != nil {
			return err
		}
		return measureAll(*out, strings.Split(*part, ","), chosen, *reps, *length, *scenarios)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func measureAll(out string, parts []string, loads []load, reps int, length time.Duration, scenarios int) error {
	var all []report.Metric
	for _, p := range []struct {
		name    string
		measure func() ([]report.Metric, error)
	}{
		{"routes", func() ([]report.Metric, error) { return measureRoutes(reps, length) }},
		{"cost", func() ([]report.Metric, error) { return measureCost(context.Background(), loads, 3*reps) }},
		{"rest", func() ([]report.Metric, error) { return measureRest(context.Background(), reps, 3*length) }},
		{"badinput", func() ([]report.Metric, error) { return measureHostile(context.Background(), 1_000_000/reps, reps) }},
		{"alarms", func() ([]report.Metric, error) { return measureAlarms(7*reps, os.Stderr) }},
		{"contention", func() ([]report.Metric, error) { return measureBlame(scenarios, os.Stderr) }},
	} {
		if !slices.Contains(parts, p.name) {
			continue
		}
		metrics, err := p.measure()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		all = append(all, metrics...)
	}
	if err := report.Print(os.Stdout, all); err != nil {
		return err
	}
	return report.Write(out, all)
}
