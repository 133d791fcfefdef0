package runtimewrapper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
)

// burial is how long the end of a held container's processes may take.
const burial = 10 * time.Second

// guard keeps a container still that a move holds. In cgroup v1 "runc kill ID KILL" and
// "runc delete --force" thaw a frozen group, and all but its first process run a little before
// they die; other signals would strike as soon as the container is released. kubelet
// calls both for a liveness probe that a frozen process does not answer.
func (w *Wrapper) guard(in invocation) error {
	note, err := w.layout.ReadContainer(in.id)
	if note == nil {
		return err // none of Drover's; or it is not known, and nobody is told to touch it
	}
	group, err := w.group(note.CgroupsPath)
	if err != nil {
		return fmt.Errorf("find the control group of container %s: %w", in.id, err)
	}
	frozen, err := group.Frozen()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !frozen {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tell whether container %s is held: %w", in.id, err)
	}
	why, err := w.holder(*note)
	if err == nil && why == "" {
		return nil // somebody else has paused it
	}
	if in.verb == "delete" && slices.ContainsFunc(in.rest, func(a string) bool { return a == "--force" || a == "-f" }) {
		// The runtime has lost the container; it is gone in any case.
		return w.bury(note.CgroupsPath)
	}
	if err != nil {
		return fmt.Errorf("container %s is frozen, and why is not known: %w", in.id, err)
	}
	return fmt.Errorf("container %s is held: %s; %s is refused until that is decided", in.id, why, in.verb)
}

// bury ends a container's processes without a moment in which they run.
func (w *Wrapper) bury(cgroupsPath string) error {
	group, err := w.group(cgroupsPath)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), burial)
	defer cancel()
	return group.Kill(ctx)
}

// holder says which move holds a container that is frozen; "" for none.
func (w *Wrapper) holder(note layout.Container) (string, error) {
	f, err := w.layout.Fences().Check(note.PodUID)
	if f != nil {
		return fmt.Sprintf("migration %s (epoch %d) moves its pod away", f.Migration, f.Epoch), nil
	}
	if err != nil {
		return "", err
	}
	held, err := w.layout.CopyHeld(note.ID)
	if held {
		return "it is a copy that a migration has not let run yet", nil
	}
	return "", err
}

// ownGroup is the control group of a container, as this process reaches it.
func ownGroup(path string) (cgroup.Group, error) {
	h, err := cgroup.Own()
	if err != nil {
		return cgroup.Group{}, err
	}
	return h.At(path)
}
