package migrate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts moves as this node sees them.
type metrics struct {
	moves  *prometheus.CounterVec
	frozen prometheus.Histogram
	held   prometheus.GaugeFunc
}

func newMetrics(held func() float64) metrics {
	return metrics{
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_migrations_total",
			Help: "Moves that ended on this node, by its role (source, target) and the outcome (moved, aborted, returned).",
		}, []string{"role", "outcome"}),
		frozen: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "drover_migration_frozen_seconds",
			Help:    "How long pods that left this node were frozen: from the freeze to the target's acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 12),
		}),
		held: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "drover_held_containers",
			Help: "Containers that are held frozen on this node by a move, as source or target.",
		}, held),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.moves, m.frozen, m.held} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	for _, role := range []Role{RoleSource, RoleTarget} {
		for _, o := range []Outcome{Moved, Aborted, Returned} {
			m.moves.WithLabelValues(string(role), string(o))
		}
	}
	return nil
}

func (m metrics) ended(role Role, o Outcome) { m.moves.WithLabelValues(string(role), string(o)).Inc() }

func (m metrics) wasFrozen(d time.Duration) { m.frozen.Observe(d.Seconds()) }
