package gossip

import (
	"fmt"
	"time"
)

// piece is what one process measures: a cluster, or a swarm.
type piece struct {
	Part   string
	System string
	Nodes  int
	Loss   float64
	Seed   uint64
	// Span is how much virtual time is measured.
	Span time.Duration
}

func (p piece) String() string {
	return fmt.Sprintf("%s-%s-%d-loss-%g-run-%d", p.Part, p.System, p.Nodes, 100*p.Loss, p.Seed)
}

// The parts of the benchmark.
const (
	partSteady    = "steady"
	partBaseline  = "baseline"
	partLoss      = "loss"
	partJoin      = "join"
	partPartition = "partition"
	partHour      = "hour"
	partSwarm     = "swarm"
	partFigures   = "figures"
)

var allParts = []string{partSteady, partBaseline, partLoss, partJoin, partPartition, partHour, partSwarm, partFigures}

// scope is how much is measured.
type scope struct {
	steady, faulty, hours, swarms []int // nodes
	seeds                         int
	length, hour                  time.Duration
}

const (
	// spanNodes: fewer nodes are measured for longer, until they have said about as much as so many.
	spanNodes = 300
	// fullNodes: from so many on memberlist's queues are full, and it is measured for half as long.
	fullNodes = 1000
)

func (s scope) span(system string, nodes int) time.Duration {
	if system == theirs && nodes >= fullNodes {
		return s.length / 2
	}
	return max(s.length, (s.length * spanNodes / time.Duration(nodes)).Round(time.Second))
}

// swarmSpan is enough for thousands of reports in the smallest swarm whose figures are used.
const swarmSpan = 20 * time.Second

// pieces are those of one part.
func (s scope) pieces(part string) (all []piece) {
	for run := range s.seeds {
		seed := uint64(run + 1)
		steady := func(system string, n int, loss float64) {
			all = append(all, piece{part, system, n, loss, seed, s.span(system, n)})
		}
		switch part {
		case partSteady:
			for _, n := range s.steady {
				steady(ours, n, ordinaryLoss)
			}
		case partBaseline:
			for _, n := range s.steady {
				steady(theirs, n, ordinaryLoss)
			}
		case partLoss:
			for _, n := range s.faulty {
				for _, loss := range []float64{0.05, 0.2} {
					steady(ours, n, loss)
					steady(theirs, n, loss)
				}
			}
		case partJoin, partPartition:
			for _, n := range s.faulty {
				all = append(all, piece{part, ours, n, ordinaryLoss, seed, 0})
			}
		case partHour:
			for _, n := range s.hours {
				all = append(all, piece{part, ours, n, 0.05, seed, s.hour})
			}
		case partSwarm:
			for _, n := range s.swarms {
				all = append(all, piece{part, ours, n, ordinaryLoss, seed, min(s.length, swarmSpan)})
			}
		}
	}
	return all
}

// gigabytes are how much memory a piece may take: what each member keeps of each other, and as much
// garbage again as there is room for.
func (p piece) gigabytes() float64 {
	pairs := float64(p.Nodes) * float64(p.Nodes)
	switch {
	case p.Part == partSwarm:
		return 0.5 + 320e-9*pairs
	case p.System == theirs:
		return min(5, 0.7+12e-6*pairs)
	}
	return min(11, 0.7+16e-6*pairs)
}

// work tells which of two pieces takes longer.
func (p piece) work() float64 {
	const start = 2 * time.Minute // until a cluster has settled
	members := float64(p.Nodes) * (p.Span + start).Seconds()
	if p.Part == partSwarm {
		return members / 20
	}
	return members
}

// finding is what was found of a piece, and what that has cost.
type finding struct {
	Code    string // which has measured it
	Piece   piece
	Result  *result  `json:",omitempty"`
	Outcome *outcome `json:",omitempty"`
	Swarm   *swarmed `json:",omitempty"`

	Ended time.Time
	// Took and Processors are in seconds, Memory in GB at most.
	Took, Processors, Memory float64
}
