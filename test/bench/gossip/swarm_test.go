package gossip

import (
	"io"
	"testing"
	"time"
)

// A small swarm loses nothing, and sends each record to each node about once.
func TestSwarm(t *testing.T) {
	const n = 100
	size := payload{report: 90, location: 420}
	r := measureSwarm(n, 1, ordinaryLoss, size, 4*time.Minute, io.Discard)
	if r.Report.Records == 0 || r.Location.Records == 0 || r.Report.All99 == never || r.Location.All99 == never || r.SentMax < r.Sent {
		t.Errorf("%+v", r)
	}
	// Changes, and repetitions besides, but never more than one in the time between two.
	changes := n / changeEvery.Seconds() * float64(size.report)
	if most := 4 * changes; r.Sent < changes || r.Sent > most+1000 {
		t.Errorf("%.0f bytes a node and second for %.0f of changes", r.Sent, changes)
	}
}

func TestSwarmLosesMoreWithMoreLoss(t *testing.T) {
	size := payload{report: 90, location: 420}
	little, much := measureSwarm(40, 1, 0, size, time.Minute, io.Discard), measureSwarm(40, 1, 0.2, size, time.Minute, io.Discard)
	if much.Report.Most99 <= little.Report.Most99 || much.Report.All99 == never {
		t.Errorf("without loss %+v, with a fifth lost %+v", little.Report, much.Report)
	}
}
