package placement

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Of the nodes that are known 3/6, 1/1 and 9/3 cores, and 6/6, 4/1 and 6/3 GiB are in use for each pod.
func TestPodUse(t *testing.T) {
	s := line()
	for id, of := range map[model.NodeID]struct {
		cpu  float64
		gib  float64
		pods int
	}{"a": {3, 6, 6}, "b": {1, 4, 1}, "c": {400, 8, 1}, "d": {math.NaN(), 1, 1}, "e": {9, 6, 3}, "f": {5, 5, 0}} {
		n := heard(nil)
		n.State.Load.Used, n.State.Pods = res(of.cpu, of.gib), make([]model.PodID, of.pods)
		n.Alive = id != "c"
		s.Nodes[id] = n
	}
	if diff := cmp.Diff(res(1, 2), NewSurvey(s, unit(), t0).PodUse()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := NewSurvey(line(), unit(), t0).PodUse(); got != (model.Resources{}) {
		t.Errorf("%+v where there are no pods", got)
	}
}

func TestPodUseServesForAWhile(t *testing.T) {
	using := func(cpu float64) view.Snapshot {
		n := heard(nil)
		n.State.Load.Used, n.State.Pods = res(cpu, 0), make([]model.PodID, 1)
		return view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{"a": n}}
	}
	first := NewSurvey(using(1), unit(), t0)
	second := NewSurvey(using(2), unit(), t0.Add(keepPodUse-1)).After(first)
	third := NewSurvey(using(3), unit(), t0.Add(keepPodUse)).After(second)
	for want, v := range map[model.Cores]*Survey{1: second, 3: third} {
		if got := v.PodUse().CPU; got != want {
			t.Errorf("%v cores, want %v", got, want)
		}
	}
}

func BenchmarkPodUse(b *testing.B) {
	for _, nodes := range []int{100, 5000} {
		s := view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}
		for i := range nodes {
			n := heard(nil)
			n.State.Pods = make([]model.PodID, 50)
			s.Nodes[nth(i)] = n
		}
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			for b.Loop() {
				NewSurvey(s, unit(), t0).PodUse()
			}
		})
	}
}
