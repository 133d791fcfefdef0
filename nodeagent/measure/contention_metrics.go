package measure

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/model"
)

var (
	containerLabels = []string{"namespace", "pod", "container"}

	waitDesc = prometheus.NewDesc("drover_container_run_queue_wait_seconds_total",
		"Time the container's threads were runnable but not on a CPU, whatever the cause, since it was first seen.",
		containerLabels, nil)
	causeDesc = prometheus.NewDesc("drover_container_run_queue_wait_cause_seconds_total",
		"The same by cause: what ran meanwhile (neighbours: other containers; own: its own threads; node: what is in no container; steal: a hypervisor; softirq: soft interrupts; idle: nothing), or a used-up CPU quota (quota: its own or its pod's; node-quota: one above the pods).",
		append(slices.Clone(containerLabels), "cause"), nil)
	lostDesc = prometheus.NewDesc("drover_contention_lost_total",
		"Times that the kernel's tables had no room to note down a wait, or a run: more than 0 means that what is told of them is too little.", nil, nil)
	measuredDesc = prometheus.NewDesc("drover_contention_measured",
		"1 while contention is known, 0 once the last reading is older than every window: then nothing is told of any container.", nil, nil)
	failuresDesc = prometheus.NewDesc("drover_contention_reading_failures_total",
		"Readings of contention that failed, as a whole or for some container; the agent's log says why.", nil, nil)
	stallDesc = prometheus.NewDesc("drover_container_contention_ratio",
		"Share of time (0..1) for which others kept the container from the resource, mean over the window of severe contention.",
		append(slices.Clone(containerLabels), "resource"), nil)
	sufferingDesc = prometheus.NewDesc("drover_container_suffering",
		"1 while contention for the resource has that grade, else 0. Severe is what moves a pod.",
		append(slices.Clone(containerLabels), "resource", "grade"), nil)
	ofLimitDesc = prometheus.NewDesc("drover_container_memory_limit_ratio",
		"Memory in use as a share of the container's or its pod's own limit, of that which is nearer; 0 without one.", containerLabels, nil)
	faultsDesc = prometheus.NewDesc("drover_container_memory_faults_per_second",
		"Pages that the container had to wait for (major: of files and programs; refault: such as it had a moment before), at the last reading.",
		append(slices.Clone(containerLabels), "kind"), nil)
	killsDesc = prometheus.NewDesc("drover_container_oom_kills_total",
		"Processes of the container that were killed for want of memory since it began.", containerLabels, nil)
)

// Describe is for prometheus.Registerer.
func (c *Contention) Describe(ch chan<- *prometheus.Desc) {
	ch <- waitDesc
	ch <- causeDesc
	ch <- lostDesc
	ch <- measuredDesc
	ch <- failuresDesc
	ch <- stallDesc
	ch <- sufferingDesc
	ch <- ofLimitDesc
	ch <- faultsDesc
	ch <- killsDesc
}

// Collect is for prometheus.Registerer: the last reading, its containers for as long as it says something.
func (c *Contention) Collect(ch chan<- prometheus.Metric) {
	type name struct{ namespace, pod, container string }
	told := map[name]bool{}
	now := time.Now()
	s := c.Current(now)
	measured := 1.0
	if !c.fresh(s, now) {
		measured = 0
	}
	c.mu.Lock()
	failures := c.failures
	c.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(measuredDesc, prometheus.GaugeValue, measured)
	ch <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(failures))
	ch <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(s.Lost))
	for _, w := range s.Containers {
		n := name{w.Pod.Namespace, w.Pod.Name, w.Container}
		if told[n] {
			continue // a container that has just been restarted is there twice for a moment
		}
		told[n] = true
		metric := func(d *prometheus.Desc, t prometheus.ValueType, v float64, more ...string) {
			ch <- prometheus.MustNewConstMetric(d, t, v, append([]string{n.namespace, n.pod, n.container}, more...)...)
		}
		metric(waitDesc, prometheus.CounterValue, w.Total.Seconds())
		for cause, d := range w.Causes {
			metric(causeDesc, prometheus.CounterValue, d.Seconds(), string(cause))
		}
		for r, state := range w.States {
			metric(stallDesc, prometheus.GaugeValue, state.Mean, string(r))
			for _, grade := range []model.Grade{model.Tight, model.Severe} {
				is := 0.0
				if state.Grade == grade {
					is = 1
				}
				metric(sufferingDesc, prometheus.GaugeValue, is, string(r), string(grade))
			}
		}
		e := w.Shares.Evidence
		metric(ofLimitDesc, prometheus.GaugeValue, e.OfLimit)
		metric(faultsDesc, prometheus.GaugeValue, e.MajorFaults, "major")
		metric(faultsDesc, prometheus.GaugeValue, e.Refaults, "refault")
		metric(killsDesc, prometheus.CounterValue, float64(e.OOMKills))
	}
}
