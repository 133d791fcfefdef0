// Package view holds the picture that one program has of the whole cluster at one moment.
// A Snapshot is never changed after it was handed out: every reader of a decision sees
// the same figures, and each figure knows its age.
package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peak"
)

// Node is what is known of one node.
type Node struct {
	State model.NodeState `json:"state"`
	// Received is when State came, by the clock of the program that owns the snapshot.
	// Zero: the node is known as a member, but nothing was heard from it yet.
	Received time.Time `json:"received"`
	// Recent is what it has used beyond what State says, by the same clock.
	Recent peak.Excess `json:"recent,omitzero"`
	// Alive tells whether the membership protocol holds the node for alive, Missing since when
	// not, by the same clock as Received.
	Alive   bool      `json:"alive"`
	Missing time.Time `json:"missing,omitzero"`
	// Phase is what the node is held for, Since when it was first, by that clock, and Why what
	// speaks for it beyond the node's own word.
	Phase model.Phase `json:"phase,omitempty"`
	Since time.Time   `json:"since,omitzero"`
	Why   string      `json:"why,omitempty"`
}

// Closed says why no pod may be placed on the node now; empty: it may.
func (n Node) Closed() string {
	switch {
	case n.Phase == model.Leaving:
		return "it is leaving"
	case n.Phase == model.Suspected || n.Phase == model.Dead || n.Phase == model.Left:
		return fmt.Sprintf("it is held for %s: %s", n.Phase, n.Why)
	case !n.Alive:
		return "its agent does not answer"
	case n.Phase == model.Joining:
		return "it is joining: its agent has not told yet what it has"
	}
	return ""
}

// Age is how old the state is at now, by the clock that set Received. ok is false when
// nothing was ever received. A clock that went back gives 0, never a negative age.
func (n Node) Age(now time.Time) (age time.Duration, ok bool) {
	if n.Received.IsZero() {
		return 0, false
	}
	return max(0, now.Sub(n.Received)), true
}

// Used is what counts as in use at now: a peak that decays to what is in use.
func (n Node) Used(now time.Time) model.Resources {
	return n.State.Load.Used.Plus(n.Recent.Left(now))
}

// Load is what the node has told of its load, with what counts as in use at now.
func (n Node) Load(now time.Time) model.Load {
	l := n.State.Load
	l.Used = n.Used(now)
	return l
}

// RouteAge is how old the node's own measurement of the path to another node is at now.
// It needs no common clock: the time from the measurement to the state's own stamp is
// read on the measuring node's clock, the rest on the receiver's. A route that the node has
// not told anew stands as it was told.
func (n Node) RouteAge(by model.Path, to model.NodeID, now time.Time) (age time.Duration, ok bool) {
	r, measured := n.State.RoutesBy(by)[to]
	age, received := n.Age(now)
	if !measured || !received {
		return 0, false
	}
	return age + Behind(&n.State, r), true
}

// Behind is how old a measurement was when the state that carries it was stamped, by the
// clock of the node that did both.
func Behind(s *model.NodeState, r model.RouteTime) time.Duration {
	at := s.RoutesAt
	if at.IsZero() {
		at = s.Load.At
	}
	if at.IsZero() || r.At.IsZero() {
		return 0
	}
	return max(0, at.Sub(r.At))
}

// Snapshot is the picture. It is read by many at once and must not be changed by anyone
// once it was handed out; whoever builds one hands over the maps and slices with it.
type Snapshot struct {
	// At is when the picture was taken, by the clock that also sets Node.Received. A
	// reader on another machine takes At, not its own clock, for now.
	At time.Time `json:"at"`
	// Self is the node of the program that took it; empty for an observer.
	Self model.NodeID `json:"self,omitempty"`
	// Nodes by name. Dead nodes stay for a while, with Alive false.
	Nodes map[model.NodeID]Node `json:"nodes"`
	// Locations of the pods that were moved, in the order of SortLocations.
	Locations []model.Location `json:"locations,omitempty"`
	// Talk is who talks to whom, as all nodes say together, perhaps a moment ago. It does not
	// travel: whoever has read a picture makes it anew (Indexed).
	Talk *edges.Index `json:"-"`
}

// Indexed gives the picture with its Talk.
func (s Snapshot) Indexed() Snapshot {
	s.Talk = edges.NewIndex(func(yield func(*model.NodeState) bool) {
		for _, n := range s.Nodes {
			if !yield(&n.State) {
				return
			}
		}
	})
	return s
}

// Age is how old the picture is at now, never negative.
func (s Snapshot) Age(now time.Time) time.Duration { return max(0, now.Sub(s.At)) }

// IDs lists the nodes by name.
func (s Snapshot) IDs() []model.NodeID { return slices.Sorted(maps.Keys(s.Nodes)) }

// Alive lists the nodes that are alive, by name.
func (s Snapshot) Alive() []model.NodeID {
	return slices.DeleteFunc(s.IDs(), func(id model.NodeID) bool { return !s.Nodes[id].Alive })
}

// Location finds the place of a lineage by the UID of its first pod.
func (s Snapshot) Location(origin string) (model.Location, bool) {
	i := slices.IndexFunc(s.Locations, func(l model.Location) bool { return l.Origin == origin })
	if i < 0 {
		return model.Location{}, false
	}
	return s.Locations[i], true
}

// SortLocations puts locations in the one order in which they are listed: by namespace,
// name and origin.
func SortLocations(ls []model.Location) {
	slices.SortFunc(ls, func(a, b model.Location) int {
		return cmp.Or(
			cmp.Compare(a.Pod.Namespace, b.Pod.Namespace),
			cmp.Compare(a.Pod.Name, b.Pod.Name),
			cmp.Compare(a.Origin, b.Origin),
		)
	})
}
