package checkpoint

import (
	"context"
	"os"
	"path/filepath"

	"github.com/drover-project/drover/internal/hosted"
)

// Leftovers names the dumps that nothing works on and whose container has ended: of a move
// whose record is gone nobody else will remove them. A container that still lives is held.
func (d *Dumps) Leftovers() ([]string, error) {
	entries, err := os.ReadDir(d.cfg.Layout.Dumps())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if d.over(filepath.Join(d.cfg.Layout.Dumps(), e.Name())) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// over tells that no container of the dump lives and nothing works on it. What cannot be read
// may be held.
func (d *Dumps) over(dump string) bool {
	parts, err := partsOf(dump)
	if err != nil {
		return false
	}
	for _, dir := range parts {
		n, err := readNote(dir)
		if err != nil || n != nil && n.Init.Alive() {
			return false
		}
		if running, err := working(dir); err != nil || running {
			return false
		}
	}
	return true
}

// working tells whether anything that was started for a part still runs.
func working(dir string) (bool, error) {
	for _, run := range runs(dir) {
		if running, err := hosted.Running(run); err != nil || running {
			return running, err
		}
	}
	return false, nil
}

// Forget removes a dump that Leftovers has named, by that name.
func (d *Dumps) Forget(_ context.Context, name string) error {
	root, err := os.OpenRoot(d.cfg.Layout.Dumps())
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(name)
}
