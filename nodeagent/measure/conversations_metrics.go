package measure

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/bpf/conversation"
)

var (
	smoothedDesc = prometheus.NewDesc("drover_connection_smoothed_rtt_seconds",
		"Smoothed round trip of TCP connections to the peer in the last minute, the mean over the segments received: what applications feel. Path: node (of the nodes themselves), pod (an end is a pod).",
		[]string{"peer", "path"}, nil)
	minRTTDesc = prometheus.NewDesc("drover_connection_min_rtt_seconds",
		"Least round trip of the same connections.", []string{"peer", "path"}, nil)
	peerBytesDesc = prometheus.NewDesc("drover_connection_bytes_total",
		"Payload of TCP connections to the peer and its pods: sent (and acknowledged) or received by this node and its pods.",
		[]string{"peer", "direction"}, nil)
	sourceDesc = prometheus.NewDesc("drover_connection_source",
		"1 for what the programs that see TCP connections are attached to: tracepoint, sock_ops (connections made since then), none.",
		[]string{"source"}, nil)
	connectionsLostDesc = prometheus.NewDesc("drover_connection_lost_total",
		"TCP connections that the kernel's tables had no room for: more than 0 means that what is told of them is too little.", nil, nil)
)

// Describe is for prometheus.Registerer.
func (c *Conversations) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{smoothedDesc, minRTTDesc, peerBytesDesc, sourceDesc, connectionsLostDesc} {
		ch <- d
	}
}

// Collect is for prometheus.Registerer: the last reading.
func (c *Conversations) Collect(ch chan<- prometheus.Metric) {
	peers, _ := c.Peers()
	c.mu.Lock()
	source, lost := c.source, c.lost
	c.mu.Unlock()
	for _, one := range []conversation.Source{conversation.Tracepoint, conversation.SockOps, ""} {
		is, name := 0.0, string(one)
		if one == source {
			is = 1
		}
		if one == "" {
			name = "none"
		}
		ch <- prometheus.MustNewConstMetric(sourceDesc, prometheus.GaugeValue, is, name)
	}
	ch <- prometheus.MustNewConstMetric(connectionsLostDesc, prometheus.CounterValue, float64(lost))
	for _, p := range peers {
		ch <- prometheus.MustNewConstMetric(peerBytesDesc, prometheus.CounterValue, float64(p.Sent), string(p.Node), "sent")
		ch <- prometheus.MustNewConstMetric(peerBytesDesc, prometheus.CounterValue, float64(p.Received), string(p.Node), "received")
		for path, r := range p.RoundTrips {
			ch <- prometheus.MustNewConstMetric(smoothedDesc, prometheus.GaugeValue, r.Smoothed.Seconds(), string(p.Node), string(path))
			if r.Min > 0 {
				ch <- prometheus.MustNewConstMetric(minRTTDesc, prometheus.GaugeValue, r.Min.Seconds(), string(p.Node), string(path))
			}
		}
	}
}
