package controller

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Metrics counts finished moves. Labels: outcome is the last phase in lower case.
type Metrics struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	frozen   prometheus.Histogram
	bytes    prometheus.Counter
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_controller_migrations_total",
			Help: "Finished PodMigrations by outcome and reason.",
		}, []string{"outcome", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "drover_controller_migration_duration_seconds",
			Help:    "Time from a PodMigration's creation to its end, by outcome.",
			Buckets: prometheus.ExponentialBuckets(0.25, 2, 12),
		}, []string{"outcome"}),
		frozen: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "drover_controller_migration_frozen_seconds",
			Help:    "Time that a moved pod was frozen, as its source's agent says.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 12),
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "drover_controller_migration_bytes_total",
			Help: "Bytes of checkpoint images sent for finished PodMigrations.",
		}),
	}
	reg.MustRegister(m.total, m.duration, m.frozen, m.bytes)
	for _, phase := range ends {
		m.duration.WithLabelValues(phaseLabel(phase))
	}
	return m
}

// ends are the phases in which a PodMigration ends.
var ends = []v1alpha1.Phase{
	v1alpha1.PhaseCompleted, v1alpha1.PhaseAborted, v1alpha1.PhaseReturned, v1alpha1.PhaseLost, v1alpha1.PhaseRejected,
}

func phaseLabel(p v1alpha1.Phase) string { return strings.ToLower(string(p)) }

// finished counts one end. A nil receiver counts nothing.
func (m *Metrics) finished(pm *v1alpha1.PodMigration, now time.Time) {
	if m == nil {
		return
	}
	how := phaseLabel(pm.Status.Phase)
	reason := ""
	for _, c := range pm.Status.Conditions {
		if c.Type == v1alpha1.ConditionComplete {
			reason = c.Reason
		}
	}
	m.total.WithLabelValues(how, reason).Inc()
	m.duration.WithLabelValues(how).Observe(now.Sub(pm.CreationTimestamp.Time).Seconds())
	m.bytes.Add(float64(max(pm.Status.Bytes, 0)))
	if pm.Status.FrozenTime != nil {
		m.frozen.Observe(pm.Status.FrozenTime.Seconds())
	}
}

// phases gives the number of PodMigrations per phase, and the age of the oldest that has not
// ended, at every scrape.
type phases struct {
	reader client.Reader
	now    func() time.Time
}

var (
	phaseDesc = prometheus.NewDesc("drover_migration_phase",
		"Number of PodMigrations in each phase.", []string{"phase"}, nil)
	oldestDesc = prometheus.NewDesc("drover_migration_oldest_seconds",
		"Age of the oldest PodMigration that has not ended; 0 when there is none.", nil, nil)
)

// scrapeWait bounds the look into the cache that a scrape makes.
const scrapeWait = 5 * time.Second

// NewPhaseCollector counts what reader lists: give it a cache's.
func NewPhaseCollector(reader client.Reader, now func() time.Time) prometheus.Collector {
	return &phases{reader: reader, now: now}
}

// Describe implements prometheus.Collector.
func (p *phases) Describe(to chan<- *prometheus.Desc) {
	to <- phaseDesc
	to <- oldestDesc
}

// Collect implements prometheus.Collector. What cannot be listed is an error of the scrape.
func (p *phases) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWait)
	defer cancel()
	var all v1alpha1.PodMigrationList
	if err := p.reader.List(ctx, &all); err != nil {
		to <- prometheus.NewInvalidMetric(phaseDesc, err)
		return
	}
	count := map[v1alpha1.Phase]int{}
	for _, name := range append([]v1alpha1.Phase{
		v1alpha1.PhasePending, v1alpha1.PhaseReserving, v1alpha1.PhasePreparing, v1alpha1.PhaseTransferring,
		v1alpha1.PhaseRestoring, v1alpha1.PhaseCommitted,
	}, ends...) {
		count[name] = 0
	}
	now, oldest := p.now(), time.Duration(0)
	for i := range all.Items {
		phase := all.Items[i].Status.Phase
		if phase == "" {
			phase = v1alpha1.PhasePending
		}
		count[phase]++
		if !v1alpha1.Finished(&all.Items[i]) {
			oldest = max(oldest, now.Sub(all.Items[i].CreationTimestamp.Time))
		}
	}
	to <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, oldest.Seconds())
	for phase, n := range count {
		to <- prometheus.MustNewConstMetric(phaseDesc, prometheus.GaugeValue, float64(n), phaseLabel(phase))
	}
}
