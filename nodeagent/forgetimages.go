package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
)

// heap is a directory of images, one subdirectory a move.
type heap interface {
	// Leftovers names those that may be removed once the record is gone or finished; layout.MoveDir
	// made the names.
	Leftovers() ([]string, error)
	Forget(ctx context.Context, name string) error
}

func (a *agent) keepForgettingImages(ctx context.Context, heaps ...heap) error {
	tick := time.NewTicker(forgetInterval)
	defer tick.Stop()
	for {
		if err := a.cfg.Layout.SweepStaged(); err != nil {
			a.log.Warn("cannot clear away what was staged for containers that are gone, trying again", "err", err)
		}
		for _, h := range heaps {
			if err := a.forgetImages(ctx, h); err != nil && ctx.Err() == nil {
				a.log.Warn("cannot clear away the images of moves that have ended, trying again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// forgetImages removes images of moves that are finished or gone. Mostly whoever used them has
// done so; this is for what could not be removed then, lies on a disk from before a boot, or is
// still sent by a node that does not care.
func (a *agent) forgetImages(ctx context.Context, h heap) error {
	names, err := h.Leftovers()
	if err != nil || len(names) == 0 {
		return err
	}
	// Read from the API server itself, and after the directories: what has one had a record.
	var l v1alpha1.PodMigrationList
	if err := a.cluster.direct.List(ctx, &l); err != nil {
		return fmt.Errorf("list PodMigrations: %w", err)
	}
	unfinished := map[string]bool{}
	for i := range l.Items {
		unfinished[string(l.Items[i].UID)] = !v1alpha1.Finished(&l.Items[i])
	}
	var errs []error
	for _, name := range names {
		i := strings.LastIndexByte(name, '-')
		if i < 0 || fence.ValidUID(name[:i]) != nil || unfinished[name[:i]] {
			continue
		}
		a.log.Info("images of a move that has ended are removed", "images", name)
		errs = append(errs, h.Forget(ctx, name))
	}
	return errors.Join(errs...)
}
