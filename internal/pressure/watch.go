package pressure

import (
	"time"

	"github.com/drover-project/drover/internal/model"
)

// Sample is what was read of one container between two readings. Nil: not read; the
// stall counts as 0 then.
type Sample struct {
	CPU    *CPU    `json:"cpu,omitempty"`
	Memory *Memory `json:"memory,omitempty"`
	IO     *IO     `json:"io,omitempty"`
}

// Stalls gives the stall that others cause, for every resource.
func (s Sample) Stalls() map[model.Resource]float64 {
	stalls := map[model.Resource]float64{model.OnCPU: 0, model.OnMemory: 0, model.OnIO: 0}
	if s.CPU != nil {
		stalls[model.OnCPU] = s.CPU.Stall()
	}
	if s.Memory != nil {
		stalls[model.OnMemory] = s.Memory.Stall()
	}
	if s.IO != nil {
		stalls[model.OnIO] = s.IO.Stall()
	}
	return stalls
}

// Watch grades all resources of one container. Its zero value is of no use: see NewWatch.
type Watch struct{ detectors map[model.Resource]*Detector }

// NewWatch gives a Watch that has seen nothing yet.
func NewWatch(t Thresholds) *Watch {
	w := &Watch{map[model.Resource]*Detector{}}
	for _, r := range Resources {
		w.detectors[r] = New(t[r])
	}
	return w
}

// Feed takes what was read since the previous call, as Detector.Feed does.
func (w *Watch) Feed(now time.Time, s Sample) States {
	states := States{}
	for r, stall := range s.Stalls() {
		states[r] = w.detectors[r].Feed(now, stall)
	}
	return states
}

// States are the grades of all resources.
type States map[model.Resource]State

// Worst is the resource of the worst grade, and of the greatest stall where grades are
// equal; CPU where all are fine.
func (s States) Worst() (model.Resource, State) {
	rank := map[model.Grade]int{model.Tight: 1, model.Severe: 2}
	worst := model.OnCPU
	for _, r := range Resources {
		a, b := s[r], s[worst]
		if ra, rb := rank[a.Grade], rank[b.Grade]; ra > rb || ra == rb && a.Mean > b.Mean && ra > 0 {
			worst = r
		}
	}
	return worst, s[worst]
}

// Grades gives the grades alone.
func (s States) Grades() map[model.Resource]model.Grade {
	grades := make(map[model.Resource]model.Grade, len(s))
	for r, state := range s {
		grades[r] = state.Grade
	}
	return grades
}
