package gossip

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/drover-project/drover/hack/plot"
	"github.com/drover-project/drover/test/bench/gossip/growth"
	bench "github.com/drover-project/drover/test/bench/report"
)

// The goals. Smaller clusters are held to those of 1,000 nodes. Bytes are held to them as they are
// sent, so that each counts once: what comes in besides, of 5,000 nodes that each sign what they
// tell every 10 s, has 32 KB/s of signatures alone.
const (
	goalNodes, goalSeconds, goalBytes             = 1000, 3.0, 16e3
	goalNodesMore, goalSecondsMore, goalBytesMore = 5000, 5.0, 48e3
)

// figures are the metrics of all that was measured.
func figures(d *data) []bench.Metric {
	var all []bench.Metric
	for _, loss := range []float64{ordinaryLoss, 0.05, 0.2} {
		beside := map[int]result{}
		for _, r := range d.medians(theirs, loss) {
			beside[r.Nodes] = r
		}
		for _, r := range d.medians(ours, loss) {
			name := fmt.Sprintf("loss=%g%%/nodes=%d/", 100*loss, r.Nodes)
			all = append(all, steadyFigures(name, r, beside[r.Nodes])...)
		}
	}
	all = append(all, modelFigures(d)...)
	for _, o := range d.Outcomes {
		all = append(all, o.figures()...)
	}
	return all
}

// modelFigures are how far off the model is at the largest size when it has seen none
// greater than half of it, and what it says of those that are too large to run.
func modelFigures(d *data) []bench.Metric {
	measured := d.medians(ours, ordinaryLoss)
	if len(measured) == 0 {
		return nil
	}
	var all []bench.Metric
	largest := measured[len(measured)-1]
	var smaller []result
	for _, r := range measured {
		if 2*r.Nodes <= largest.Nodes {
			smaller = append(smaller, r)
		}
	}
	if p, ok := predict(smaller, d.Swarms, largest.Nodes); ok {
		for _, of := range []struct {
			what     string
			said, is float64
		}{
			{"sent-mean", p.Sent, largest.SentMean}, {"report-99%-p99", p.Report, largest.Report.Most99},
			{"told-99%-p99", p.Told, largest.Told.Most99}, {"location-99%-p99", p.Location, largest.Location.Most99},
		} {
			if of.said < never && of.is < never && of.is > 0 {
				all = append(all, bench.Metric{Name: fmt.Sprintf("model/error-at-%d/%s", largest.Nodes, of.what), Value: of.said/of.is - 1, Unit: "share", Met: true})
			}
		}
	}
	for _, n := range modelled {
		p, ok := predict(measured, d.Swarms, n)
		if !ok {
			continue
		}
		held := func(what string, value float64, unit string, goal float64) {
			m := bench.Metric{Name: fmt.Sprintf("model/nodes=%d/%s", n, what), Value: value, Unit: unit, Met: true}
			if n <= goalNodesMore {
				m = bench.AtMost(m.Name, value, unit, goal, 0)
			}
			if value < never {
				all = append(all, m)
			}
		}
		held("report-99%-p99", p.Report, "s", goalSecondsMore)
		held("told-99%-p99", p.Told, "s", goalSecondsMore)
		held("location-99%-p99", p.Location, "s", goalSecondsMore)
		held("sent-mean", p.Sent, "B/s", goalBytesMore)
		all = append(all, bench.Metric{Name: fmt.Sprintf("model/nodes=%d/bytes-mean", n), Value: 2 * p.Sent, Unit: "B/s", Met: true})
	}
	return all
}

// modelled are the sizes that nobody runs.
var modelled = []int{5000, 20000}

func (o *outcome) figures() []bench.Metric {
	name := fmt.Sprintf("%s/nodes=%d/run=%d/", o.Part, o.Nodes, o.Seed)
	told := func(what string, value float64, unit string) bench.Metric {
		return bench.Metric{Name: name + what, Value: value, Unit: unit, Met: true}
	}
	deaths := bench.AtMost(name+"false-deaths", float64(o.Deaths), "deaths", 0, 0)
	switch o.Part {
	case "hour":
		return []bench.Metric{deaths, told("watched", o.Length, "s"), told("bytes-mean", o.BytesMean, "B/s")}
	case "partition":
		equal := 0.0
		if o.Equal && o.All < never {
			equal = 1
		}
		return []bench.Metric{told("whole-99%", o.Most, "s"), told("whole-100%", o.All, "s"), bench.AtLeast(name+"one-equal-picture", equal, "yes", 1, 0),
			deaths, told("bytes-mean-after", o.BytesMean, "B/s"), told("bytes-max-after", o.BytesMax, "B/s")}
	}
	return []bench.Metric{told("whole-99%", o.Most, "s"), told("whole-100%", o.All, "s"), deaths,
		told("bytes-mean-after", o.BytesMean, "B/s"), told("bytes-max-after", o.BytesMax, "B/s")}
}

// grown is the data of the drawing in docs.
func grown(d *data) growth.Growth {
	g := growth.Growth{Goals: []growth.Goal{
		{Nodes: goalNodes, Seconds: goalSeconds, Bytes: goalBytes},
		{Nodes: goalNodesMore, Seconds: goalSecondsMore, Bytes: goalBytesMore},
	}}
	for _, system := range []string{ours, theirs} {
		for _, r := range d.medians(system, ordinaryLoss) {
			p := growth.Point{System: system, Nodes: r.Nodes, Seconds: plot.Short(r.Told.Most99), Bytes: plot.Short(r.SentMean)}
			if r.Told.Most99 >= never {
				p.Seconds = 0
			}
			g.Points = append(g.Points, p)
		}
	}
	for _, n := range modelled {
		if p, ok := predict(d.medians(ours, ordinaryLoss), d.Swarms, n); ok && p.Told < never {
			g.Points = append(g.Points, growth.Point{System: ours, Nodes: n, Modelled: true, Seconds: plot.Short(p.Told), Bytes: plot.Short(p.Sent)})
		}
	}
	return g
}

// drawGrowth writes the data and what is drawn of them.
func drawGrowth(d *data, dir string) error {
	g := grown(d)
	svg, err := growth.Draw(g)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "growth.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "growth.svg"), svg, 0o644)
}

func steadyFigures(name string, r, b result) []bench.Metric {
	goalTime, goalRate := goalSeconds, float64(goalBytes)
	if r.Nodes > goalNodes {
		goalTime, goalRate = goalSecondsMore, goalBytesMore
	}
	told := func(what string, value float64, unit string, baseline float64) bench.Metric {
		return bench.Metric{Name: name + what, Value: value, Unit: unit, Met: true, Baseline: baseline}
	}
	held := func(what string, value float64, unit string, goal, baseline float64) bench.Metric {
		if r.Loss != ordinaryLoss {
			return told(what, value, unit, baseline)
		}
		return bench.AtMost(name+what, value, unit, goal, baseline)
	}
	all := []bench.Metric{
		told("report-99%-p50", r.Report.Most50, "s", b.Report.Most50),
		held("report-99%-p99", r.Report.Most99, "s", goalTime, b.Report.Most99),
		told("report-100%-p50", r.Report.All50, "s", b.Report.All50),
		told("report-100%-p99", r.Report.All99, "s", b.Report.All99),
		held("told-99%-p99", r.Told.Most99, "s", goalTime, b.Told.Most99),
		told("told-100%-p99", r.Told.All99, "s", b.Told.All99),
	}
	if r.Location.Records > 0 {
		all = append(all,
			told("location-99%-p50", r.Location.Most50, "s", b.Location.Most50),
			held("location-99%-p99", r.Location.Most99, "s", goalTime, b.Location.Most99),
			told("location-100%-p50", r.Location.All50, "s", b.Location.All50),
			told("location-100%-p99", r.Location.All99, "s", b.Location.All99))
	}
	return append(all,
		held("sent-mean", r.SentMean, "B/s", goalRate, b.SentMean),
		told("sent-max", r.SentMax, "B/s", b.SentMax),
		told("bytes-mean", r.BytesMean, "B/s", b.BytesMean),
		told("bytes-max", r.BytesMax, "B/s", b.BytesMax))
}
