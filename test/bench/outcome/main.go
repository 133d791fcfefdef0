// Command outcome measures what placing by measurement buys: a chain of services in worlds that
// docs/outcome.md describes, placed by several schedulers and by oracles. It writes
// out/bench/outcome.json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

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
	first := fs.Uint64("first", 0, "seed of the first world")
	seeds := fs.Int("seeds", 20, "how many worlds")
	requests := fs.Int("requests", 20_000, "how many requests of each kind in each world")
	cost := fs.Duration("cost", 0, "of the CPU, for a call beyond its work; 0: the lab is asked, and says how far off the model is")
	labName := fs.String("lab", "outcome", "`name` of the lab")
	kept := fs.String("kept", "", "`file` of what was found in the lab: a run that was interrupted goes on there, and one with all of it brings up no lab (default lab.json in a directory named as -out without its ending)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *seeds < 2 || *requests < 1000 {
		return fmt.Errorf("%d worlds of %d requests tell nothing: at least 2 of 1000", *seeds, *requests)
	}
	if *kept == "" {
		*kept = filepath.Join((*out)[:len(*out)-len(filepath.Ext(*out))], "lab.json")
	}
	var metrics []report.Metric
	if *cost == 0 {
		found, trials, err := calibrate(ctx, *labName, *kept)
		if err != nil {
			return err
		}
		*cost = found
		metrics = append(metrics, tellTrials(os.Stdout, found, trials)...)
	}
	all, err := playAll(ctx, *first, *seeds, *requests, *cost)
	if err != nil {
		return err
	}
	tell(os.Stdout, all)
	tellTails(os.Stdout, all)
	metrics = append(metrics, judge(all)...)
	more := map[string]any{"cost": cost.String(), "requests": *requests, "worlds": rows(all)}
	return errors.Join(report.Print(os.Stdout, metrics), report.WriteWith(*out, metrics, more))
}

// playAll plays so many worlds.
func playAll(ctx context.Context, first uint64, seeds, requests int, cost time.Duration) ([]result, error) {
	server, stop, err := startServer()
	if err != nil {
		return nil, err
	}
	defer stop()
	var all []result
	for i := range seeds {
		w := generate(first + uint64(i))
		w.cost = cost
		r, err := play(ctx, server, &w, requests)
		if err != nil {
			return nil, fmt.Errorf("world %d: %w", w.seed, err)
		}
		fmt.Fprintf(os.Stderr, "world %d, %d of %d\n", w.seed, i+1, seeds)
		all = append(all, r)
	}
	return all, nil
}
