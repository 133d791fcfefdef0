package simulate

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
)

// chooser is a profile's framework that chooses among the best nodes by a lot that can be drawn
// again: the scheduler's own cannot be seeded.
type chooser struct {
	framework.Framework
	lot *rand.Rand
}

func newChooser(f framework.Framework, seed uint64) chooser {
	var from [32]byte
	binary.LittleEndian.PutUint64(from[:], seed)
	return chooser{f, rand.New(rand.NewChaCha8(from))} // seeds that are near to each other draw unlike lots
}

// RunScorePlugins implements framework.PluginsRunner. The chosen node gets a point, and is the best
// alone; no extender adds any after this.
func (c chooser) RunScorePlugins(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) ([]framework.NodePluginScores, *fwk.Status) {
	scores, status := c.Framework.RunScorePlugins(ctx, state, pod, nodes)
	if !status.IsSuccess() || len(scores) == 0 {
		return scores, status
	}
	var best []int
	for i := range scores {
		switch {
		case len(best) == 0 || scores[i].TotalScore > scores[best[0]].TotalScore:
			best = append(best[:0], i)
		case scores[i].TotalScore == scores[best[0]].TotalScore:
			best = append(best, i)
		}
	}
	scores[best[c.lot.IntN(len(best))]].TotalScore++
	return scores, status
}

// silence records no events: there is nobody to read them.
type silence struct{}

var _ events.EventRecorder = silence{}

// Eventf implements events.EventRecorder.
func (silence) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}
