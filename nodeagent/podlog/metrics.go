package podlog

import "github.com/prometheus/client_golang/prometheus"

var (
	labels = []string{"namespace", "pod", "container"}

	matchesDesc = prometheus.NewDesc("drover_container_log_matches_total",
		"Lines of the container's log that matched its pod's annotation drover.dev/log-pattern, since the agent follows it.", labels, nil)
	skippedDesc = prometheus.NewDesc("drover_container_log_skipped_bytes_total",
		"Bytes of the container's log that were not looked at, because more was written than the agent may spend CPU time on.", labels, nil)
	cpuDesc = prometheus.NewDesc("drover_log_cpu_seconds_total",
		"CPU time spent on containers' logs: at most 0.02 in a second.", nil, nil)
)

// Describe is for prometheus.Registerer.
func (f *Follower) Describe(ch chan<- *prometheus.Desc) {
	ch <- matchesDesc
	ch <- skippedDesc
	ch <- cpuDesc
}

// Collect is for prometheus.Registerer: the containers that are followed, and no others.
func (f *Follower) Collect(ch chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(cpuDesc, prometheus.CounterValue, f.spent.Seconds())
	for _, c := range f.followed {
		of := []string{c.container.Namespace, c.container.Pod, c.container.Name}
		ch <- prometheus.MustNewConstMetric(matchesDesc, prometheus.CounterValue, float64(c.log.Matches), of...)
		ch <- prometheus.MustNewConstMetric(skippedDesc, prometheus.CounterValue, float64(c.log.Skipped), of...)
	}
}
