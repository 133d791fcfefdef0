package measure

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/internal/model"
)

var (
	routeTimeDesc = prometheus.NewDesc("drover_route_time_seconds",
		"Measured round trip to the peer over the window, as placement takes it.", []string{"peer"}, nil)
	routeSpreadDesc = prometheus.NewDesc("drover_route_time_spread_seconds",
		"How far round trips to the peer lie apart in the window: half of what their paths do, and half the distance between the quartiles of what is above.", []string{"peer"}, nil)
	routeSamplesDesc = prometheus.NewDesc("drover_route_window_samples",
		"Round trips to the peer in the window, by where they were stamped.", []string{"peer", "stamp"}, nil)
	routeTripsDesc = prometheus.NewDesc("drover_route_time_round_trip_seconds",
		"Single round trips to the peer, by where they were stamped.", []string{"peer", "stamp"}, nil)
	routeXDPDesc = prometheus.NewDesc("drover_route_xdp_devices",
		"Devices on which an XDP program turns probes round.", nil, nil)
	routeProbesDesc = prometheus.NewDesc("drover_route_probes_total",
		"Probes to the peer, by how they ended: answered, lost (no answer in time), failed (not sent).",
		[]string{"peer", "result"}, nil)
	routeKernelDesc = prometheus.NewDesc("drover_route_kernel_stamps",
		"1 while the kernel programs are on the devices towards all peers, else 0.", nil, nil)
	routePacketsDesc = prometheus.NewDesc("drover_route_packets_total",
		"Route time packets handled, by where (kernel, user) and what became of them.",
		[]string{"handler", "outcome"}, nil)
)

// Describe is for prometheus.Registerer.
func (r *Routes) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{routeTimeDesc, routeSpreadDesc, routeSamplesDesc,
		routeTripsDesc, routeProbesDesc, routeKernelDesc, routeXDPDesc, routePacketsDesc} {
		ch <- d
	}
}

// Collect is for prometheus.Registerer: the state of this moment.
func (r *Routes) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for id, address := range r.peers {
		r.routes[address].collect(ch, id, now)
	}
	kernel := 0.0
	if r.stamp == model.StampKernel {
		kernel = 1
	}
	ch <- prometheus.MustNewConstMetric(routeKernelDesc, prometheus.GaugeValue, kernel)
	ch <- prometheus.MustNewConstMetric(routeXDPDesc, prometheus.GaugeValue, float64(r.xdp))
	packets := func(handler string, outcomes map[string]uint64) {
		for outcome, n := range outcomes {
			ch <- prometheus.MustNewConstMetric(routePacketsDesc, prometheus.CounterValue, float64(n), handler, outcome)
		}
	}
	var dropped uint64
	for _, conn := range r.sockets {
		n, _ := routetime.Dropped(conn) // an error: it has just been closed
		dropped += n
	}
	packets("user", map[string]uint64{"dropped": dropped, "malformed": r.refused.malformed,
		"stranger": r.refused.stranger, "unknown": r.refused.unknown, "impossible": r.refused.impossible})
	if r.meter == nil {
		return
	}
	if s, err := r.meter.Stats(); err == nil { // an error: it has just been closed
		packets("kernel", outcomes(s))
	}
}

func outcomes(s routetime.Stats) map[string]uint64 {
	return map[string]uint64{
		"stamped": s.Stamped, "answered": s.Answered, "answered_xdp": s.AnsweredXDP, "measured": s.Measured,
		"stranger": s.Stranger, "unknown": s.Unknown, "wrong_peer": s.WrongPeer,
		"unstamped": s.Unstamped, "ring_full": s.RingFull,
	}
}

func (o *route) collect(ch chan<- prometheus.Metric, id model.NodeID, now time.Time) {
	peer := string(id)
	if t, known := o.window.RouteTime(now); known {
		ch <- prometheus.MustNewConstMetric(routeTimeDesc, prometheus.GaugeValue, t.RTT.Seconds(), peer)
		ch <- prometheus.MustNewConstMetric(routeSpreadDesc, prometheus.GaugeValue, t.Spread.Seconds(), peer)
		ch <- prometheus.MustNewConstMetric(routeSamplesDesc, prometheus.GaugeValue, float64(t.Samples), peer, string(t.Stamp))
	}
	o.trips.collect(ch, id)
	for result, n := range map[string]uint64{"answered": o.answered, "lost": o.lost, "failed": o.failed} {
		ch <- prometheus.MustNewConstMetric(routeProbesDesc, prometheus.CounterValue, float64(n), peer, result)
	}
}
