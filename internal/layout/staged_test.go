package layout

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What is staged for a container lasts as long as anything is known of that.
func TestSweepStaged(t *testing.T) {
	dir := t.TempDir()
	l := Layout{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}
	if err := l.SweepStaged(); err != nil {
		t.Errorf("before there is anything: %v", err)
	}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"waits", "restored", "unclear", "gone", "no container"} {
		if err := os.MkdirAll(filepath.Join(l.Staged(id), "images"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.WriteContainer(Container{ID: "waits"}); err != nil {
		t.Fatal(err)
	}
	if err := WriteNote(l.RestoreNote("restored"), struct{}{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.containers(), "unclear.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.SweepStaged(); err == nil {
		t.Error("a note that cannot be read is not told")
	}
	entries, err := os.ReadDir(l.Staged(""))
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"restored", "unclear", "waits"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left: %q, %v; want %q", left, err, want)
	}
}
