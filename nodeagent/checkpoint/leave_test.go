package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

// TestHoldOfOneThatRan: a container that leaves its memory there, and was let run by somebody, is frozen again when
// CRIU's script calls again; but what its memory was is lost.
func TestHoldOfOneThatRan(t *testing.T) {
	h, err := cgroup.Own()
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.At(fmt.Sprintf("/drover-test-ran-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(g.String(), 0o755); err != nil {
		t.Skipf("cannot make a group here: %v", err)
	}
	_, init := sleeps(t)
	t.Cleanup(func() { // before it is waited for
		if err := errors.Join(g.Kill(context.Background()), os.Remove(g.String())); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(g.String(), "cgroup.procs"), []byte(fmt.Sprint(init.PID)), 0o600); err != nil {
		t.Fatal(err)
	}
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	dump := filepath.Join(l.Dumps(), "m-2")
	p := part{dump: dump, dir: filepath.Join(dump, partDir, "c")}
	p.Name = "c"
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := layout.WriteNote(filepath.Join(p.dir, noteFile), note{ContainerID: "c", Init: init, Leaves: true}); err != nil {
		t.Fatal(err)
	}
	d := New(Config{Layout: l, Groups: only{g}, Log: slog.New(slog.DiscardHandler)})
	calls := func() { // as the script does, until its stream breaks
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := d.Hold(ctx, runtimeapi.Hold{ImageDir: p.images(), InitPID: init.PID})
			ended <- err
		}()
		for held := false; !held; {
			d.mu.Lock()
			changed := d.changed
			held = d.holds[p.images()] != nil
			d.mu.Unlock()
			if held {
				break
			}
			select {
			case <-changed:
			case err := <-ended:
				t.Fatalf("it is not held: %v", err)
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	for range 2 {
		calls()
		if _, frozen, _, err := d.look(p); !frozen || err != nil {
			t.Errorf("held: got frozen=%v, %v", frozen, err)
		}
		if err := d.stands(p); err != nil {
			t.Errorf("held: %v", err)
		}
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	calls()
	if frozen, err := g.Frozen(); !frozen || err != nil {
		t.Errorf("after it ran: the group has frozen=%v, %v", frozen, err)
	}
	if _, frozen, _, err := d.look(p); frozen || err != nil {
		t.Errorf("after it ran: got frozen=%v, %v, want that it counts as one that runs", frozen, err)
	}
	if err := d.stands(p); !errors.Is(err, lazypages.ErrLost) {
		t.Errorf("after it ran: got %v, want that its memory is lost", err)
	}
}

// says is a freezer.
type says struct{ frozen, told bool }

func (s says) Frozen() (bool, error) { return s.frozen, nil }
func (s says) Told() (bool, error)   { return s.told, nil }

// TestStanding: only what was told to run has run. On cgroup v2 a group says that it is not frozen while tasks go
// over from CRIU's hold, when CRIU is killed, to the freezer's.
func TestStanding(t *testing.T) {
	for name, c := range map[string]struct {
		n          note
		f          says
		still, ran bool
	}{
		"frozen":                 {note{}, says{true, true}, true, false},
		"for a moment not":       {note{}, says{false, true}, false, false},
		"thawed":                 {note{}, says{false, false}, false, true},
		"ran, and is frozen now": {note{Ran: true}, says{true, true}, false, true},
	} {
		if still, ran, err := standing(c.n, c.f); still != c.still || ran != c.ran || err != nil {
			t.Errorf("%s: still %v, ran %v, %v; want %v, %v", name, still, ran, err, c.still, c.ran)
		}
	}
}

// TestUnreadable: what cannot be read of a process that stands is lost; all else may pass.
func TestUnreadable(t *testing.T) {
	read, stands := func(err error) error { return &fs.PathError{Op: "read", Path: "mem", Err: err} }, errors.New("not stopped again yet")
	for name, c := range map[string]struct {
		err  error
		lost bool
	}{
		"read":                   {finish(nil, nil), false},
		"poisoned":               {finish(read(unix.EIO), nil), true},
		"no such address":        {finish(read(unix.EFAULT), nil), true},
		"poisoned, or not there": {finish(read(unix.EIO), stands), false},
		"no room":                {finish(read(unix.ENOMEM), nil), false},
	} {
		if errors.Is(c.err, lazypages.ErrLost) != c.lost || (c.err == nil) != (name == "read") {
			t.Errorf("%s: %v, want lost %v", name, c.err, c.lost)
		}
	}
}

// TestMarkLacking: images of a move with PostCopy have a file by which older agents refuse them, also when they lack
// nothing: those would never say that the copy is loaded.
func TestMarkLacking(t *testing.T) {
	for name, c := range map[string]struct {
		postCopy, leaves bool
		there, empty     bool
	}{
		"lacking":       {true, true, true, true},
		"whole":         {true, false, true, false},
		"ordinary move": {false, false, false, false},
	} {
		dump := t.TempDir()
		p := part{dump: dump, dir: filepath.Join(dump, partDir, "c"), move: migrate.Move{PostCopy: c.postCopy}}
		p.Name = "c"
		err := errors.Join(os.MkdirAll(p.dir, 0o700), os.MkdirAll(p.images(), 0o700), layout.WriteNote(filepath.Join(p.dir, noteFile), note{Leaves: c.leaves}), markLacking(p))
		if err != nil {
			t.Fatal(err)
		}
		said, err := os.ReadFile(filepath.Join(p.images(), layout.LackingImage))
		if (err == nil) != c.there || (len(said) == 0) != c.empty && c.there {
			t.Errorf("%s: %q, %v", name, said, err)
		}
	}
}
