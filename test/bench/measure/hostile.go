package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/drover-project/drover/test/bench/measure/badinput"
	"github.com/drover-project/drover/test/bench/report"
)

// hostileRate is how many bad datagrams a second are asked what they cost.
const hostileRate = 10000

// measureHostile sends a node bad input; that any figure changes by it is an error.
func measureHostile(ctx context.Context, datagrams, reps int) ([]report.Metric, error) {
	var metrics []report.Metric
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "bad input\tdatagrams\tprograms ns\tkernel ns\tagent ns\tof a core at 10,000/s\t")
	for _, family := range []struct {
		name string
		v6   bool
	}{{"ipv4", false}, {"ipv6", true}} {
		var all []badinput.Result
		for rep := range reps {
			fmt.Fprintf(os.Stderr, "badinput: run %d of %d, %s\n", rep+1, reps, family.name)
			r, err := badinput.Run(ctx, badinput.Config{Datagrams: datagrams, IPv6: family.v6, Seed: uint64(rep)})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", family.name, err)
			}
			all = append(all, r)
		}
		of := func(f func(badinput.Result) float64) float64 { return median(all, f) }
		cores := of(func(r badinput.Result) float64 { return r.Cores(hostileRate) })
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.2f %%\t\n", family.name, datagrams,
			of(func(r badinput.Result) float64 { return r.ProgramNanoseconds }),
			of(func(r badinput.Result) float64 { return r.StackNanoseconds }),
			of(func(r badinput.Result) float64 { return r.AgentNanoseconds }), 100*cores)
		metrics = append(metrics, report.AtMost("badinput/"+family.name+"-at-10000-per-second", cores, "cores", .05, 0))
	}
	return metrics, w.Flush()
}
