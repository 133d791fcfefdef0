package plugin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/placement"
)

// Metrics of the plugin. One set serves all profiles of a scheduler. It is a
// prometheus.Collector; whoever makes it registers it.
type Metrics struct {
	duration prometheus.Histogram
	unknown  *prometheus.CounterVec
	scored   prometheus.Counter
	invalid  prometheus.Counter
	rejected prometheus.Counter
	age      prometheus.Gauge
	nodes    prometheus.Gauge
	coming   prometheus.Gauge
}

// NewMetrics makes the metrics.
func NewMetrics() *Metrics {
	return &Metrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "drover_scheduler_score_duration_seconds",
			Help:    "Time to rank all feasible nodes for one pod.",
			Buckets: prometheus.ExponentialBuckets(5e-6, 2, 14), // 5 us to 41 ms
		}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_scheduler_unknown_scores_total",
			Help: "Nodes that got the median because a measurement was missing or stale, by reason.",
		}, []string{"reason"}),
		scored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "drover_scheduler_scores_total",
			Help: "Nodes scored, known or not.",
		}),
		invalid: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "drover_scheduler_invalid_peers_total",
			Help: "Scheduling attempts of pods whose annotation drover.dev/peers is malformed.",
		}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "drover_scheduler_filter_rejections_total",
			Help: "Nodes refused to replacement pods because they cannot restore them.",
		}),
		age: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "drover_scheduler_view_age_seconds",
			Help: "Age of the picture of the cluster when it was last used.",
		}),
		nodes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "drover_scheduler_view_nodes",
			Help: "Nodes that were alive in the picture of the cluster when it was last used.",
		}),
		coming: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "drover_scheduler_arriving_pods",
			Help: "Pods that have come to nodes and that no load tells of yet: they count with what they are held to use.",
		}),
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.duration, m.unknown, m.scored, m.invalid, m.rejected, m.age, m.nodes, m.coming}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

// observe counts one ranking.
func (m *Metrics) observe(scores []placement.Score, took time.Duration) {
	m.duration.Observe(took.Seconds())
	m.scored.Add(float64(len(scores)))
	for _, s := range scores {
		if !s.Known && len(s.Reasons) > 0 {
			m.unknown.WithLabelValues(string(s.Reasons[0].Kind)).Inc()
		}
	}
}
