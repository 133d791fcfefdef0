package durable

import (
	"os"
	"path/filepath"
	"testing"
)

// What is left of a WriteFile that was killed goes; what was written stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "a.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(dir, ".b.json.*") // as WriteFile does
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "a.json" {
		t.Errorf("left: %v, %v, want a.json alone", left, err)
	}
}
