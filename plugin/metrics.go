package plugin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/decision"
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
	near     *prometheus.CounterVec
	untold   prometheus.Counter

	chosenPoints prometheus.Histogram
	chosenA      prometheus.Histogram
	bestA        prometheus.Histogram
	chosenAge    prometheus.Histogram
	chosenSaid   *prometheus.SummaryVec
	perNode      nodeGauges
}

// NewMetrics makes the metrics.
func NewMetrics() *Metrics {
	ofA := prometheus.ExponentialBuckets(1.0/64, 2, 20) // to 8192
	m := &Metrics{
		chosenPoints: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "drover_scheduler_chosen_points",
			Help:    "RouteTime's points, 0 to 100, of the node that a pod was bound to. Below 100 other plugins preferred it.",
			Buckets: prometheus.LinearBuckets(0, 10, 11),
		}),
		chosenA: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "drover_scheduler_chosen_a",
			Help:    "A of the node that a pod was bound to, where it is known.",
			Buckets: ofA,
		}),
		bestA: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "drover_scheduler_best_a",
			Help:    "Greatest A among the nodes that were scored for a pod that was bound.",
			Buckets: ofA,
		}),
		chosenAge: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "drover_scheduler_chosen_age_seconds",
			Help:    "Age at the ranking of what the node that a pod was bound to had last told.",
			Buckets: []float64{0.25, 0.5, 1, 2, 4, 6, 9, 12, 18, 25, 30, 60},
		}),
		chosenSaid: prometheus.NewSummaryVec(prometheus.SummaryOpts{
			Name: "drover_scheduler_chosen_plugin_points",
			Help: "What each Score plugin said, normalised and weighted, of the node that a pod was bound to.",
		}, []string{"plugin"}),
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
		untold: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "drover_scheduler_untold_decisions_total",
			Help: "Pods that got no event of how their node was scored, because too many were bound at once.",
		}),
		near: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_scheduler_near_nodes_total",
			Help: "Nodes of the greatest A as seen from a pod's peers that were looked at beside kube-scheduler's sample, by what came of it: sampled (they were in it), brought into it, or refused by a filter.",
		}, []string{"how"}),
	}
	for _, k := range placement.Unknown {
		m.unknown.WithLabelValues(string(k))
	}
	for _, outcome := range []string{nearSampled, nearBrought, nearRefused} {
		m.near.WithLabelValues(outcome)
	}
	return m
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.duration, m.unknown, m.scored, m.invalid, m.rejected, m.age, m.nodes, m.coming, m.near, m.untold,
		m.chosenPoints, m.chosenA, m.bestA, m.chosenAge, m.chosenSaid, &m.perNode}
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

// PerNode has gauges made of A, C, M and T of at most so many nodes; there are none without.
// It is called before the first decision.
func (m *Metrics) PerNode(limit int) { m.perNode.limit = limit }

// observe counts one ranking.
func (m *Metrics) observe(scores []placement.Score, took time.Duration) {
	m.duration.Observe(took.Seconds())
	m.scored.Add(float64(len(scores)))
	unknown := map[placement.Kind]int{}
	for i := range scores {
		if s := &scores[i]; !s.Known {
			unknown[s.WhyUnknown().Kind]++
		}
	}
	for kind, n := range unknown {
		m.unknown.WithLabelValues(string(kind)).Add(float64(n))
	}
}

// decided counts one decision about a pod that was bound.
func (m *Metrics) decided(d *decision.Packed) {
	if m.perNode.limit > 0 {
		m.perNode.update(d.Unpack())
	}
	if d.Best != nil {
		m.bestA.Observe(d.Best.A)
	}
	chosen := d.Chosen
	if chosen == nil {
		return
	}
	m.chosenPoints.Observe(chosen.Points)
	if chosen.Known {
		m.chosenA.Observe(chosen.A)
	}
	if chosen.Age != decision.NotHeard {
		m.chosenAge.Observe(chosen.Age.Seconds())
	}
	for i, points := range chosen.Said {
		m.chosenSaid.WithLabelValues(d.Plugins[i]).Observe(float64(points))
	}
}
