package gossip

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/keyring"
	"github.com/drover-project/drover/internal/model"
)

// nodesByPhase counts the nodes of the picture.
type nodesByPhase struct{ g *Gossip }

var nodesDesc = prometheus.NewDesc("drover_gossip_nodes", "Nodes by what this member holds them for.", []string{"phase"}, nil)

func (nodesByPhase) Describe(ch chan<- *prometheus.Desc) { ch <- nodesDesc }

func (c nodesByPhase) Collect(ch chan<- prometheus.Metric) {
	of := map[model.Phase]int{}
	for _, n := range c.g.Snapshot().Nodes {
		of[n.Phase]++
	}
	for _, p := range model.Phases {
		if p != model.Left { // who has left is forgotten
			ch <- prometheus.MustNewConstMetric(nodesDesc, prometheus.GaugeValue, float64(of[p]), string(p))
		}
	}
}

// keysInUse tells which keys are on the ring, by their names.
type keysInUse struct{ g *Gossip }

var keysDesc = prometheus.NewDesc("drover_gossip_key_info", "1 for each of the gossip's keys that is taken in, by its name; with use=\"primary\" the one that is sent with.", []string{"key", "use"}, nil)

func (keysInUse) Describe(ch chan<- *prometheus.Desc) { ch <- keysDesc }

func (c keysInUse) Collect(ch chan<- prometheus.Metric) {
	for i, key := range c.g.ring.GetKeys() {
		use := "accepted"
		if i == 0 {
			use = "primary"
		}
		ch <- prometheus.MustNewConstMetric(keysDesc, prometheus.GaugeValue, 1, keyring.Name(key), use)
	}
}
