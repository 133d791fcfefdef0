package nodeagent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
	"github.com/drover-project/drover/nodeagent/measure"
)

// A pod is judged by all that any of its containers suffers for severely, not by the worst alone.
func TestSufferersKeepEveryResource(t *testing.T) {
	since := time.Unix(1_000_000, 0)
	severe := func(mean float64) pressure.State {
		return pressure.State{Grade: model.Severe, Mean: mean, Since: since}
	}
	container := func(uid, name string, states pressure.States) measure.ContainerWait {
		return measure.ContainerWait{Pod: model.PodID{UID: uid}, Container: name, States: states}
	}
	got := sufferers([]measure.ContainerWait{
		container("a", "app", pressure.States{model.OnCPU: severe(.6), model.OnMemory: severe(.3), model.OnIO: {Grade: model.Tight, Mean: .9}}),
		container("a", "side", pressure.States{model.OnCPU: severe(.8), model.OnMemory: severe(.2)}),
		container("b", "app", pressure.States{model.OnCPU: {Grade: model.Tight, Mean: .4}, model.OnMemory: severe(.25)}),
		container("c", "app", pressure.States{model.OnCPU: {Grade: model.Tight, Mean: .4}}),
	})
	type told struct {
		Container string
		Resource  model.Resource
		Wait      float64
		Also      map[model.Resource]float64
	}
	short := map[string]told{}
	for uid, s := range got {
		short[uid] = told{s.Container, s.resource, s.state.Mean, s.also}
	}
	want := map[string]told{
		"a": {"side", model.OnCPU, .8, map[model.Resource]float64{model.OnMemory: .3}},
		"b": {"app", model.OnMemory, .25, map[model.Resource]float64{}},
	}
	if diff := cmp.Diff(want, short); diff != "" {
		t.Error(diff)
	}
}
