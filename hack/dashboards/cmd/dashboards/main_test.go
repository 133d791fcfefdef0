package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

const root = "../../../.."

// What is committed is what the program makes, and nothing else is beside it.
func TestFilesAreWhatIsMade(t *testing.T) {
	made, err := files(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range made {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what is made (%v): run make dashboards", name, err)
		}
	}
	for _, dir := range []string{"manifests/drover/files/dashboards/*", "docs/dashboards/*.svg"} {
		there, err := filepath.Glob(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range there {
			if rel, err := filepath.Rel(root, name); err != nil || made[rel] == nil {
				t.Errorf("%s is made by nobody (%v)", name, err)
			}
		}
	}
}
