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
	// time is how long containers are and were held.
	time []prometheus.Collector
}

func newMetrics(held func() float64, h *holdings) metrics {
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
		time: []prometheus.Collector{
			prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "drover_held_seconds_total",
				Help: "Seconds for which containers were held frozen on this node by moves, each container counted, those that are held now with them.",
			}, func() float64 { return h.total().Seconds() }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "drover_held_longest_seconds",
				Help: "For how long the container has been held that is held longest on this node now; 0 when none is.",
			}, func() float64 { return h.longest().Seconds() }),
		},
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	for _, c := range append([]prometheus.Collector{m.moves, m.frozen, m.held}, m.time...) {
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
