// Package fence is what a node remembers on disk about pods that may not be started on it
// again: one file a pod, written by the agent before the pod is offered to another node,
// read by drover-runc without asking anybody. So neither a kubelet that restarts a container
// nor a node that reboots can bring a moved pod back while its new copy runs.
package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-project/drover/internal/durable"
)

// DefaultDir is where the fences of a node live.
const DefaultDir Dir = "/var/lib/drover/fences"

const suffix = ".json"

// Fence says that a pod may not be started on this node.
type Fence struct {
	// PodUID is the pod object that was left behind.
	PodUID string `json:"podUID"`
	// Epoch is that of the move; only this move lifts the fence.
	Epoch uint64 `json:"epoch"`
	// Migration is the PodMigration's namespace/name, for people.
	Migration string `json:"migration"`
	// Holder is the image, by digest (NAME@sha256:…), of which a container may be started all the
	// same: a process that does nothing, and keeps the pod's sandbox and with it its address. Empty:
	// none. It may be set only when no process of the pod is left, nor can come back.
	Holder string `json:"holder,omitempty"`
}

// LetsThrough tells that a container of this image may be started although the pod is fenced.
func (f Fence) LetsThrough(image string) bool {
	_, digest, ok := strings.Cut(f.Holder, "@sha256:")
	return ok && len(digest) == 64 && strings.Trim(digest, "0123456789abcdef") == "" && image == f.Holder
}

// ErrUnreadable: the directory of the fences cannot be read, so nobody knows whether the
// pod is fenced.
var ErrUnreadable = errors.New("the fences of this node cannot be read")

// Dir is the directory that holds the fences.
type Dir string

// Write puts the fence on disk; when it returns nil the fence survives a power cut. Another
// move's fence stays and the call fails: that move holds the pod, or has moved it away.
func (d Dir) Write(f Fence) error {
	path, err := d.path(f.PodUID)
	if err != nil {
		return err
	}
	old, err := read(path)
	if err != nil {
		return err
	}
	if old != nil && !old.by(f.Epoch) {
		return fmt.Errorf("fence of pod %s for a move with epoch %d: the pod is fenced by migration %s with epoch %d already; if there is no such PodMigration any more, delete the pod",
			f.PodUID, f.Epoch, old.Migration, old.Epoch)
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// Check returns the pod's fence, or nil when there is none. An error that wraps
// ErrUnreadable means that it is not known; a caller that must be safe then refuses.
func (d Dir) Check(podUID string) (*Fence, error) {
	path, err := d.path(podUID)
	if err != nil {
		return nil, err
	}
	f, err := read(path)
	if err != nil {
		return nil, err
	}
	if f != nil {
		return f, nil
	}
	// The file is absent; that says something only if its directory can be read.
	if _, err := os.ReadDir(string(d)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return nil, nil
}

// by tells that the fence is of the move with the epoch given: its own, or the one below, which
// a return has raised by one. Epochs of different moves are at least two apart (handoff.NextEpoch).
func (f Fence) by(epoch uint64) bool { return f.Epoch == epoch || f.Epoch+1 == epoch }

// Lift removes the pod's fence if it is of the move with the epoch given. Another move's fence
// stays and the call fails; it is no error when there is none.
func (d Dir) Lift(podUID string, epoch uint64) error {
	path, err := d.path(podUID)
	if err != nil {
		return err
	}
	f, err := read(path)
	if err != nil || f == nil {
		return err
	}
	if !f.by(epoch) {
		return fmt.Errorf("fence of pod %s is of migration %s with epoch %d: a move with epoch %d may not lift it", podUID, f.Migration, f.Epoch, epoch)
	}
	return durable.Remove(path)
}

// List returns every fence of the node, in the order of the pods' UIDs.
func (d Dir) List() ([]Fence, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	var fences []Fence
	for _, e := range entries {
		uid, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || ValidUID(uid) != nil {
			continue
		}
		f, err := read(filepath.Join(string(d), e.Name()))
		if err != nil {
			return nil, err
		}
		if f != nil {
			fences = append(fences, *f)
		}
	}
	return fences, nil
}

func (d Dir) path(podUID string) (string, error) {
	if err := ValidUID(podUID); err != nil {
		return "", err
	}
	return filepath.Join(string(d), podUID+suffix), nil
}

// read returns nil, nil when the file or its directory is absent. A file that is there but
// cannot be understood counts as unreadable: a damaged fence still fences.
func read(path string) (*Fence, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	var f Fence
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreadable, path, err)
	}
	if want := strings.TrimSuffix(filepath.Base(path), suffix); f.PodUID != want {
		return nil, fmt.Errorf("%w: %s is for pod %q", ErrUnreadable, path, f.PodUID)
	}
	return &f, nil
}

// ValidUID refuses what cannot be a pod's UID and might be a path: only letters, digits
// and "-" are allowed, at most 128 of them (static pods have 32 hex digits, others a
// UUID of 36 characters).
func ValidUID(uid string) error {
	if uid == "" || len(uid) > 128 {
		return fmt.Errorf("pod UID %.140q: want 1 to 128 characters", uid)
	}
	for _, c := range []byte(uid) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-':
		default:
			return fmt.Errorf("pod UID %q: only letters, digits and \"-\" are allowed", uid)
		}
	}
	return nil
}
