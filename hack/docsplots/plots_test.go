package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What is in docs is what the program makes, and nothing else is there.
func TestPlotsAreWhatTheRankingGives(t *testing.T) {
	const dir = "../../docs/placement"
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	made := map[string][]byte{}
	for _, f := range figures() {
		svg, data, err := f.draw()
		if err != nil {
			t.Fatal(err)
		}
		made[f.Name+".svg"], made[f.Name+".json"] = svg, data
	}
	if len(files) != len(made) {
		t.Errorf("%d files in docs/placement, the program makes %d", len(files), len(made))
	}
	for name, want := range made {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/placement/%s is not what the program makes (%v): run make docs-plots", name, err)
		}
	}
}

func TestWriteIsComplete(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2*len(figures()) {
		t.Errorf("%d files, %v", len(files), err)
	}
}
