package gossip

import (
	"math"
	"time"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
)

// The load, which is the same for all that is measured.
const (
	changeEvery = 10 * time.Second // of each node's load, beyond its dead band, on average
	nodesAMove  = 100              // one a minute for so many nodes
)

// changeOdds are the odds that a load changes within a time.
func changeOdds(d time.Duration) float64 { return 1 - math.Exp(-float64(d)/float64(changeEvery)) }

// The network of one data centre on an ordinary day.
const (
	ordinaryLoss          = 0.001
	duplicated, reordered = 0.001, 0.01
	minDelay, maxDelay    = 200 * time.Microsecond, 5 * time.Millisecond
)

func lan(seed uint64, loss float64, k *gossiptest.Kinds) gossiptest.Config {
	return gossiptest.Config{Seed: seed, Loss: loss, Duplicated: duplicated, Reordered: reordered, MinDelay: minDelay, MaxDelay: maxDelay, Kinds: k}
}
