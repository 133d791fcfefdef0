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

// DefaultRestoredDir is where a node remembers the restored pods.
const DefaultRestoredDir RestoredDir = "/var/lib/drover/restored"

// Restored says that a replacement's checkpoint has been restored on this node and runs:
// it has been spent. A container of that pod that is asked for again crashed after the move
// and starts fresh, as any crashed container does.
type Restored struct {
	// PodUID is the replacement.
	PodUID string `json:"podUID"`
	// Migration is the name of the PodMigration, as in the pod's annotation.
	Migration string `json:"migration"`
	Epoch     uint64 `json:"epoch"`
}

// RestoredDir is the directory of these notes. The agent writes one once the record says that
// the target has resumed, and never before: a target that boots between would start the pod
// afresh while the source, with that boot as its proof, takes it back. drover-runc reads it.
type RestoredDir string

// Write puts the note on disk; when it returns nil the note survives a power cut.
func (d RestoredDir) Write(r Restored) error {
	path, err := d.path(r.PodUID)
	if err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// Check tells whether the pod's checkpoint of that migration has been restored here. What
// cannot be read is an error, and then nothing may be started.
func (d RestoredDir) Check(podUID, migration string) (bool, error) {
	path, err := d.path(podUID)
	if err != nil {
		return false, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var r Restored
	if err := json.Unmarshal(data, &r); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return r.PodUID == podUID && r.Migration == migration, nil
}

// List returns the UIDs of the pods that there are notes of.
func (d RestoredDir) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var uids []string
	for _, e := range entries {
		if uid, ok := strings.CutSuffix(e.Name(), suffix); ok && ValidUID(uid) == nil {
			uids = append(uids, uid)
		}
	}
	return uids, nil
}

// Remove forgets the note of a pod that is gone. It is no error when there is none.
func (d RestoredDir) Remove(podUID string) error {
	path, err := d.path(podUID)
	if err != nil {
		return err
	}
	return durable.Remove(path)
}

func (d RestoredDir) path(podUID string) (string, error) {
	if err := ValidUID(podUID); err != nil {
		return "", err
	}
	return filepath.Join(string(d), podUID+suffix), nil
}
