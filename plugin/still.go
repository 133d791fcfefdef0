package plugin

import (
	"time"

	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/view"
)

// still is a picture that does not change.
type still struct{ picture view.Snapshot }

// Snapshot implements Views.
func (s still) Snapshot() view.Snapshot { return s.picture }

// Still makes the factory of a plugin that goes by one picture, at the moment at which that was taken: for
// simulations.
func Still(picture view.Snapshot) frameworkruntime.PluginFactory {
	return Factory(Config{
		Views:     still{picture.Indexed()},
		Metrics:   NewMetrics(),
		Decisions: decision.NewLog(0, 0),
		Now:       func() time.Time { return picture.At },
	})
}
