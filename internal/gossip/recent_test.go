package gossip

import (
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peak"
	"github.com/drover-project/drover/internal/view"
)

// What a node has used a moment ago still counts, for who heard of it and for the node itself,
// and is halved while nothing is said.
func TestRecentUseIsRemembered(t *testing.T) {
	s := newSpeaker(t)
	state := calm()
	hear := func() {
		_, raws := s.publish(state)
		s.listener.hear(raws)
	}
	state.Load.Used = model.Resources{CPU: 12, Memory: 48 * model.GiB}
	hear()
	s.wait(time.Minute)
	state.Load.Used = model.Resources{CPU: 2, Memory: 32 * model.GiB}
	hear()
	for _, want := range []model.Resources{{CPU: 12, Memory: 48 * model.GiB}, {CPU: 2 + 10./2, Memory: (32 + 16/2) * model.GiB}} {
		for who, n := range map[string]view.Node{"a listener": s.heard(), "itself": s.Snapshot().Nodes["a"]} {
			// The wire form is exact to 1 in 256.
			got := n.Used(s.now)
			if cpu, memory := float64(got.CPU/want.CPU), float64(got.Memory)/float64(want.Memory); max(cpu, 1/cpu, memory, 1/memory) > 1.005 {
				t.Errorf("for %s %+v count, want %+v", who, got, want)
			}
			if now := n.State.Load.Used.CPU; float64(now) > 2.01 {
				t.Errorf("for %s %v cores are in use at present, want 2", who, now)
			}
		}
		s.wait(peak.HalfLife)
	}
}
