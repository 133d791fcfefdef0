package runtimewrapper

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-project/drover/internal/layout"
)

// TestHookOfOthers: a dump or restore that is not Drover's waits for nobody, also when no
// agent is there.
func TestHookOfOthers(t *testing.T) {
	b := newBench(t, nil)
	images := filepath.Join(t.TempDir(), "checkpoint", "images")
	if err := os.MkdirAll(images, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, stage := range []string{"pre-dump", "post-dump", "pre-resume"} {
		t.Setenv("CRTOOLS_SCRIPT_ACTION", stage)
		t.Setenv("CRTOOLS_INIT_PID", "1")
		t.Setenv("CRTOOLS_IMAGE_DIR", images)
		if code := hook(b.layout); code != 0 {
			t.Errorf("%s: exit code %d", stage, code)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(images), layout.FrozenFile)); err == nil {
		t.Error("the script left a file beside another's images")
	}
}

// TestHookWithoutImages: a dump that was undone fails; only pre-resume waits for the agent.
func TestHookWithoutImages(t *testing.T) {
	b := newBench(t, nil)
	t.Setenv("CRTOOLS_INIT_PID", "1")
	t.Setenv("CRTOOLS_IMAGE_DIR", filepath.Join(b.layout.Dumps(), "gone", "images"))
	for stage, want := range map[string]int{"pre-dump": 1, "post-dump": 1} {
		t.Setenv("CRTOOLS_SCRIPT_ACTION", stage)
		if code := hook(b.layout); code != want {
			t.Errorf("%s: exit code %d, want %d", stage, code, want)
		}
	}
}

// TestHookWhileLoading: nobody dumps a copy of which memory is still to be loaded.
func TestHookWhileLoading(t *testing.T) {
	b := newBench(t, nil)
	images := filepath.Join(t.TempDir(), "checkpoint", "images")
	if err := os.MkdirAll(images, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CRTOOLS_SCRIPT_ACTION", "pre-dump")
	t.Setenv("CRTOOLS_IMAGE_DIR", images)
	note := map[string]any{"id": "c1", "lazy": true, "init": map[string]int{"pid": 42}}
	if err := layout.WriteNote(b.layout.RestoreNote("c1"), note); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(b.layout.Loader("c1"), 0o700); err != nil {
		t.Fatal(err)
	}
	dump := func(pid string, want int, when string) {
		t.Helper()
		t.Setenv("CRTOOLS_INIT_PID", pid)
		if code := hook(b.layout); code != want {
			t.Errorf("%s: exit code %d, want %d", when, code, want)
		}
	}
	dump("42", 1, "while it is loaded")
	dump("43", 0, "another container")
	if err := os.RemoveAll(b.layout.Loader("c1")); err != nil {
		t.Fatal(err)
	}
	dump("42", 0, "when it is loaded")
}

// TestHookWithOptionsOfARestore: nobody dumps a copy with options that leave memory to a page server.
func TestHookWithOptionsOfARestore(t *testing.T) {
	b := newBench(t, nil)
	images := filepath.Join(t.TempDir(), "checkpoint", "images")
	if err := os.MkdirAll(images, 0o700); err != nil {
		t.Fatal(err)
	}
	note := map[string]any{"id": "c1", "lazy": true, "init": map[string]int{"pid": 42}}
	if err := layout.WriteNote(b.layout.RestoreNote("c1"), note); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CRTOOLS_SCRIPT_ACTION", "pre-dump")
	t.Setenv("CRTOOLS_IMAGE_DIR", images)
	t.Setenv("CRTOOLS_INIT_PID", "42")
	for want, more := range [][]string{nil, {layout.Lazily}} {
		if err := b.layout.WriteCriuConfig("c1", "/hook", layout.Close, more...); err != nil {
			t.Fatal(err)
		}
		if code := hook(b.layout); code != want {
			t.Errorf("with the options %q more: exit code %d, want %d", more, code, want)
		}
	}
}
