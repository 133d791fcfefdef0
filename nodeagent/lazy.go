package nodeagent

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/inspect"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/restore"
)

// watchLazy asks whether copies can run here before all of their memory is loaded.
func (a *agent) watchLazy(ctx context.Context) {
	why := "--lazy-from is 0"
	if a.cfg.LazyFrom > 0 {
		why = checkpoint.CannotLoadLater(ctx, a.cfg.Runc)
	}
	if was := a.notLater.Swap(&why); (was == nil || *was != why) && ctx.Err() == nil {
		a.log.Info("whether moved pods can run here before all of their memory is loaded", "from", a.cfg.LazyFrom, "obstacle", why)
	}
}

// watchTracking asks whether memory can be written in rounds here while pods run.
func (a *agent) watchTracking(ctx context.Context) {
	why := "--dirty-tracking is off"
	if a.cfg.DirtyTracking {
		why = checkpoint.CannotTrack(ctx)
	}
	if was := a.notTracked.Swap(&why); (was == nil || *was != why) && ctx.Err() == nil {
		a.log.Info("whether the memory of pods that leave here is written in rounds before they are frozen", "obstacle", why)
	}
}

// cannotTrack says why memory is not written in rounds here; empty: it is.
func (a *agent) cannotTrack() string {
	if why := a.notTracked.Load(); why != nil {
		return *why
	}
	return "whether the node can track what is written to has not been looked at yet"
}

// memory tells whether images lack memory, and why a copy must have all of it before it runs; empty: what
// is left is loaded while it does.
func (a *agent) memory(images string) (lacking bool, eager string, err error) {
	m, err := inspect.MemoryOf(images, a.cfg.LazyFrom)
	if err == nil && m.Lacking {
		_, err = inspect.LeftOut(images) // what is asked for later has to be known then
	}
	if err != nil {
		return m.Lacking, "", err
	}
	if why := a.cannotLoadLater(); why != "" {
		return m.Lacking, why, nil
	}
	return m.Lacking, m.Eager(a.cfg.LazyFrom), nil
}

// leaveFrom is from how much memory on a move with postCopy leaves it in the processes; 0: none does.
func (a *agent) leaveFrom() model.Bytes {
	if a.cannotLoadLater() != "" {
		return 0 // nor can CRIU here leave it
	}
	return a.cfg.LazyFrom
}

// cannotLoadLater says why memory is not loaded later here; empty: it is.
func (a *agent) cannotLoadLater() string {
	if why := a.notLater.Load(); why != nil {
		return *why
	}
	return "whether the node can do otherwise has not been looked at yet"
}

// memoryLost tells the user why a container was killed.
func (a *agent) memoryLost(pod migrate.Pod, why string) {
	a.events.Event(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID)}},
		corev1.EventTypeWarning, "MemoryLost",
		fmt.Sprintf("node %s could not load the rest of the memory that the pod was moved with, so its container was killed and starts anew: %s", a.cfg.Node, why))
}

// stillNeeded keeps the images of a copy until its memory is loaded.
type stillNeeded struct {
	migrate.Images
	copies *restore.Copies
}

// Discard implements migrate.Images.
func (s stillNeeded) Discard(ctx context.Context, m migrate.Move) error {
	if err := s.copies.Loaded(ctx, m); err != nil {
		return err
	}
	return s.Images.Discard(ctx, m)
}
