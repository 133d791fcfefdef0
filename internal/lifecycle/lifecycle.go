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
	Unheard = 30 * time.Second
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

// Evidence is what a picture holds for and against those that are missing, put together once for
// all of them: half of a large cluster may be.
type Evidence struct {
	picture view.Snapshot
	now     time.Time
	// hearing is how many members are heard, of how many nodes that were not dead before.
	hearing, all int
	silent       map[model.NodeID][]model.NodeID // who finds a node silent, by name
	answered     map[model.NodeID]model.NodeID   // the first, by name, that had an answer since it was missing
}

// Weigh puts the evidence of a picture together at now, by the clock of who took it. Of the
// phases that the picture has already, Dead and Left alone count: see alive.
func Weigh(s view.Snapshot, now time.Time) Evidence {
	e := Evidence{picture: s, now: now, silent: map[model.NodeID][]model.NodeID{}, answered: map[model.NodeID]model.NodeID{}}
	for _, w := range s.IDs() {
		at := s.Nodes[w]
		if at.Phase != model.Dead {
			e.all++
		}
		// A member of whom nothing signed was heard lately may be nobody's.
		if age, heard := at.Age(now); at.Alive && heard && age <= Fresh {
			e.hearing++
			e.hear(w, at)
		}
	}
	return e
}

// hear adds what one node finds.
func (e *Evidence) hear(w model.NodeID, at view.Node) {
	for _, id := range at.State.Silent {
		if by := e.silent[id]; e.missing(id) && (len(by) == 0 || by[len(by)-1] != w) {
			e.silent[id] = append(by, w)
		}
	}
	for id := range at.State.Routes {
		if _, before := e.answered[id]; before || !e.missing(id) {
			continue
		}
		// A route that is still told beside the silence is from before it.
		if by := e.silent[id]; len(by) > 0 && by[len(by)-1] == w {
			continue
		}
		if age, _ := at.RouteAge(model.PathNode, id, e.now); e.now.Add(-age).After(e.picture.Nodes[id].Missing) {
			e.answered[id] = w
		}
	}
}

func (e *Evidence) missing(id model.NodeID) bool {
	n, known := e.picture.Nodes[id]
	return known && !n.Alive
}

// Judge gives the verdict on a node of the picture.
func (e *Evidence) Judge(id model.NodeID) Verdict {
	n := e.picture.Nodes[id]
	said := Said(n)
	if n.Alive {
		return Verdict{Phase: said}
	}
	why := e.alive(id)
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
func (e *Evidence) alive(id model.NodeID) string {
	n := e.picture.Nodes[id]
	if e.now.Sub(n.Missing) < Quiet {
		return "not for long"
	}
	if age, heard := n.Age(e.now); heard && age < Unheard {
		return "it is still heard"
	}
	if by, answers := e.answered[id]; answers {
		return fmt.Sprintf("its kernel answers %s", by)
	}
	// Who hears less than half of the nodes cannot tell whether they are cut off, or it is. Those
	// that were found dead before are of neither side.
	if 2*e.hearing < e.all {
		return fmt.Sprintf("only %d of %d nodes are heard: which side is cut off is not known", e.hearing, e.all)
	}
	// Those who found that it has left have forgotten it, and say nothing of it any more.
	if n.Phase == model.Left && Said(n) == model.Leaving {
		return ""
	}
	silent := e.silent[id]
	switch want := min(Witnesses, e.hearing); {
	case len(silent) == 0:
		return "no node says that its kernel is silent"
	case len(silent) < want:
		return fmt.Sprintf("only %s says that its kernel is silent", silent[0])
	}
	return ""
}
