// Package lifecycle judges in which phase of its life a node is, from what the node says of
// itself and from what others find: joining, normal and leaving are a node's own, signed word;
// suspected, dead and left are verdicts.
//
// That the membership protocol has lost a node makes it suspected and no more: one accuser is
// enough for that loss, and whoever has the gossip's key can cause it. Dead takes evidence of
// another kind, of several observers where there are several: probes that the node's kernel
// answers as long as the machine runs, whether its agent does or not. What each node finds is
// in its own signed state, and in the end it is every reader's own verdict.
package lifecycle

import (
	"fmt"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

const (
	// Quiet is how long a node has to be missing before it can be dead: longer than an agent
	// takes to be started again.
	Quiet = 10 * time.Second
	// Unheard is how long nothing new of it must have come: longer than the longest space
	// between two of a node's reports.
	Unheard = 20 * time.Second
	// Fresh is how old a state may be whose word counts: several times the longest space
	// between two.
	Fresh = time.Minute
	// Witnesses is how many nodes have to find a node silent, where there are as many.
	Witnesses = 2
)

// Verdict is what a node is held for, and by which evidence beyond its own word.
type Verdict struct {
	Phase model.Phase
	Why   string
}

// Judge gives the verdict on a node of the picture at now, by the clock of who took it. Of the
// phases that the picture has already, Dead alone counts: see alive.
func Judge(s view.Snapshot, id model.NodeID, now time.Time) Verdict {
	n := s.Nodes[id]
	said := Said(n)
	if n.Alive {
		return Verdict{Phase: said}
	}
	why := alive(s, id, now)
	switch {
	case said == model.Leaving && why == "":
		return Verdict{model.Left, "it had said that it leaves, and answers nobody"}
	case said == model.Leaving:
		return Verdict{model.Leaving, "its agent has ended; " + why}
	case why == "":
		return Verdict{model.Dead, "no member, and its kernel answers nobody"}
	}
	return Verdict{model.Suspected, "no member; " + why}
}

// Said is the phase that a node gives itself. It cannot give itself another, and one of which
// nothing was heard is joining.
func Said(n view.Node) model.Phase {
	switch p := n.State.Phase; {
	case n.Received.IsZero():
		return model.Joining
	case p == "": // an agent from before there were phases
		return model.Normal
	case p == model.Normal || p == model.Leaving:
		return p
	}
	return model.Joining
}

// alive says why a node that is missing may live all the same; empty: nothing speaks for it.
func alive(s view.Snapshot, id model.NodeID, now time.Time) string {
	n := s.Nodes[id]
	if now.Sub(n.Missing) < Quiet {
		return "not for long"
	}
	if age, heard := n.Age(now); heard && age < Unheard {
		return "it is still heard"
	}
	var living, silent []model.NodeID
	for _, w := range s.IDs() {
		at := s.Nodes[w]
		if w == id || !at.Alive {
			continue
		}
		living = append(living, w)
		if age, heard := at.Age(now); !heard || age > Fresh {
			continue
		}
		// A route that is still told beside it is from before the silence.
		if slices.Contains(at.State.Silent, id) {
			silent = append(silent, w)
			continue
		}
		if age, measured := at.RouteAge(model.PathNode, id, now); measured && now.Add(-age).After(n.Missing) {
			return fmt.Sprintf("its kernel answers %s", w)
		}
	}
	// Who hears less than half of the nodes cannot tell whether they are cut off, or it is. Those
	// that were found dead before are of neither side.
	all := 0
	for _, n := range s.Nodes {
		if n.Phase != model.Dead {
			all++
		}
	}
	if 2*len(living) < all {
		return fmt.Sprintf("only %d of %d nodes are heard: which side is cut off is not known", len(living), all)
	}
	switch want := min(Witnesses, len(living)); {
	case len(silent) == 0:
		return "no node says that its kernel is silent"
	case len(silent) < want:
		return fmt.Sprintf("only %s says that its kernel is silent", silent[0])
	}
	return ""
}
