package runtimewrapper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// start says yes to a container that was restored: its processes run already, or ran. All
// others are runc's, unless their pod was fenced since the create.
func (w *Wrapper) start(in invocation, args []string) error {
	note, err := w.layout.ReadContainer(in.id)
	if err != nil {
		return fmt.Errorf("read what was noted at the create: %w", err)
	}
	if note == nil {
		return w.passOn(args)
	}
	if err := w.checkFence(note.PodUID); err != nil {
		return err
	}
	if !note.Restored {
		return w.passOn(args)
	}
	status, err := w.status(in)
	if err != nil {
		return err
	}
	switch status {
	case "running", "paused", "stopped":
		return nil
	}
	return fmt.Errorf("container %s was restored, but runc calls it %q", in.id, status)
}

// status asks runc for the container's state.
func (w *Wrapper) status(in invocation) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(w.runc, "--root", in.root, "state", in.id)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("runc state %s: %w: %s", in.id, err, bytes.TrimSpace(stderr.Bytes()))
	}
	var state struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(out, &state); err != nil {
		return "", fmt.Errorf("runc state %s: %w", in.id, err)
	}
	return state.Status, nil
}

// delete takes away what would keep runc from deleting the container: the mount that runc
// makes for CRIU and leaves behind when it is killed in the middle of a restore. The note goes
// when runc has deleted the container: as long as there is one, it can be found and held.
func (w *Wrapper) delete(in invocation, args []string) error {
	note, err := w.layout.ReadContainer(in.id)
	if note == nil && err == nil {
		return w.passOn(args)
	}
	clearRestore(in.root, in.id)
	// Of a restore that was killed before it had images.
	_, _ = os.RemoveAll(w.layout.Staged(in.id)), os.Remove(w.layout.Work(in.id))
	var exit *exec.ExitError
	if err := w.runRunc(args); errors.As(err, &exit) && exit.Exited() {
		return runcFailed{exit.ExitCode()}
	} else if err != nil {
		return fmt.Errorf("run %s: %w", w.runc, err)
	}
	// What cannot be removed here is a small file on tmpfs; runc's answer matters more.
	_ = w.layout.RemoveContainer(in.id)
	return nil
}

func clearRestore(root, id string) {
	// Mostly nothing is mounted there. If this fails runc fails over it too, and says so.
	_ = unix.Unmount(filepath.Join(root, id, "criu-root"), unix.MNT_DETACH)
}
