package runtimewrapper

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
)

func (w *Wrapper) create(in invocation, args []string) error {
	b, err := readBundle(in.bundle)
	if err != nil {
		return err // what cannot be looked at is not started: it may be fenced
	}
	b.stripCriu()
	p, err := b.pod()
	if err != nil {
		return err
	}
	if p.sandbox {
		return w.createCold(in, b, args)
	}
	f, err := w.fenceOf(p.uid, p.optedIn)
	if err != nil {
		return err
	}
	if f != nil && f.LetsThrough(p.image) {
		if err := b.hold(); err != nil {
			return err
		}
		return w.createCold(in, b, args)
	}
	if err := refusedBy(f, p.uid); err != nil {
		return err
	}
	if !p.optedIn {
		return w.createCold(in, b, args)
	}
	dir, err := filepath.Abs(in.bundle)
	if err != nil {
		return err
	}
	note := layout.Container{ID: in.id, PodUID: p.uid, Bundle: dir, Root: in.root, CgroupsPath: b.cgroupsPath}
	if err := w.layout.WriteContainer(note); err != nil {
		return fmt.Errorf("note the container: %w", err)
	}
	// The file is written by the agent before a dump; until then runc finds none, which is
	// no error and keeps /etc/criu/runc.conf out.
	b.annotate(criuConfig, w.layout.CriuConfig(in.id))
	if p.migration == "" {
		return w.createCold(in, b, args)
	}
	fresh, err := w.layout.Restored().Check(p.uid, p.migration)
	if err != nil {
		return fmt.Errorf("cannot tell whether the checkpoint of migration %s was restored in this pod: %w", p.migration, err)
	}
	if fresh {
		// The container crashed after the move.
		return w.createCold(in, b, args)
	}
	ctx, cancel := context.WithDeadline(context.Background(), w.began.Add(patience))
	defer cancel()
	return w.await(ctx, in, b, p, note, args)
}

// createCold lets runc create the container.
func (w *Wrapper) createCold(in invocation, b *bundle, args []string) error {
	if err := b.save(); err != nil {
		return err
	}
	return w.passOn(args)
}

// checkFence refuses a pod that has moved away from this node.
func (w *Wrapper) checkFence(podUID string) error {
	f, err := w.fenceOf(podUID, true)
	if err != nil {
		return err
	}
	return refusedBy(f, podUID)
}

func refusedBy(f *fence.Fence, podUID string) error {
	if f == nil {
		return nil
	}
	return fmt.Errorf("pod %s moved away from this node (migration %s, epoch %d) and is fenced: it is not started here again", podUID, f.Migration, f.Epoch)
}

// fenceOf is the pod's fence; nil: it has none. What cannot be known keeps only pods from running
// that opted in to being moved.
func (w *Wrapper) fenceOf(podUID string, optedIn bool) (*fence.Fence, error) {
	if podUID == "" && !optedIn {
		return nil, nil // not a pod's container
	}
	f, err := w.layout.Fences().Check(podUID)
	if f == nil && err != nil && optedIn {
		return nil, fmt.Errorf("cannot tell whether pod %s moved away from this node, so it is not started: %w; is drover-agent installed here?", podUID, err)
	}
	return f, nil
}
