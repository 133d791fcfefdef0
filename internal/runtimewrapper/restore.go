package runtimewrapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/criu"
	"github.com/drover-project/drover/internal/layout"
)

// goodbye is how long a finished restore tries to tell the agent. The agent learns it from
// the processes too.
const goodbye = 10 * time.Second

// await asks the agent about a replacement's container and does what it says.
func (w *Wrapper) await(ctx context.Context, in invocation, b *bundle, p pod, note layout.Container, args []string) error {
	a, err := dial(w.layout.Socket())
	if err != nil {
		return err
	}
	life, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Without it the restore begins when the images are there: it takes longer, and that is all.
	e, err := w.beginEarly(ctx, in, note, b)
	if errors.Is(err, errStuck) {
		return err
	}
	deadline, _ := ctx.Deadline()
	answer, err := a.await(ctx, life, &agentv1.AwaitRestoreRequest{
		Namespace: p.namespace, Pod: p.name, PodUid: p.uid, Container: p.container,
		ContainerId: in.id, Migration: p.migration, Bundle: note.Bundle,
		CgroupsPath: b.cgroupsPath, Pid: int32(os.Getpid()), DeadlineUnixNano: deadline.UnixNano(),
	})
	if answer.GetRestore() == "" {
		if stuck := w.undo(e, in, note); stuck != nil {
			return errors.Join(stuck, err)
		}
	}
	if err != nil {
		return fmt.Errorf("migration %s: no checkpoint to restore after %s of waiting, and a replacement is never started without one: %w",
			p.migration, patience, err)
	}
	switch {
	case answer.GetFresh():
		return w.createCold(in, b, args)
	case answer.GetRestore() == "":
		return fmt.Errorf("migration %s: this container is not created: %s", p.migration, answer.GetRefuse())
	}
	pid, err := w.restore(in, b, note, answer.GetRestore(), e)
	if err != nil {
		err = fmt.Errorf("migration %s: restore the checkpoint: %w", p.migration, err)
	}
	w.tell(a, note, pid, err)
	return err
}

// tell reports how the restore ended.
func (w *Wrapper) tell(a *agent, note layout.Container, pid int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	req := &agentv1.RestoredRequest{PodUid: note.PodUID, ContainerId: note.ID, Pid: int32(pid)}
	if err != nil {
		req.Error = err.Error()
	}
	_ = a.again(ctx, func(ctx context.Context) error {
		_, err := a.client.Restored(ctx, req)
		return err
	})
}

// restore runs runc, which returns when the copy runs, or has failed; or lets the one go on that has
// begun. In between CRIU's action script holds it until the move is decided.
func (w *Wrapper) restore(in invocation, b *bundle, note layout.Container, images string, e *early) (pid int, err error) {
	settle, err := w.writeOptions(in, b, images)
	if err != nil {
		return 0, errors.Join(err, w.undo(e, in, note))
	}
	work := w.layout.Work(in.id)
	began, err := e.goOn(images)
	if !began {
		err = w.undo(e, in, note)
		if err == nil {
			err = os.MkdirAll(work, 0o700)
		}
		if err != nil {
			return 0, errors.Join(err, settle())
		}
		err = w.runRunc(in.restoreArgs(b, images, work))
	}
	// Not a reason to end a copy that runs: CRIU's action script knows the file, too.
	_ = settle()
	if err != nil {
		err = fmt.Errorf("runc restore: %w", err)
		w.cleanUp(in, note)
		if why := criu.Errors(filepath.Join(work, restoreLog)); why != "" {
			err = fmt.Errorf("%w: %s", err, why)
		}
		return 0, err
	}
	note.Restored = true
	if err := w.layout.WriteContainer(note); err != nil {
		return 0, fmt.Errorf("note that the container runs: %w", err)
	}
	return readPid(in.pidFile)
}

// writeOptions writes CRIU's options for the restore, which CRIU reads when runc starts it, whoever has
// begun that runc, and when. settle, which is to be called when runc has ended, takes those away that
// are for this restore alone: with them somebody else's dump would leave memory out.
func (w *Wrapper) writeOptions(in invocation, b *bundle, images string) (settle func() error, err error) {
	if err := b.save(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	hook, err := layout.EnsureHook(self)
	if err != nil {
		return nil, err
	}
	connections, err := w.layout.NotedConnections(in.id)
	if err != nil {
		return nil, err
	}
	write := func(more ...string) error { return w.layout.WriteCriuConfig(in.id, hook, connections, more...) }
	if _, err := os.Stat(w.layout.LazySocket(in.id)); err == nil {
		return func() error { return write() }, write(layout.Lazily)
	}
	if lack, err := layout.Lack(images); err != nil || lack {
		return nil, errors.Join(err, fmt.Errorf("the images in %s may lack memory, and nothing waits at %s to load it: the copy would read zeros", images, w.layout.LazySocket(in.id)))
	}
	return func() error { return nil }, write()
}

// runRunc runs runc on this process's own standard streams: of a container that is restored they become
// the container's. It ends with this process: when the runtime shim kills that in the middle of a restore, CRIU
// and the copy are in the container's group, which the agent empties.
func (w *Wrapper) runRunc(args []string) error {
	runtime.LockOSThread() // the signal is bound to the thread
	defer runtime.UnlockOSThread()
	return w.command(args).Run()
}

// cleanUp removes what a failed restore leaves, so that the next create of this ID does not
// stumble over it.
func (w *Wrapper) cleanUp(in invocation, note layout.Container) {
	if err := w.bury(note.CgroupsPath); err != nil {
		return // the agent's to end: runc would thaw what is left of it
	}
	clearRestore(in.root, in.id)
	args := append(append([]string{}, in.global...), "delete", "--force", in.id)
	// Its failure is not the one to report: mostly there is nothing to delete. With the
	// caller's log file runc would add to what containerd reads as the reason.
	_ = exec.Command(w.runc, withoutLog(args)...).Run()
}

// withoutLog drops runc's --log, so that a secondary error does not hide the first.
func withoutLog(args []string) []string {
	var kept []string
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if args[i] != name && name == "log" {
			if !joined {
				i++
			}
			continue
		}
		kept = append(kept, args[i])
	}
	return kept
}

func readPid(path string) (int, error) {
	if path == "" {
		return 0, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the copy's process ID: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, errors.New("runc wrote no process ID to " + path)
	}
	return pid, nil
}
