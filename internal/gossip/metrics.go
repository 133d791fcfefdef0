package gossip

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

type metrics struct {
	records *prometheus.CounterVec
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer, g *Gossip) (*metrics, error) {
	m := &metrics{records: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "drover_gossip_records_total",
		Help: "Records heard from other members, by what became of them.",
	}, []string{"result"})}
	for _, r := range results {
		m.records.WithLabelValues(string(r))
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	collectors := []prometheus.Collector{
		m.records,
		gauge("drover_gossip_members", "Members alive, this one included.", func() float64 { return float64(g.size()) }),
		gauge("drover_gossip_queued_records", "Records waiting to be passed on.", func() float64 { return float64(g.queue.NumQueued()) }),
		gauge("drover_gossip_locations", "Confirmed places of moved pods.", func() float64 { return float64(len(g.Snapshot().Locations)) }),
		gauge("drover_gossip_oldest_state_age_seconds", "Age of the oldest state among the nodes alive.", g.oldestAge),
	}
	var errs []error
	for _, c := range collectors {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register gossip metrics: %w", err)
	}
	return m, nil
}

func (g *Gossip) oldestAge() float64 {
	s := g.Snapshot()
	var oldest float64
	for _, n := range s.Nodes {
		if age, ok := n.Age(s.At); ok && n.Alive {
			oldest = max(oldest, age.Seconds())
		}
	}
	return oldest
}

func memberName(id model.NodeID) string { return identity.Subject{Node: id}.CommonName() }
