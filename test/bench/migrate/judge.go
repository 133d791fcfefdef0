package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/drover-project/drover/test/bench/report"
)

// The goals: how many times a gap may be that of bare runc and CRIU on one host, and how many times
// shorter it has to be than the standard path's.
const (
	goalBare     = 1.3
	goalStandard = 8
)

// results are the figures of all moves that came to their end, by what was moved and by whom.
type results map[workload]map[string]*outcome

type outcome struct {
	all    []figures
	failed int
}

func (r results) add(w workload, side string, f figures, err error) {
	if r[w] == nil {
		r[w] = map[string]*outcome{}
	}
	o := r[w][side]
	if o == nil {
		o = &outcome{}
		r[w][side] = o
	}
	if err != nil {
		o.failed++
		return
	}
	o.all = append(o.all, f)
}

// of gives one figure of all moves, sorted.
func (o *outcome) of(what func(figures) float64) []float64 {
	var all []float64
	for _, f := range o.all {
		all = append(all, what(f))
	}
	slices.Sort(all)
	return all
}

func gap(f figures) float64    { return millis(f.gap) }
func slow(f figures) float64   { return millis(f.slow) }
func frozen(f figures) float64 { return millis(f.frozen) }
func total(f figures) float64  { return seconds(f.total) }
func sent(f figures) float64   { return mebibytes(f.sent) }
func cpu(f figures) float64    { return seconds(f.cpu) }

// each calls f for all that was moved by anybody, in the order of the settings.
func (r results) each(s settings, f func(workload, side, *outcome)) {
	for _, size := range s.sizes {
		for _, dirty := range s.dirty {
			w := workload{size, dirty}
			for _, side := range s.sides {
				if o := r[w][side.name]; o != nil {
					f(w, side, o)
				}
			}
		}
	}
}

// tell prints medians, and in parentheses the least and the greatest.
func (r results) tell(to io.Writer, s settings) {
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tby\tmoves\tfailed\tgap (ms)\tbehind (ms)\tfrozen (ms)\ttotal (s)\tsent (MiB)\tCPU (s)\t")
	r.each(s, func(w workload, side side, o *outcome) {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t", w, side.name, len(o.all), o.failed)
		for _, column := range []struct {
			of     func(figures) float64
			digits int
		}{{gap, 0}, {slow, 0}, {frozen, 0}, {total, 1}, {sent, 1}, {cpu, 2}} {
			all := o.of(column.of)
			switch d := column.digits; {
			case len(all) == 0 || all[len(all)-1] == 0:
				fmt.Fprint(t, "\t")
			case len(all) == 1:
				fmt.Fprintf(t, "%.*f\t", d, all[0])
			default:
				fmt.Fprintf(t, "%.*f (%.*f to %.*f)\t", d, report.Median(all), d, all[0], d, all[len(all)-1])
			}
		}
		fmt.Fprintln(t)
	})
	t.Flush()
	r.each(s, func(w workload, side side, o *outcome) { o.tellSteps(to, w, side) })
}

// tellSteps prints where a mode of Drover's spends its time: medians, in ms, of the time since the step before.
func (o *outcome) tellSteps(to io.Writer, w workload, side side) {
	if len(o.all) == 0 || len(o.all[0].steps) == 0 {
		return
	}
	fmt.Fprintf(to, "%s, %s:", w, side.name)
	for _, s := range o.all[0].steps {
		var all []float64
		for _, f := range o.all {
			for _, other := range f.steps {
				if other.name == s.name {
					all = append(all, millis(other.took))
				}
			}
		}
		fmt.Fprintf(to, " %s %.0f", s.name, report.Median(all))
	}
	fmt.Fprintln(to)
}

// judge holds Drover's modes against the others. A mode that nothing was measured of has no figures
// and so meets no goal: its failed moves tell.
func (r results) judge(s settings) (metrics []report.Metric) {
	r.each(s, func(w workload, side side, o *outcome) {
		name := w.String() + "/" + side.name + "/"
		metrics = append(metrics, report.AtMost(name+"failed", float64(o.failed), "moves", 0, 0))
		if len(o.all) == 0 {
			return
		}
		plain := func(what string, value float64, unit string) {
			metrics = append(metrics, report.Metric{Name: name + what, Value: value, Unit: unit, Met: true})
		}
		gaps := o.of(gap)
		plain("gap", report.Median(gaps), "ms")
		plain("gap-least", gaps[0], "ms")
		plain("gap-greatest", gaps[len(gaps)-1], "ms")
		plain("behind-after-gap", report.Median(o.of(slow)), "ms")
		if f := report.Median(o.of(frozen)); f > 0 {
			plain("frozen", f, "ms")
		}
		plain("total", report.Median(o.of(total)), "s")
		plain("sent", report.Median(o.of(sent)), "MiB")
		plain("cpu", report.Median(o.of(cpu)), "s")
		i := slices.IndexFunc(modes, func(m mode) bool { return m.name == side.name })
		if i < 0 {
			return
		}
		metrics = append(metrics, r.beside(w, name, report.Median(gaps))...)
		if goal, ok := modes[i].goals[w.mib]; ok {
			metrics = append(metrics, report.AtMost(name+"gap-goal", report.Median(gaps), "ms", millis(goal), 0))
		}
	})
	return metrics
}

// beside holds a gap of Drover's against those of bare CRIU and of the standard path.
func (r results) beside(w workload, name string, value float64) (metrics []report.Metric) {
	for _, other := range []struct {
		side string
		goal float64 // times the other's gap
	}{{bareCRIU, goalBare}, {standardPath, 1. / goalStandard}} {
		if o := r[w][other.side]; o != nil && len(o.all) > 0 {
			theirs := report.Median(o.of(gap))
			metrics = append(metrics, report.AtMost(name+"gap-beside-"+other.side, value, "ms", other.goal*theirs, theirs))
		}
	}
	return metrics
}
