package location

import (
	"cmp"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Place is where one pod is held to be, and by whose word.
type Place struct {
	Pod  model.PodID  `json:"pod"`
	Node model.NodeID `json:"node"`
	// Moved is the pod's last move, of which both ends or its record have told; nil: it is its
	// node alone that says that it has the pod.
	Moved *model.Location `json:"moved,omitempty"`
	// Phase is what the node is held for, and Age how old its last report is; nil: none came.
	Phase model.Phase    `json:"phase,omitempty"`
	Age   *time.Duration `json:"age,omitempty"`
}

// Answer is what one program knows of where a pod is.
type Answer struct {
	// At is when it was asked, by its clock, Self the node that it is on.
	At   time.Time    `json:"at"`
	Self model.NodeID `json:"self"`
	// Places is where the pod is; several, if several pods are meant.
	Places []Place `json:"places"`
}

// Find looks for pods in a picture: by the UID of a pod, or that of the first of its lineage, or
// by name. Only if no pod has that name now, those are found that had it before: their UIDs are
// former. Places are in the order of their pods' names and UIDs.
func Find(s view.Snapshot, namespace, pod string, former []string) []Place {
	all := everyPlace(s, namespace)
	for _, is := range []func(Place) bool{
		func(p Place) bool {
			return p.Pod.Name == pod || p.Pod.UID == pod || p.Moved != nil && p.Moved.Origin == pod
		},
		func(p Place) bool { return slices.Contains(former, p.Pod.UID) },
	} {
		if found := slices.DeleteFunc(slices.Clone(all), func(p Place) bool { return !is(p) }); len(found) > 0 {
			return found
		}
	}
	return nil
}

// everyPlace puts together what nodes say of their pods, and what is known of moves.
func everyPlace(s view.Snapshot, namespace string) []Place {
	by := map[string]Place{} // by the pod's UID
	for _, id := range s.IDs() {
		for _, pod := range s.Nodes[id].State.Pods {
			// Of two nodes that say that they have a pod the one that is alive is right.
			if was, twice := by[pod.UID]; pod.Namespace == namespace && (!twice || !s.Nodes[was.Node].Alive) {
				by[pod.UID] = Place{Pod: pod, Node: id}
			}
		}
	}
	for _, l := range s.Locations {
		// A node that says which pods it has, and not this one, has it no longer.
		has, told := by[l.Pod.UID]
		if l.Pod.Namespace != namespace || !told && len(s.Nodes[l.Node].State.Pods) > 0 && s.Nodes[l.Node].Alive {
			continue
		}
		if !told || !s.Nodes[has.Node].Alive {
			has = Place{Pod: l.Pod, Node: l.Node}
		}
		has.Moved = &l
		by[l.Pod.UID] = has
	}
	all := make([]Place, 0, len(by))
	for _, p := range by {
		n := s.Nodes[p.Node]
		p.Phase = n.Phase
		if age, heard := n.Age(s.At); heard {
			p.Age = &age
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Place) int {
		return cmp.Or(cmp.Compare(a.Pod.Name, b.Pod.Name), cmp.Compare(a.Pod.UID, b.Pod.UID))
	})
	return all
}
