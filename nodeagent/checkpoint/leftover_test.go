package checkpoint

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

// A dump of which one container still lives is held, and is nobody's to remove.
func TestLeftovers(t *testing.T) {
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	alive, err := process.Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ended := process.Process{PID: alive.PID, Start: alive.Start + 1}
	for dump, containers := range map[string][]process.Process{
		"held-2": {ended, alive}, "over-2": {ended, ended}, "begun-2": nil,
	} {
		for i, init := range containers {
			dir := filepath.Join(l.Dumps(), dump, partDir, string(rune('a'+i)))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := layout.WriteNote(filepath.Join(dir, noteFile), note{ContainerID: "c", Init: init}); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(l.Dumps(), dump, imageDir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	names, err := New(Config{Layout: l}).Leftovers()
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"begun-2", "over-2"}) {
		t.Errorf("got %v, %v", names, err)
	}
}
