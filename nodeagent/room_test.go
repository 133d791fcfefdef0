package nodeagent

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// dumper counts dumps.
type dumper struct {
	migrate.Checkpointer
	dumps  int
	during func() // may be nil
}

func (d *dumper) Dump(context.Context, migrate.Move) (migrate.Dumped, error) {
	d.dumps++
	if d.during != nil {
		d.during()
	}
	return migrate.Dumped{}, nil
}

// Nothing is frozen for images that do not fit, or of which that is not known.
func TestOnlyWhatFitsIsDumped(t *testing.T) {
	const mib = model.MiB
	full := errors.New("the target is full")
	for name, c := range map[string]struct {
		size, here model.Bytes
		files      model.Bytes
		filesErr   error
		limited    bool // the agent may have 50 MiB more
		sizeErr    error
		loadErr    error
		hereErr    error
		there      error
		says       string
	}{
		"fits":                {size: 100 * mib, here: 356 * mib}, // 256 of them stay free
		"fits with its files": {size: 60 * mib, files: 40 * mib, here: 356 * mib, limited: true},
		"not here with files": {size: 60 * mib, files: 41 * mib, here: 356 * mib, says: "do not fit on this node"},
		"files for the agent": {size: 1, files: 51 * mib, here: 1024 * mib, limited: true, says: "about 51 MiB of files"},
		"files are not known": {filesErr: errors.New("no such overlay"), here: 400 * mib, says: "no such overlay"},
		"not here":            {size: 101 * mib, here: 356 * mib, says: "do not fit on this node"},
		"not there":           {size: 1, here: 400 * mib, there: full, says: "the target is full"},
		"memory is missing":   {loadErr: errors.New("until its memory is loaded"), here: 400 * mib, says: "until its memory is loaded"},
		"size is not known":   {sizeErr: errors.New("no such container"), here: 400 * mib, says: "no such container"},
		"the vault is closed": {hereErr: errors.New("swap is on"), says: "swap is on"},
	} {
		d := &dumper{}
		s := spacious{Checkpointer: d,
			loaded: func(context.Context, migrate.Move) error { return c.loadErr },
			size:   func(migrate.Move) (model.Bytes, error) { return c.size, c.sizeErr },
			files:  func(context.Context, migrate.Move) (model.Bytes, error) { return c.files, c.filesErr },
			own: func() (model.Bytes, error) {
				if c.limited {
					return 50 * mib, nil
				}
				return math.MaxInt64, nil
			},
			here: func() (model.Bytes, error) { return c.here, c.hereErr },
			there: func(_ context.Context, _ migrate.Move, n model.Bytes) error {
				if n != c.size+c.files {
					t.Errorf("%s: asked for %d, want %d", name, n, c.size+c.files)
				}
				return c.there
			},
		}
		_, err := s.Dump(t.Context(), migrate.Move{Containers: []migrate.Container{{Name: "c", ID: "c1"}}})
		if c.says == "" && (err != nil || d.dumps != 1) {
			t.Errorf("%s: %d dumps, %v", name, d.dumps, err)
		}
		if c.says != "" && (d.dumps != 0 || err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "not frozen")) {
			t.Errorf("%s: %d dumps, %v; want none and %q", name, d.dumps, err, c.says)
		}
	}
}

// A copy of which memory is still to be loaded counts with all of it.
func TestMemoryIsLoadedBeforeItIsCounted(t *testing.T) {
	memory := model.MiB
	d := &dumper{}
	s := spacious{Checkpointer: d,
		loaded: func(context.Context, migrate.Move) error { memory = model.GiB; return nil },
		size:   func(migrate.Move) (model.Bytes, error) { return memory, nil },
		files:  func(context.Context, migrate.Move) (model.Bytes, error) { return 0, nil },
		own:    func() (model.Bytes, error) { return model.GiB, nil },
		here:   func() (model.Bytes, error) { return 512 * model.MiB, nil },
		there:  func(context.Context, migrate.Move, model.Bytes) error { return nil },
	}
	if _, err := s.Dump(t.Context(), migrate.Move{}); err == nil || d.dumps != 0 {
		t.Errorf("%d dumps, %v; want none: there is no room for what was loaded", d.dumps, err)
	}
}
