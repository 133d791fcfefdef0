package placement

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// Kind is what a reason is about.
type Kind string

// The kinds of reasons.
const (
	KindNoState       Kind = "NoState"       // nothing was heard from the node yet
	KindNotAlive      Kind = "NotAlive"      // it is no member any more
	KindStaleState    Kind = "StaleState"    // what was heard is too old
	KindNoLoad        Kind = "NoLoad"        // it does not know its own load yet
	KindBadLoad       Kind = "BadLoad"       // its load makes no sense
	KindNoRoute       Kind = "NoRoute"       // no fresh route time at all
	KindAssumedRoute  Kind = "AssumedRoute"  // one of several route times is the others' median
	KindComputedRoute Kind = "ComputedRoute" // nobody measured the way, it is the sum of others
	KindNodePath      Kind = "NodePath"      // the others count by the pod path, which is not known of it
	KindLeftOut       Kind = "LeftOut"       // a peer's node to which nobody has a route time
	KindEqualRoute    Kind = "EqualRoute"    // its spread overlaps that of a nearer node
	KindMedian        Kind = "Median"        // the points are the median of the known
	KindAllUnknown    Kind = "AllUnknown"    // no candidate is known: all are equal
	KindBadParams     Kind = "BadParams"     // the formula cannot be computed
	KindFull          Kind = "Full"          // nothing is idle
	KindCramped       Kind = "Cramped"       // less is idle than the pod wants now and then
	KindArrivals      Kind = "Arrivals"      // pods have come that its load does not tell of yet
	KindText          Kind = "Text"          // a reason that was read back
)

// Reason tells in a form that costs little to make why a score is out of the ordinary.
// String gives the sentence.
type Reason struct {
	Kind Kind
	// Node is the other node that it is about, if any.
	Node model.NodeID
	// Value and Limit are what was measured and what it was held against, if anything.
	Value, Limit time.Duration
	// Hops is over how many measured links a route was computed.
	Hops int
	// Pods and Use are what comes to the node beyond what its load tells; Use alone, what the pod
	// needs.
	Pods int
	Use  model.Resources
	// Text completes the sentence.
	Text string
}

// String is the reason as a sentence without a full stop.
func (r Reason) String() string {
	switch r.Kind {
	case KindNoState:
		return "nothing was heard from this node's agent yet"
	case KindNotAlive:
		return "this node's agent is not heard by the others"
	case KindStaleState:
		return fmt.Sprintf("the node's state is %v old, over %v is stale", round(r.Value), r.Limit)
	case KindNoLoad:
		return "the node's agent has not measured its load yet"
	case KindBadLoad:
		return "the node's load makes no sense: " + r.Text
	case KindNoRoute:
		return "no fresh route time to this node" + r.Text
	case KindAssumedRoute:
		return fmt.Sprintf("no fresh route time to %s: the other nodes' median of %v is taken", r.Node, round(r.Value))
	case KindComputedRoute:
		return fmt.Sprintf("route time %v to %s is computed over %d hops: neither measured it", round(r.Value), r.Node, r.Hops)
	case KindNodePath:
		return fmt.Sprintf("no fresh route time to %s by the pod path: the node path's %v counts, but as no nearer than the other nodes' median of %v", cmp.Or(string(r.Node), "the others"), round(r.Value), round(r.Limit))
	case KindLeftOut:
		return fmt.Sprintf("the peers on %s do not count: no node has a fresh route time to it", r.Node)
	case KindEqualRoute:
		return fmt.Sprintf("route time %v counts as the %v of %s: their spreads overlap", round(r.Value), round(r.Limit), r.Node)
	case KindMedian:
		return "points are the median of the known nodes"
	case KindAllUnknown:
		return "no node's measurements are known: all get the same points"
	case KindBadParams:
		return "the formula cannot be computed: " + r.Text
	case KindFull:
		return "nothing is idle on this node"
	case KindCramped:
		return fmt.Sprintf("less is idle than a pod that is held to use %.2f cores and %.2f GiB wants now and then, %.2f cores and as much memory: A is less for that",
			r.Use.CPU, r.Use.Memory.GiB(), wanted(r.Use.CPU))
	case KindArrivals:
		return fmt.Sprintf("its load does not tell yet of pods that have come, %d of them: they count with %.2f cores and %.2f GiB", r.Pods, r.Use.CPU, r.Use.Memory.GiB())
	}
	return r.Text
}

// MarshalText gives the sentence: reasons are read by people.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText keeps the sentence; its kind is lost.
func (r *Reason) UnmarshalText(b []byte) error {
	*r = Reason{Kind: KindText, Text: string(b)}
	return nil
}

// Unknown are the kinds of what makes a score unknown.
var Unknown = []Kind{KindNoState, KindNotAlive, KindStaleState, KindNoLoad, KindBadLoad, KindNoRoute, KindBadParams}

// WhyUnknown is the reason why a score that is not known is not.
func (s *Score) WhyUnknown() Reason {
	for _, r := range s.Reasons {
		if slices.Contains(Unknown, r.Kind) {
			return r
		}
	}
	return Reason{Kind: KindText, Text: "no reason is known"}
}

// round leaves the digits that a reader can use.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
