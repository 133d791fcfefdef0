package placement

import (
	"slices"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// keepPodUse is for how long what pods use in one picture serves in later ones.
const keepPodUse = 5 * time.Second

// podUse is what pods use in one picture, made when it is first asked for.
type podUse struct {
	at  time.Time // of the picture
	get func() model.Resources
}

func newPodUse(v *Survey) *podUse { return &podUse{v.now, sync.OnceValue(v.medianPodUse)} }

// PodUse is what is in use for each pod on the median of the nodes whose loads are known, so that
// no single node can say what pods use; nothing when no known node has pods.
func (v *Survey) PodUse() model.Resources { return v.podUse.get() }

func (v *Survey) medianPodUse() model.Resources {
	var cpu []model.Cores
	var memory []model.Bytes
	for id, n := range v.view.Nodes {
		pods := len(n.State.Pods)
		if pods == 0 {
			continue
		}
		if l := v.load(id); l.why == nil && senseless(&l.load) == "" {
			cpu, memory = append(cpu, l.load.Used.CPU/model.Cores(pods)), append(memory, l.load.Used.Memory/model.Bytes(pods))
		}
	}
	if len(cpu) == 0 {
		return model.Resources{}
	}
	slices.Sort(cpu)
	slices.Sort(memory)
	return model.Resources{CPU: cpu[(len(cpu)-1)/2], Memory: memory[(len(memory)-1)/2]}
}
