package gossip

import (
	"fmt"

	bench "github.com/drover-project/drover/test/bench/report"
)

// The goals. Smaller clusters are held to those of 1,000 nodes.
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
	return all
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
	}
	if r.Location.Records > 0 {
		all = append(all,
			told("location-99%-p50", r.Location.Most50, "s", b.Location.Most50),
			held("location-99%-p99", r.Location.Most99, "s", goalTime, b.Location.Most99),
			told("location-100%-p50", r.Location.All50, "s", b.Location.All50),
			told("location-100%-p99", r.Location.All99, "s", b.Location.All99))
	}
	return append(all,
		held("bytes-mean", r.BytesMean, "B/s", goalRate, b.BytesMean),
		told("bytes-max", r.BytesMax, "B/s", b.BytesMax))
}
