// Package refusals counts what a program was asked for and refused, that no honest peer of
// its asks for: drover_refused_total. More than a few that come with moves that were decided
// meanwhile say that a node, or somebody with its keys, does what it must not.
package refusals

import "github.com/prometheus/client_golang/prometheus"

// What was refused.
type What string

// An agent's refusals, and the last one drover-controller's.
const (
	// Caller: a connection of somebody who is no agent of this cluster.
	Caller What = "caller"
	// Images: images, memory that they lack, or a question about them, that the record of the move does not allow,
	// or that are not what they were said to be.
	Images What = "images"
	// Container: a record that names a container of another pod as the one to move.
	Container What = "container"
	// Copy: images whose processes would have more than their container may.
	Copy What = "copy"
	// Certificate: a request for a certificate that is not the requester's to have.
	Certificate What = "certificate"
)

// Counter is the metric. Nil counts nothing.
type Counter struct{ *prometheus.CounterVec }

// New makes the metric with its labels; register it.
func New(whats ...What) *Counter {
	c := &Counter{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "drover_refused_total",
		Help: "What was asked of this program, refused, and is asked by no honest peer, by what it was.",
	}, []string{"what"})}
	for _, w := range whats {
		c.WithLabelValues(string(w))
	}
	return c
}

// Count counts one.
func (c *Counter) Count(w What) {
	if c != nil {
		c.WithLabelValues(string(w)).Inc()
	}
}
