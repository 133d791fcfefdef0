package layout

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Loading tells whether the container whose first process has this PID is a copy of which memory
// is still to be loaded.
func (l Layout) Loading(initPID int) (bool, error) {
	id, lazy, err := l.copyOf(initPID)
	if err != nil || !lazy {
		return false, err
	}
	_, err = os.Stat(l.Loader(id))
	return !errors.Is(err, fs.ErrNotExist), nil
}

// DumpsLazily tells whether a dump of the copy whose first process has this PID would leave its memory
// to a page server, because CRIU's options are still those of its restore.
func (l Layout) DumpsLazily(initPID int) (bool, error) {
	id, _, err := l.copyOf(initPID)
	if err != nil || id == "" {
		return false, err
	}
	options, err := os.ReadFile(l.CriuConfig(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return slices.Contains(strings.Split(string(options), "\n"), Lazily), err
}

// copyOf finds the copy whose first process has this PID; empty: it is none.
func (l Layout) copyOf(initPID int) (id string, lazy bool, err error) {
	ids, err := l.RestoreNotes()
	if err != nil {
		return "", false, err
	}
	for _, id := range ids {
		var n struct {
			Lazy bool `json:"lazy"`
			Init struct {
				PID int `json:"pid"`
			} `json:"init"`
		}
		if _, err := ReadNote(l.RestoreNote(id), &n); err != nil {
			return "", false, err
		}
		if n.Init.PID == initPID {
			return id, n.Lazy, nil
		}
	}
	return "", false, nil
}
