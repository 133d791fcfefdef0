package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// SweepStaged removes what is staged for containers that nobody knows any more: on a disk it outlives
// a boot, and would keep images that are to be wiped. It may be called at any time, for a container is
// noted before anything is staged for it.
func (l Layout) SweepStaged() error {
	entries, err := os.ReadDir(l.Staged(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep staged images: %w", err)
	}
	var errs []error
	for _, e := range entries {
		known, err := l.known(e.Name())
		if err == nil && !known {
			err = os.RemoveAll(filepath.Join(l.Staged(""), e.Name()))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep staged images: %w", err))
		}
	}
	return errors.Join(errs...)
}

// known tells whether there is a note about a container or its restore.
func (l Layout) known(id string) (bool, error) {
	if ValidContainerID(id) != nil {
		return false, nil // none of Drover's
	}
	if c, err := l.ReadContainer(id); c != nil || err != nil {
		return true, err
	}
	_, err := os.Stat(l.RestoreNote(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return true, err
}
