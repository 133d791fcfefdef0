package placement

import (
	"math"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// roll numbers the nodes of a picture, so that what is known of them can lie in slices. It serves
// all pictures with the same nodes.
type roll struct {
	ids     []model.NodeID // by name
	numbers map[model.NodeID]int32
}

func newRoll(s view.Snapshot) *roll {
	r := &roll{ids: s.IDs(), numbers: make(map[model.NodeID]int32, len(s.Nodes))}
	for i, id := range r.ids {
		r.numbers[id] = int32(i)
	}
	return r
}

// lists tells whether a picture has the nodes of the roll and no others.
func (r *roll) lists(s view.Snapshot) bool {
	if len(r.ids) != len(s.Nodes) {
		return false
	}
	for _, id := range r.ids {
		if _, ok := s.Nodes[id]; !ok {
			return false
		}
	}
	return true
}

// loaded is a node's load at the time of a survey.
type loaded struct {
	load  model.Load
	heard time.Time // zero: never
	why   *Reason   // it is not known; nil where it is
}

// loads has those of all nodes, by number, and how much way each is worth: the nodes of the
// greatest worth over T are those of the greatest A.
type loads struct {
	of    []loaded
	worth []float32         // 0: nothing is known, or idle
	idle  []model.Resources // zero where nothing is known
}

func (v *Survey) loadAll() *loads {
	r := v.roll()
	all := &loads{of: make([]loaded, len(r.ids)), worth: make([]float32, len(r.ids)), idle: make([]model.Resources, len(r.ids))}
	for i, id := range r.ids {
		l := v.load(id)
		all.of[i] = l
		if l.why != nil || senseless(&l.load) != "" {
			continue
		}
		free := idle(&l.load, true)
		worth := v.params.Alpha*float64(free.CPU) + v.params.Beta*free.Memory.GiB()
		if v.params.Exponent != 1 && v.params.Exponent > 0 {
			worth = math.Pow(worth, 1/v.params.Exponent)
		}
		all.worth[i], all.idle[i] = float32(worth), free
	}
	return all
}

// load is that of one node.
func (v *Survey) load(id model.NodeID) loaded {
	n, ok := v.view.Nodes[id]
	l := loaded{load: n.Load(v.now), heard: n.Received}
	age, heard := n.Age(v.now)
	switch {
	case !ok || !heard:
		l.why = &Reason{Kind: KindNoState}
	case !n.Alive:
		l.why = &Reason{Kind: KindNotAlive}
	case age > v.params.StaleAfter:
		l.why = &Reason{Kind: KindStaleState, Value: age, Limit: v.params.StaleAfter}
	case n.State.Load.At.IsZero():
		l.why = &Reason{Kind: KindNoLoad}
	}
	return l
}

// Number gives a node's number among those of the picture, below Size; false: it is none of them.
func (v *Survey) Number(id model.NodeID) (number int32, ok bool) {
	number, ok = v.roll().numbers[id]
	return number, ok
}

// Heard is when the node of a number was last heard; zero: never.
func (v *Survey) Heard(number int32) time.Time { return v.loads().of[number].heard }

// Size is how many nodes the picture has.
func (v *Survey) Size() int { return len(v.roll().ids) }
