// Package placement ranks nodes for a pod by the formula
//
//	A_i = (alpha*C_i + beta*M_i) / (tau * T_i^exponent)
//
// The best node has the greatest A. C_i is the CPU that is really idle on node i in cores,
// M_i the idle memory in GiB, T_i the route time to it in milliseconds. (CN107368369B
// ranks the receivers of a container this way.) The scheduler's plugin, the agent's
// decision and the command line's explain call the same Rank, so that they agree, and
// every Score carries the parts it was made from.
package placement

import (
	"fmt"
	"math"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// Params are the formula's weights and limits.
type Params struct {
	// Alpha is the weight of an idle core, Beta that of an idle GiB; neither is negative
	// and one is positive.
	Alpha, Beta float64
	// Tau is the weight of a millisecond, greater than 0. It scales every A alike.
	Tau float64
	// Floor is the shortest route time that counts, greater than 0: below it two nodes are
	// equally near, and the way from a node to itself is this long.
	Floor time.Duration
	// Exponent of the route time, 0 to MaxExponent: 1 is the formula as it stands, 0 looks at
	// resources alone.
	Exponent float64
	// StaleAfter is the age from which a measurement no longer counts, greater than 0.
	StaleAfter time.Duration
}

// MaxExponent is the greatest exponent of the route time: above it every difference is all
// or nothing.
const MaxExponent = 10

// Defaults are the parameters of a user who sets none. The floor is a little above the
// round trip inside one rack; four gigabytes weigh as much as one core, the usual ratio of
// general purpose machines.
func Defaults() Params {
	return Params{
		Alpha:      1,
		Beta:       0.25,
		Tau:        1,
		Floor:      200 * time.Microsecond,
		Exponent:   1,
		StaleAfter: 30 * time.Second,
	}
}

// Problem tells in one line what is wrong with the parameters; it is empty when nothing is.
func (p Params) Problem() string {
	switch {
	case !(p.Alpha >= 0) || math.IsInf(p.Alpha, 0):
		return fmt.Sprintf("alpha is %v, must be 0 or more", p.Alpha)
	case !(p.Beta >= 0) || math.IsInf(p.Beta, 0):
		return fmt.Sprintf("beta is %v, must be 0 or more", p.Beta)
	case p.Alpha == 0 && p.Beta == 0:
		return "alpha and beta are both 0, one must be more"
	case !(p.Tau > 0) || math.IsInf(p.Tau, 0):
		return fmt.Sprintf("tau is %v, must be more than 0", p.Tau)
	case p.Floor <= 0:
		return fmt.Sprintf("the floor of route times is %v, must be more than 0", p.Floor)
	case !(p.Exponent >= 0 && p.Exponent <= MaxExponent):
		return fmt.Sprintf("the exponent of route times is %v, must be 0 to %v", p.Exponent, MaxExponent)
	case p.StaleAfter <= 0:
		return fmt.Sprintf("the age of stale measurements is %v, must be more than 0", p.StaleAfter)
	}
	return ""
}

// Route is the way to a node from where the pod, or the pods it talks to, are.
type Route struct {
	// Time is the round trip: a mean where there are several ways.
	Time time.Duration `json:"time"`
	// Spread is how far the measurements lie around Time.
	Spread time.Duration `json:"spread"`
	// Known is false when nothing fresh was measured.
	Known bool `json:"known"`
	// Path is by which it was measured; empty of a node to itself, and of a mean over both.
	Path model.Path `json:"path,omitempty"`
	// Hops is over how many measured links it was computed; 0 when it was measured itself,
	// and of a mean.
	Hops int `json:"-"`
}

// Candidate is one node as it goes into the formula.
type Candidate struct {
	Node model.NodeID
	// Load is what the node has and uses. LoadKnown is false when Used is missing or stale.
	Load      model.Load
	LoadKnown bool
	// Needs is what the pod is held to use there; zero: not known.
	Needs model.Resources
	Route Route
	// Reasons collected while the figures were gathered; the score hands them on.
	Reasons []Reason
}

// Score is one node's place in the ranking with all the parts that led to it.
type Score struct {
	Node model.NodeID `json:"node"`
	// Idle holds C and M: allocatable less the greater of requested and used, not below 0.
	Idle model.Resources `json:"idle"`
	// Route is as it was measured, T is as it counted: not below the floor, and that of
	// the nearest node whose spread overlaps.
	Route Route         `json:"route"`
	T     time.Duration `json:"t"`
	// A is the formula's value; 0 when not Known. Where less is idle than the pod needs it is in
	// proportion.
	A float64 `json:"a"`
	// Points are 0..100 on a logarithmic scale of A between the worst and the best known
	// candidate. One that is not Known has the median of the known.
	Points float64 `json:"points"`
	// Known is false when a measurement was missing or stale.
	Known bool `json:"known"`
	// Reasons tell what is out of the ordinary in this score; often none.
	Reasons []Reason `json:"reasons,omitempty"`
}
