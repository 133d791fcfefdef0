package measure

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	containerLabels = []string{"namespace", "pod", "container"}

	waitDesc = prometheus.NewDesc("drover_container_run_queue_wait_seconds_total",
		"Time the container's threads were runnable but not on a CPU, whatever the cause, since it was first seen.",
		containerLabels, nil)
	causeDesc = prometheus.NewDesc("drover_container_run_queue_wait_cause_seconds_total",
		"The same by cause: what ran meanwhile (neighbours: other containers; own: its own threads; node: what is in no container; idle: nothing), or a used-up CPU quota (quota: its own or its pod's; node-quota: one above the pods).",
		append(slices.Clone(containerLabels), "cause"), nil)
	lostDesc = prometheus.NewDesc("drover_contention_lost_total",
		"Times that the kernel's tables had no room to note down a wait, or a run: more than 0 means that what is told of them is too little.", nil, nil)
	externalDesc = prometheus.NewDesc("drover_container_contention_ratio",
		"Run-queue wait that others cause, in seconds per second, in the last interval.", containerLabels, nil)
	sufferingDesc = prometheus.NewDesc("drover_container_suffering",
		"1 while the container suffers from sustained contention, else 0.", containerLabels, nil)
)

// Describe is for prometheus.Registerer.
func (c *Contention) Describe(ch chan<- *prometheus.Desc) {
	ch <- waitDesc
	ch <- causeDesc
	ch <- lostDesc
	ch <- externalDesc
	ch <- sufferingDesc
}

// Collect is for prometheus.Registerer: the last reading.
func (c *Contention) Collect(ch chan<- prometheus.Metric) {
	type name struct{ namespace, pod, container string }
	told := map[name]bool{}
	s := c.Snapshot()
	ch <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(s.Lost))
	for _, w := range s.Containers {
		n := name{w.Pod.Namespace, w.Pod.Name, w.Container}
		if told[n] {
			continue // a container that has just been restarted is there twice for a moment
		}
		told[n] = true
		suffering := 0.0
		if w.State.Suffering {
			suffering = 1
		}
		metric := func(d *prometheus.Desc, t prometheus.ValueType, v float64) {
			ch <- prometheus.MustNewConstMetric(d, t, v, n.namespace, n.pod, n.container)
		}
		metric(waitDesc, prometheus.CounterValue, w.Total.Seconds())
		for cause, d := range w.Causes {
			ch <- prometheus.MustNewConstMetric(causeDesc, prometheus.CounterValue, d.Seconds(), n.namespace, n.pod, n.container, string(cause))
		}
		metric(externalDesc, prometheus.GaugeValue, w.External)
		metric(sufferingDesc, prometheus.GaugeValue, suffering)
	}
}
