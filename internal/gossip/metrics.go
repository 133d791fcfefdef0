package gossip

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/spread"
)

type metrics struct {
	records, phases *prometheus.CounterVec
	unsent          prometheus.Counter
	undecryptable   prometheus.Counter
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer, g *Gossip) (*metrics, error) {
	m := &metrics{records: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "drover_gossip_records_total",
		Help: "Records heard from other members, by what became of them.",
	}, []string{"result"}), unsent: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "drover_gossip_unsent_packets_total",
		Help: "Packets of records for which the queue to the network had no room.",
	}), phases: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "drover_gossip_phase_changes_total",
		Help: "How often a node came to be held for joining, normal, leaving, suspected, dead or left.",
	}, []string{"phase"}), undecryptable: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "drover_gossip_undecryptable_total",
		Help: "Packets and streams that none of the gossip's keys has encrypted: of a member with an old key, or of no member.",
	})}
	for _, r := range results {
		m.records.WithLabelValues(string(r))
	}
	for _, p := range model.Phases {
		m.phases.WithLabelValues(string(p))
	}
	if reg == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{
		m.records, m.unsent, m.phases, m.undecryptable, nodesByPhase{g}, keysInUse{g},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "drover_gossip_members", Help: "Members alive, this one included."}, func() float64 { return float64(g.size()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "drover_gossip_waiting_bytes", Help: "Bytes of records that wait to be passed on."}, func() float64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			return float64(g.spread.Waiting())
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "drover_gossip_locations", Help: "Confirmed places of moved pods."}, func() float64 { return float64(len(g.Snapshot().Locations)) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "drover_gossip_oldest_state_age_seconds", Help: "Age of the oldest state among the nodes alive."}, g.oldestAge),
	}
	for event, count := range spreadEvents {
		collectors = append(collectors, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "drover_gossip_events_total", ConstLabels: prometheus.Labels{"event": event},
			Help: "What happened to frames and records on their way from member to member.",
		}, func() float64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			return float64(count(g.spread.Counts()))
		}))
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

// spreadEvents are explained at spread.Counts.
var spreadEvents = map[string]func(spread.Counts) uint64{
	"malformed": func(c spread.Counts) uint64 { return c.Malformed },
	"absurd":    func(c spread.Counts) uint64 { return c.Absurd },
	"repeated":  func(c spread.Counts) uint64 { return c.Repeated },
	"resent":    func(c spread.Counts) uint64 { return c.Resent },
	"dropped":   func(c spread.Counts) uint64 { return c.Dropped },
	"bypassed":  func(c spread.Counts) uint64 { return c.Bypassed },
	"repaired":  func(c spread.Counts) uint64 { return c.Repaired },
	"stranger":  func(c spread.Counts) uint64 { return c.Strangers },
	"limited":   func(c spread.Counts) uint64 { return c.Limited },
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
