// Package traffic keeps account of who talks to whom on one node: how much pods and the node
// itself have sent and received, to whom, and the round trips of their connections.
//
// It is pure: it is fed figures and times, and keeps no clock.
package traffic

import (
	"time"

	"github.com/drover-project/drover/internal/model"
)

// Endpoint is one end of connections, as far as it is known: a pod; a node itself, which is
// Node alone; an address on a node; an address alone; or nothing, which is everybody else.
type Endpoint struct {
	Pod     model.PodID  `json:"pod,omitzero"`
	Node    model.NodeID `json:"node,omitempty"`
	Address string       `json:"address,omitempty"`
}

// Other is who is not told apart.
var Other = Endpoint{}

// stranger is on no node that is known.
func (e Endpoint) stranger() bool { return e.Node == "" }

// isNode tells a node from what is on it.
func (e Endpoint) isNode() bool { return e.Node != "" && e.Pod == (model.PodID{}) && e.Address == "" }

// Exchange is what connections between two endpoints, the first of which is on this node,
// have carried in some time.
type Exchange struct {
	Local, Remote  Endpoint
	Sent, Received model.Bytes // payload
	RoundTrip      RoundTrip
}

// RoundTrip is what the kernel has measured on connections. Its zero value is not known.
type RoundTrip struct {
	// Smoothed is the mean of the connections' smoothed round trips, weighted with the segments
	// they received: what applications feel, waits for the CPU among it.
	Smoothed time.Duration `json:"smoothed"`
	// Min is the least: closer to what the route takes.
	Min time.Duration `json:"min"`
	// Segments is how many were received.
	Segments uint64 `json:"segments"`
}

// and gives the round trip of both.
func (r RoundTrip) and(more RoundTrip) RoundTrip {
	sum := RoundTrip{Segments: r.Segments + more.Segments, Min: r.Min}
	if sum.Segments == 0 {
		return RoundTrip{}
	}
	share := float64(more.Segments) / float64(sum.Segments)
	sum.Smoothed = r.Smoothed + time.Duration(share*float64(more.Smoothed-r.Smoothed))
	if more.Min > 0 && (sum.Min == 0 || more.Min < sum.Min) {
		sum.Min = more.Min
	}
	return sum
}

// Talk is the account of two endpoints.
type Talk struct {
	Local  Endpoint `json:"local"`
	Remote Endpoint `json:"remote"`
	// Sent and Received are all that was counted.
	Sent     model.Bytes `json:"sent"`
	Received model.Bytes `json:"received"`
	// Sending and Receiving are the rates over the window.
	Sending   model.Rate `json:"sending"`
	Receiving model.Rate `json:"receiving"`
}

// Path says between what connections to a peer were.
type Path string

// The paths: a peer's pods, or this node's, see the network through an overlay, perhaps.
const (
	NodePath Path = "node" // of two nodes themselves
	PodPath  Path = "pod"  // one end was a pod, or both were
)

// Peer is the account of one other node and of what is on it.
type Peer struct {
	Node     model.NodeID `json:"node"`
	Sent     model.Bytes  `json:"sent"`
	Received model.Bytes  `json:"received"`
	// RoundTrips are those of the window, by path.
	RoundTrips map[Path]RoundTrip `json:"roundTrips,omitempty"`
}

// Link is one device that leads to other nodes.
type Link struct {
	Name     string     `json:"name"`
	Sent     model.Rate `json:"sent"`
	Received model.Rate `json:"received"`
	// Capacity is in each direction; 0: Unknown says why it is not known.
	Capacity model.Rate `json:"capacity,omitempty"`
	Unknown  string     `json:"unknown,omitempty"`
}

// Report is what one node tells of its traffic. Each talk is as its local end counts it: two
// endpoints on the same node have two.
type Report struct {
	At     time.Time     `json:"at"`
	Window time.Duration `json:"window"`
	// Source is what the kernel programs are attached to. Those on sock_ops do not see
	// connections that are older than they.
	Source string `json:"source"`
	// Lost is how many connections the kernel's tables had no room for.
	Lost uint64 `json:"lost"`
	// Talks are ordered by what was carried in the window, then in all; Peers by name.
	Talks []Talk `json:"talks"`
	Peers []Peer `json:"peers"`
	Links []Link `json:"links"`
}

// Route is what one node knows of the way to another.
type Route struct {
	Peer model.NodeID `json:"peer"`
	// Time is probes': T in the formula. Nil: not measured.
	Time *model.RouteTime `json:"time,omitempty"`
	// RoundTrips are those of connections, by path.
	RoundTrips map[Path]RoundTrip `json:"roundTrips,omitempty"`
}

// Routes is what one node tells of its ways to others, ordered by name.
type Routes struct {
	At     time.Time `json:"at"`
	Routes []Route   `json:"routes"`
	// Unknown says why there are no round trips of connections; empty: there may be.
	Unknown string `json:"unknown,omitempty"`
}
