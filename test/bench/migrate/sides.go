package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/beat"
)

// side is a way to have a process run elsewhere.
type side struct {
	name string
	move func(context.Context, *labor, workload) (figures, error)
}

// What Drover's modes are held against.
const (
	standardPath = "standard"
	newStart     = "recreate"
	bareCRIU     = "bare"
)

// mode is a way in which Drover can be told to move.
type mode struct {
	name string
	wish func(*v1alpha1.PodMigration) // nil: as it does if told nothing
	// goals are for how long a gap may be at most, by the size of the memory in MiB.
	goals map[int]time.Duration
}

// modes that there are.
var modes = []mode{
	{name: "drover"},
	{name: "post-copy", wish: func(m *v1alpha1.PodMigration) { m.Spec.PostCopy = true }, goals: map[int]time.Duration{1024: 350 * time.Millisecond}},
}

func allSides() []side {
	var all []side
	for _, m := range modes {
		all = append(all, side{m.name, m.move})
	}
	return append(all, side{standardPath, standard}, side{newStart, recreate}, side{bareCRIU, bare})
}

// move is by a PodMigration.
func (m mode) move(ctx context.Context, l *labor, w workload) (f figures, err error) {
	process := l.process()
	defer func() { err = errors.Join(err, l.clear(process)) }()
	pod, err := l.start(ctx, l.pod(process, w, l.from, true))
	if err != nil {
		return f, err
	}
	f, err = l.timed(ctx, process, w, func() (f figures, err error) {
		var change []func(*v1alpha1.PodMigration)
		if m.wish != nil {
			change = append(change, m.wish)
		}
		order, err := l.Order(ctx, pod, l.to, change...)
		if err != nil {
			return f, err
		}
		end, err := l.Ended(ctx, order)
		if err != nil {
			return f, err
		}
		if end.Status.Phase != v1alpha1.PhaseCompleted || end.Status.FrozenTime == nil {
			return f, fmt.Errorf("the move ended as %s: %s: %s", end.Status.Phase, end.Status.DecisionReason, end.Status.DecisionMessage)
		}
		c, err := l.passed(ctx, process)
		return figures{gap: c.Gap(), first: c.First, lost: c.Lost, frozen: end.Status.FrozenTime.Duration, sent: end.Status.Bytes, steps: steps(end)}, err
	})
	if err != nil {
		return f, err
	}
	return f, l.intact(ctx, process)
}

func steps(m *v1alpha1.PodMigration) (all []step) {
	line := m.Status.Timeline
	for i := 1; i < len(line); i++ {
		all = append(all, step{line[i].Step, line[i].At.Sub(line[i-1].At.Time)})
	}
	return all
}

// recreate deletes the pod and makes another at once, as a controller does. Its memory has to be
// made anew, as much as there was.
func recreate(ctx context.Context, l *labor, w workload) (f figures, err error) {
	process, successor := l.process(), l.process()
	defer func() { l.ear.Forget(successor); err = errors.Join(err, l.clear(process)) }()
	pod, err := l.start(ctx, l.pod(process, w, l.from, false))
	if err != nil {
		return f, err
	}
	return l.timed(ctx, process, w, func() (f figures, err error) {
		if err := l.Client.Delete(ctx, pod); err != nil {
			return f, err
		}
		if _, err := l.start(ctx, l.pod(successor, w, l.to, false)); err != nil {
			return f, err
		}
		first, err := l.ear.Await(ctx, successor, "a first beat", func(beat.Heard) bool { return true })
		if err != nil {
			return f, err
		}
		if err := l.gone(ctx, pod); err != nil {
			return f, err
		}
		all := l.ear.Of(process)
		return figures{gap: first.At.Sub(all[len(all)-1].At), first: first, lost: len(all)}, nil
	})
}

// standard is what Kubernetes has: kubelet's checkpoint API, which lets the source run on; an image
// of the archive; its import on the other node; a new pod of it.
func standard(ctx context.Context, l *labor, w workload) (f figures, err error) {
	process := l.process()
	defer func() { err = errors.Join(err, l.clear(process)) }()
	source := l.pod(process, w, l.from, false)
	source.Spec.Containers[0].Image, source.Spec.Containers[0].ImagePullPolicy = l.pulled(), corev1.PullIfNotPresent
	if source, err = l.start(ctx, source); err != nil {
		return f, err
	}
	f, err = l.timed(ctx, process, w, func() (f figures, err error) {
		began := time.Now()
		archive, err := l.checkpoint(ctx, source)
		if err != nil {
			return f, err
		}
		defer func() { err = errors.Join(err, archive.remove()) }()
		// What it does from the checkpoint on is lost.
		if err := l.Client.Delete(ctx, source); err != nil {
			return f, err
		}
		ref := fmt.Sprintf("drover.dev/checkpoint:%d", process)
		if f.sent, err = archive.importAs(ctx, ref); err != nil {
			return f, err
		}
		defer func() {
			err = errors.Join(err, l.run(context.WithoutCancel(ctx), l.to, "ctr", "-n", "k8s.io", "images", "rm", ref))
		}()
		target := l.pod(process, w, l.to, false)
		target.Name += "-restored"
		target.Spec.Containers[0].Image = ref
		if _, err := l.start(ctx, target); err != nil {
			return f, err
		}
		c, err := l.passed(ctx, process)
		if err != nil {
			return f, err
		}
		if err := l.gone(ctx, source); err != nil {
			return f, err
		}
		f.gap, f.first, f.lost = c.Gap(), c.First, c.Lost
		f.frozen, _ = beat.Silence(l.ear.Of(process), began)
		return f, nil
	})
	if err != nil {
		return f, err
	}
	return f, l.intact(ctx, process)
}
