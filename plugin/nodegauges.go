package plugin

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
)

// nodeForgotten is for how long a node has its gauges after it was last scored.
const nodeForgotten = 10 * time.Minute

var (
	ofNode = []string{"node"}

	descNodeA      = prometheus.NewDesc("drover_scheduler_node_a", "A of the node when it was last scored, for whichever pod.", ofNode, nil)
	descNodeCores  = prometheus.NewDesc("drover_scheduler_node_idle_cores", "C: idle CPU of the node when it was last scored.", ofNode, nil)
	descNodeMemory = prometheus.NewDesc("drover_scheduler_node_idle_memory_bytes", "M: idle memory of the node when it was last scored.", ofNode, nil)
	descNodeTime   = prometheus.NewDesc("drover_scheduler_node_route_time_seconds", "T: route time that counted for the node when it was last scored, from the peers of whichever pod it was.", ofNode, nil)
)

// nodeGauges are gauges of the nodes that were scored lately, of limit at most: those that
// come first stay, so that their number bounds that of the series. The zero value has none.
type nodeGauges struct {
	limit int

	mu     sync.Mutex
	latest time.Time
	nodes  map[model.NodeID]nodeGauge
}

type nodeGauge struct {
	decision.Node
	at time.Time
}

// update takes the scores of one decision; of decisions that overtake each other the later counts.
func (g *nodeGauges) update(d *decision.Decision) {
	if len(d.Nodes) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.nodes == nil {
		g.nodes = map[model.NodeID]nodeGauge{}
	}
	if d.Ranked.After(g.latest) {
		g.latest = d.Ranked
		for id, n := range g.nodes {
			if g.latest.Sub(n.at) > nodeForgotten {
				delete(g.nodes, id)
			}
		}
	}
	for _, n := range d.Nodes {
		had, ok := g.nodes[n.Node]
		if !ok && len(g.nodes) >= g.limit || ok && had.at.After(d.Ranked) {
			continue
		}
		n.Said, n.Reasons = nil, nil // not to keep them in memory
		g.nodes[n.Node] = nodeGauge{Node: n, at: d.Ranked}
	}
}

// Describe implements prometheus.Collector.
func (g *nodeGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descNodeA, descNodeCores, descNodeMemory, descNodeTime} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What is not known of a node is left out.
func (g *nodeGauges) Collect(ch chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, n := range g.nodes {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, string(id))
		}
		gauge(descNodeCores, float64(n.Idle.CPU))
		gauge(descNodeMemory, float64(n.Idle.Memory))
		if n.Known {
			gauge(descNodeA, n.A)
		}
		if n.Route.Known {
			gauge(descNodeTime, n.T.Seconds())
		}
	}
}
