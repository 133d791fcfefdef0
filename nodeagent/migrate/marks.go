package migrate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drover-project/drover/internal/fence"
)

// MarkDir is a directory on tmpfs that holds one empty file for every copy that was about
// to run. Since a reboot empties it and nothing else must, no file is synced.
type MarkDir string

// Begin says that the copy of this move is about to run.
func (d MarkDir) Begin(m Move) error {
	path, err := d.path(m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("mark the copy of pod %s: %w", m.Target.UID, err)
	}
	return os.WriteFile(path, nil, 0o600)
}

// Begun tells whether Begin was said since the node was booted.
func (d MarkDir) Begun(m Move) (bool, error) {
	path, err := d.path(m)
	if err != nil {
		return false, err
	}
	_, err = os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Forget removes the mark. It is no error when there is none.
func (d MarkDir) Forget(m Move) error {
	path, err := d.path(m)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d MarkDir) path(m Move) (string, error) {
	if err := fence.ValidUID(m.Target.UID); err != nil {
		return "", fmt.Errorf("mark a copy: %w", err)
	}
	return filepath.Join(string(d), m.Target.UID), nil
}
