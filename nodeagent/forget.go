package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// forgetInterval is how often the node's disk is looked over for fences and notes that have
// outlived what they are about. There is one small file a move: nothing is urgent.
const forgetInterval = 10 * time.Second

// kubeletPods is where kubelet keeps a directory for every pod that it may still start.
const kubeletPods = "var/lib/kubelet/pods"

func (a *agent) keepForgetting(ctx context.Context) error {
	tick := time.NewTicker(forgetInterval)
	defer tick.Stop()
	for {
		if err := errors.Join(a.forget(ctx), a.forgetYards()); err != nil && ctx.Err() == nil {
			a.log.Warn("cannot clear away all that pods that are gone have left here, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// forget removes the fences of pods that nothing can bring back, the notes of arrivals of
// pods that are gone, and those of containers that are. A pod can come back as long as the API server has it or kubelet keeps
// anything of it; and as long as there is the record of its move, a fence is somebody's.
func (a *agent) forget(ctx context.Context) error {
	fences, err := a.cfg.Layout.Fences().List()
	if err != nil {
		return err
	}
	arrivals, err := a.cfg.Layout.Restored().List()
	if err != nil {
		return err
	}
	var there map[string]*corev1.Pod // read when first needed
	gone := func(uid string) (bool, error) {
		if known, err := a.kubeletKnows(uid); known || err != nil {
			return false, err
		}
		if there == nil {
			var err error
			if there, err = a.cluster.podsNow(ctx); err != nil {
				return false, err
			}
		}
		return there[uid] == nil, nil
	}
	var errs []error
	for _, f := range fences {
		errs = append(errs, a.forgetFence(ctx, f, gone))
	}
	for _, uid := range arrivals {
		// An agent that is killed between the two leaves the mark beside the note.
		errs = append(errs, a.marks.Forget(migrate.Move{Target: migrate.Pod{UID: uid}}))
		is, err := gone(uid)
		if err == nil && is {
			err = a.cfg.Layout.Restored().Remove(uid)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, a.forgetContainers(ctx, hosted.Call))...)
}

// forgetContainers removes what is left of containers that came to nothing: a create that was
// refused or killed is not always followed by a delete. The runtime makes a container's
// bundle before its create, and removes it last. call runs a command on the node.
func (a *agent) forgetContainers(ctx context.Context, call func(context.Context, ...string) (string, error)) error {
	l := a.cfg.Layout
	ids, err := l.Containers()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		c, err := l.ReadContainer(id)
		if c == nil || err != nil {
			errs = append(errs, err)
			continue
		}
		if _, err := os.Stat(filepath.Join(a.cfg.HostRoot, c.Bundle)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := a.deleteContainer(ctx, *c, call); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, l.RemoveContainer(id))
	}
	return errors.Join(errs...)
}

// deleteContainer removes what runc has of a container without bundle. A drover-runc that was
// killed in the middle of a restore leaves runc's state and the mount for CRIU behind, and
// containerd never asks for them to be deleted.
func (a *agent) deleteContainer(ctx context.Context, c layout.Container, call func(context.Context, ...string) (string, error)) error {
	if _, err := os.Stat(filepath.Join(a.cfg.HostRoot, c.Root, c.ID)); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, burial)
	defer cancel()
	if out, err := call(ctx, a.cfg.Program, "--root", c.Root, "delete", c.ID); err != nil {
		return fmt.Errorf("delete container %s, which has no bundle any more: %w: %s", c.ID, err, strings.TrimSpace(out))
	}
	return nil
}

func (a *agent) forgetFence(ctx context.Context, f fence.Fence, gone func(uid string) (bool, error)) error {
	// The cache first: nearly always it has the record, and nothing is asked.
	if recorded, err := hasRecord(ctx, a.cluster.cache, f.Migration); recorded || err != nil {
		return err
	}
	if is, err := gone(f.PodUID); !is || err != nil {
		return err
	}
	if recorded, err := hasRecord(ctx, a.cluster.direct, f.Migration); recorded || err != nil {
		return err
	}
	a.log.Info("the pod and its move are gone: its fence goes too", "pod", f.PodUID, "migration", f.Migration)
	return a.cfg.Layout.Fences().Lift(f.PodUID, f.Epoch)
}

func hasRecord(ctx context.Context, from client.Reader, migration string) (bool, error) {
	ns, name, _ := strings.Cut(migration, "/")
	err := from.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, &v1alpha1.PodMigration{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read PodMigration %s: %w", migration, err)
	}
	return true, nil
}

// kubeletKnows tells whether kubelet still has something of the pod. Where its directory
// is not to be found that is not known, and then it may. The agent's own pod must be in it: a
// kubelet with another root directory may have left an old one behind.
func (a *agent) kubeletKnows(uid string) (bool, error) {
	dir := filepath.Join(a.cfg.HostRoot, kubeletPods)
	if _, err := os.Stat(filepath.Join(dir, a.cfg.PodUID)); err != nil {
		return true, fmt.Errorf("look for what kubelet keeps of pods: %w", err)
	}
	_, err := os.Stat(filepath.Join(dir, uid))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return true, err
}
