package nodeagent

import "github.com/prometheus/client_golang/prometheus"

var (
	healthLabels = []string{"namespace", "pod", "container"}

	restartsDesc = prometheus.NewDesc("drover_container_restarts_total",
		"How often the container was restarted, by its pod's status.", healthLabels, nil)
	probeDesc = prometheus.NewDesc("drover_container_probe_failing",
		"1 while the container runs and its probe (readiness, startup) does not succeed, by its pod's status; not there for a container whose probes do.",
		append(healthLabels[:3:3], "probe"), nil)
)

// healthMetrics tells what the node's pods show, by their status.
type healthMetrics struct{ names *names }

// Describe is for prometheus.Registerer.
func (h healthMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- restartsDesc
	ch <- probeDesc
}

// Collect is for prometheus.Registerer: two series a container at most.
func (h healthMetrics) Collect(ch chan<- prometheus.Metric) {
	for p := range h.names.all() {
		for container, s := range signsOf(p) {
			ch <- prometheus.MustNewConstMetric(restartsDesc, prometheus.CounterValue, float64(s.Restarts), p.Namespace, p.Name, container)
			if s.Probe != nil {
				ch <- prometheus.MustNewConstMetric(probeDesc, prometheus.GaugeValue, 1, p.Namespace, p.Name, container, string(s.Probe.Kind))
			}
		}
	}
}
