package transfer

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what is sent and received. Make it with NewMetrics and register it; nil
// counts nothing.
type Metrics struct {
	bytes   *prometheus.CounterVec
	carried *prometheus.CounterVec
	resent  prometheus.Counter
	refused *prometheus.CounterVec
}

var _ prometheus.Collector = (*Metrics)(nil)

const (
	sent     = "sent"
	received = "received"
)

// NewMetrics makes drover_transfer_bytes_total{direction}, drover_transfer_wire_bytes_total{direction},
// drover_transfer_retries_total and drover_transfer_refused_total{reason}.
func NewMetrics() *Metrics {
	m := &Metrics{
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_transfer_bytes_total",
			Help: "Bytes of images that this node sent to others or received from them, complete or not.",
		}, []string{"direction"}),
		carried: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_transfer_wire_bytes_total",
			Help: "Bytes that images, and memory sent ahead of them, took on the way, compressed and without what was there already.",
		}, []string{"direction"}),
		resent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "drover_transfer_retries_total",
			Help: "Transfers of images that were taken up again by this node after their connection was lost.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_transfer_refused_total",
			Help: "Images that this node did not take from another, by reason.",
		}, []string{"reason"}),
	}
	for _, d := range []string{sent, received} {
		m.bytes.WithLabelValues(d)
		m.carried.WithLabelValues(d)
	}
	for _, r := range reasons {
		m.refused.WithLabelValues(string(r))
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.bytes.Describe(ch)
	m.carried.Describe(ch)
	m.resent.Describe(ch)
	m.refused.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.bytes.Collect(ch)
	m.carried.Collect(ch)
	m.resent.Collect(ch)
	m.refused.Collect(ch)
}

func (m *Metrics) add(direction string, n int) {
	if m != nil {
		m.bytes.WithLabelValues(direction).Add(float64(n))
	}
}

func (m *Metrics) wire(direction string, n int) {
	if m != nil {
		m.carried.WithLabelValues(direction).Add(float64(n))
	}
}

func (m *Metrics) again() {
	if m != nil {
		m.resent.Inc()
	}
}

func (m *Metrics) refuse(r reason) {
	if m != nil {
		m.refused.WithLabelValues(string(r)).Inc()
	}
}
