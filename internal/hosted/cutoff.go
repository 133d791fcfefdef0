package hosted

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

// CutOff kills all that the command in dir has started, itself too, and tells where each was.
// It does not wait: the process that runs the command then notes its end. To be used where
// nothing is left that losing the command in the middle could harm.
func CutOff(dir string) (where []string, err error) {
	p, err := noted(dir)
	if err != nil {
		return nil, err
	}
	below, err := p.Below()
	if err != nil {
		return nil, err
	}
	// If the process that runs the command was killed, a guarded one lives on without it.
	var guarded process.Process
	if _, err := layout.ReadNote(filepath.Join(dir, guardedFile), &guarded); err != nil {
		return nil, err
	}
	if guarded.Alive() && !slices.Contains(below, guarded) {
		below = append(below, guarded)
	}
	for _, q := range below {
		where = append(where, q.Where())
	}
	var errs []error
	for _, q := range below {
		errs = append(errs, q.Kill())
	}
	return where, errors.Join(errs...)
}
