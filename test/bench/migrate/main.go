// Command migrate measures for how long a process is not felt to run while it goes from one node
// to another: moved by Drover, by kubelet's checkpoint API and an image, by a new start, and, on one
// host, by bare runc and CRIU. docs/moves.md tells the method. It writes out/bench/migrate.json, and
// wants root and a machine that is otherwise quiet.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/drover-project/drover/test/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log.SetLogger(logr.Discard())
	if err := bench(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "migrate:", err)
		os.Exit(1)
	}
}

type settings struct {
	out string
	// tracking is a file with the figures of "make bench-dirty", or empty.
	tracking string
	sizes    []int     // MiB
	dirty    []float64 // MiB/s
	sides    []side
	rounds   int
	random   float64
}

func parse(args []string) (s settings, err error) {
	fs := flag.NewFlagSet("migrate", flag.ContinueOnError)
	fs.StringVar(&s.out, "out", "out/bench/migrate.json", "`file` for the figures")
	fs.StringVar(&s.tracking, "dirty-tracking", "", "`file` with the figures of make bench-dirty, to be written with these")
	fs.IntVar(&s.rounds, "rounds", 5, "rounds, in each of which every side moves every process once; medians are told")
	fs.Float64Var(&s.random, "random", .3, "share of the memory that cannot be compressed")
	sizes := fs.String("sizes", "16,64,256,1024", "of the processes' memory, in MiB")
	dirty := fs.String("dirty", "0,100", "MiB/s of it that are written anew meanwhile")
	var names []string
	for _, s := range allSides() {
		names = append(names, s.name)
	}
	chosen := fs.String("sides", strings.Join(names, ","), "who moves")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	for _, v := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return s, fmt.Errorf("-sizes: %q is no size in MiB", v)
		}
		s.sizes = append(s.sizes, n)
	}
	for _, v := range strings.Split(*dirty, ",") {
		rate, err := strconv.ParseFloat(v, 64)
		if err != nil || !(rate >= 0) {
			return s, fmt.Errorf("-dirty: %q is no rate in MiB/s", v)
		}
		s.dirty = append(s.dirty, rate)
	}
	for _, name := range strings.Split(*chosen, ",") {
		i := slices.Index(names, name)
		if i < 0 {
			return s, fmt.Errorf("-sides: %q is none of %s", name, strings.Join(names, ", "))
		}
		s.sides = append(s.sides, allSides()[i])
	}
	if s.rounds < 1 {
		return s, fmt.Errorf("-rounds: %d: at least 1", s.rounds)
	}
	return s, nil
}

// moveTimeout bounds one move with all that comes before and after it.
const moveTimeout = 4 * time.Minute

func bench(ctx context.Context, args []string) (err error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	var tracking []report.Metric
	if s.tracking != "" {
		if tracking, err = report.Read(s.tracking); err != nil {
			return err
		}
	}
	l, err := up(ctx, s.random)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.down()) }()
	all := results{}
	for round := range s.rounds {
		for _, size := range s.sizes {
			for _, dirty := range s.dirty {
				w := workload{size, dirty}
				for i := range s.sides {
					side := s.sides[(i+round)%len(s.sides)] // none always comes first
					f, err := one(ctx, l, side, w)
					if ctx.Err() != nil {
						return ctx.Err()
					}
					told := f.String()
					if err != nil {
						told = "FAILED: " + err.Error()
					}
					fmt.Fprintf(os.Stderr, "round %d of %d, %s, %s: %s\n", round+1, s.rounds, w, side.name, told)
					all.add(w, side.name, f, err)
				}
			}
		}
	}
	all.tell(os.Stdout, s)
	metrics := all.judge(s)
	metrics = append(metrics, tracking...)
	return errors.Join(report.Print(os.Stdout, metrics), report.Write(s.out, metrics))
}

func one(ctx context.Context, l *labor, s side, w workload) (figures, error) {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	return s.move(ctx, l, w)
}
