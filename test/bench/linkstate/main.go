// Command linkstate compares two ways to know route times that were not measured:
// internal/linkstate, which floods what was measured and computes the rest with Dijkstra's
// search, and Vivaldi's coordinates (Dabek and others 2004) as in hashicorp/serf, with its
// defaults. Both get the same samples of the same pairs. It prints a table and writes it
// as JSON; docs/decisions/0015 draws the conclusion.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/drover-project/drover/test/bench/report"
)

func main() {
	out := flag.String("out", "out/bench/linkstate.json", "`file` for the figures")
	seeds := flag.Int("seeds", 3, "number of seeds; medians over them are shown")
	sizes := flag.String("nodes", "64,256,1000", "numbers of nodes")
	rounds := flag.String("rounds", "2,10,50", "numbers of probes a pair after which is compared")
	flag.Parse()
	if err := compareAll(*out, *seeds, numbers(*sizes), numbers(*rounds)); err != nil {
		fmt.Fprintln(os.Stderr, "linkstate:", err)
		os.Exit(1)
	}
}

// firstSeed is another than those on which linkstate's own figures were chosen.
const firstSeed = 11

func numbers(list string) []int {
	var all []int
	for _, s := range strings.Split(list, ",") {
		n := 0
		fmt.Sscan(s, &n)
		all = append(all, n)
	}
	return all
}

func compareAll(out string, seeds int, sizes, rounds []int) error {
	regions, err := fetchRegions()
	if err != nil {
		return err
	}
	var metrics []report.Metric
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "world\tnodes\tprobes/node\testimator\terror p50\tp90\tp99\tbest hit\tregret ms\tregret p99\t")
	for _, k := range kinds(regions) {
		for _, n := range sizes {
			all := map[int]map[string][]result{}
			probes := 0
			for seed := range seeds {
				results, sent, err := run(k, n, int64(firstSeed+seed), rounds)
				if err != nil {
					return fmt.Errorf("%s of %d nodes: %w", k.name, n, err)
				}
				probes = sent
				for after, of := range results {
					if all[after] == nil {
						all[after] = map[string][]result{}
					}
					for e, r := range of {
						all[after][e] = append(all[after][e], r)
					}
				}
			}
			last := rounds[len(rounds)-1]
			for _, after := range rounds {
				mid := map[string]result{}
				for _, e := range estimators {
					r := middle(all[after][e])
					mid[e] = r
					fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%.1f%%\t%.1f%%\t%.1f%%\t%.1f%%\t%.3f\t%.3f\t\n", k.name, n, probes*after/last, e,
						100*r.median, 100*r.p90, 100*r.p99, 100*r.hits, r.regret, r.regret99)
				}
				metrics = append(metrics, figures(fmt.Sprintf("%s/nodes=%d/probes=%d", k.name, n, probes*after/last), mid[dijkstra], mid[hybrid])...)
			}
			w.Flush()
		}
	}
	return report.Write(out, metrics)
}

// figures are Met when they are no worse than the baseline, that of hybrid: the same
// measurements, the rest by coordinates.
func figures(name string, ours, theirs result) []report.Metric {
	less := func(what, unit string, a, b float64) report.Metric {
		return report.AtMost(name+"/"+what, a, unit, b, b)
	}
	return []report.Metric{
		less("error-p50", "ratio", ours.median, theirs.median),
		less("error-p90", "ratio", ours.p90, theirs.p90),
		less("error-p99", "ratio", ours.p99, theirs.p99),
		less("missed-best", "ratio", 1-ours.hits, 1-theirs.hits),
		less("regret-mean", "ms", ours.regret, theirs.regret),
		less("regret-p99", "ms", ours.regret99, theirs.regret99),
	}
}
