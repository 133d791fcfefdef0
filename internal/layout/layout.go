// Package layout says where on a node Drover's files are, for the programs that share
// them: the agent, drover-runc and CRIU's action script.
package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/passthrough"
)

// Layout is the two directories that hold everything. Paths are those of the node; the
// agent's container has both mounted at the same place.
type Layout struct {
	// Run is on tmpfs: what it says is gone with the processes that it speaks of.
	Run string
	// State survives a reboot.
	State string
}

// Default is the layout of an installed node.
var Default = Layout{Run: "/run/drover", State: "/var/lib/drover"}

// Hook is how CRIU's action script calls drover-runc.
const Hook = passthrough.Hook

// Prepare makes the directories that drover-runc and the agent expect. Only root enters.
func (l Layout) Prepare() error {
	for _, dir := range []string{
		l.Run, l.criu(), l.containers(), filepath.Join(l.Run, "restores"), l.Work(""),
		l.State, string(l.Fences()), string(l.Restored()), l.Images(), l.Dumps(), l.Staged(""),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("prepare the node's directories: %w", err)
		}
	}
	return nil
}

// Socket is the agent's unix socket for drover-runc and the action script.
func (l Layout) Socket() string { return filepath.Join(l.Run, "agent.sock") }

// CriuConfig is the file of CRIU's options for one container, named by its annotation.
func (l Layout) CriuConfig(id string) string { return filepath.Join(l.criu(), id+".conf") }

// keeps is the note that a container's connections are kept at its restore.
func (l Layout) keeps(id string) string { return filepath.Join(l.criu(), id+".keep") }

// Fences is the directory of fences.
func (l Layout) Fences() fence.Dir { return fence.Dir(filepath.Join(l.State, "fences")) }

// Restored is the directory of notes about restored pods.
func (l Layout) Restored() fence.RestoredDir {
	return fence.RestoredDir(filepath.Join(l.State, "restored"))
}

// Vault is where everything lies that holds the memory of pods: a file system of its own,
// which package vault mounts.
func (l Layout) Vault() string { return filepath.Join(l.Run, "vault") }

// Images is the directory under which images that came from other nodes lie.
func (l Layout) Images() string { return filepath.Join(l.Vault(), "images") }

// Dumps is the directory under which images that leave this node lie.
func (l Layout) Dumps() string { return filepath.Join(l.Vault(), "dumps") }

// Staged is the directory from which a container is restored whose restore was begun before its images
// were there: it gets their names when they are.
func (l Layout) Staged(id string) string { return filepath.Join(l.Vault(), "staged", id) }

// Work is the directory for the logs of one restore.
func (l Layout) Work(id string) string { return filepath.Join(l.Run, "work", id) }

// Loader is the directory of what loads a copy's memory while it runs; not there: nothing does.
func (l Layout) Loader(id string) string { return filepath.Join(l.Work(id), "loader") }

// Relay is the unix socket of what gives the Loader memory that the images lack: an agent brings it there.
func (l Layout) Relay(id string) string { return filepath.Join(l.Loader(id), "relay.sock") }

// LazySocket is where CRIU's lazy-pages daemon waits for a restore that works in Work: a name of
// CRIU's. If it is there, the container is restored lazily.
func (l Layout) LazySocket(id string) string { return filepath.Join(l.Work(id), "lazy-pages.socket") }

// RestoreNote is the file about a container that is restored.
func (l Layout) RestoreNote(id string) string {
	return filepath.Join(l.Run, "restores", id+".json")
}

// CopyLet is the stage in a RestoreNote from which on the copy may run.
const CopyLet = "running"

// CopyHeld tells whether a container is a copy that was not let run yet.
func (l Layout) CopyHeld(id string) (bool, error) {
	if err := ValidContainerID(id); err != nil {
		return false, err
	}
	var n struct {
		Stage string `json:"stage"`
	}
	ok, err := ReadNote(l.RestoreNote(id), &n)
	return ok && n.Stage != CopyLet, err
}

// RestoreNotes lists the containers that have a RestoreNote.
func (l Layout) RestoreNotes() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(l.Run, "restores"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && ValidContainerID(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (l Layout) criu() string       { return filepath.Join(l.Run, "criu") }
func (l Layout) containers() string { return filepath.Join(l.Run, "containers") }

// MoveDir names the directory of one move's images: the move's UID and epoch.
func MoveDir(migrationUID string, epoch uint64) (string, error) {
	if err := fence.ValidUID(migrationUID); err != nil {
		return "", fmt.Errorf("migration: %w", err)
	}
	return migrationUID + "-" + strconv.FormatUint(epoch, 10), nil
}

// Container is what drover-runc notes about a container of a pod that opted in, when it is
// created. The note is what "start" and "delete" have to go by: they get an ID alone.
type Container struct {
	ID     string `json:"id"`
	PodUID string `json:"podUID"`
	// Bundle is the OCI bundle's directory, Root the --root that runc was called with.
	Bundle string `json:"bundle"`
	Root   string `json:"root"`
	// CgroupsPath is the bundle's linux.cgroupsPath.
	CgroupsPath string `json:"cgroupsPath"`
	// Restored: it was restored and not created, so that it runs before "start".
	Restored bool `json:"restored,omitempty"`
	// Begun is where the bundle's mounts lie in the root file system, in their order, if its restore was
	// begun before its files came: runc has looked by then.
	Begun []string `json:"begun,omitempty"`
}

// Containers lists the IDs of the containers that there are notes of.
func (l Layout) Containers() ([]string, error) {
	entries, err := os.ReadDir(l.containers())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && ValidContainerID(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// WriteContainer notes a container. The note lasts as long as the node is up.
func (l Layout) WriteContainer(c Container) error {
	if err := ValidContainerID(c.ID); err != nil {
		return err
	}
	if err := os.MkdirAll(l.containers(), 0o700); err != nil {
		return err
	}
	return WriteNote(filepath.Join(l.containers(), c.ID+".json"), c)
}

// ReadContainer returns the note, or nil when there is none.
func (l Layout) ReadContainer(id string) (*Container, error) {
	if err := ValidContainerID(id); err != nil {
		return nil, err
	}
	var c Container
	ok, err := ReadNote(filepath.Join(l.containers(), id+".json"), &c)
	if !ok {
		return nil, err
	}
	return &c, nil
}

// RemoveContainer forgets a container. It is no error when there is no note.
func (l Layout) RemoveContainer(id string) error {
	if err := ValidContainerID(id); err != nil {
		return err
	}
	return errors.Join(remove(filepath.Join(l.containers(), id+".json")), remove(l.CriuConfig(id)), remove(l.keeps(id)))
}

// WriteNote stores v as JSON, whole or not at all, for root alone.
func WriteNote(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// ReadNote loads what WriteNote stored; false without an error: there is none.
func ReadNote(path string, v any) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ValidContainerID refuses what runc refuses too: an ID is a file name of letters, digits
// and "_+-.", and not "." or "..".
func ValidContainerID(id string) error {
	if id == "" || len(id) > 200 || id == "." || id == ".." {
		return fmt.Errorf("container ID %.210q cannot be used as a file name", id)
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("_+-.", c) >= 0:
		default:
			return fmt.Errorf("container ID %q cannot be used as a file name", id)
		}
	}
	return nil
}
