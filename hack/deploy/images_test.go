package deploy

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Test binaries of one checkout run side by side, and each builds the images.
func TestBuildsSideBySide(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":        "module example.com/x\n",
		"cmd/x/main.go": "package main\n\nfunc main() {}\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const builders = 8
	errs := make(chan error)
	for range builders {
		go func() {
			built, err := Build(t.Context(), root, io.Discard, []Image{{Name: "x", Programs: []string{"cmd/x"}}})
			for _, tar := range built.Tars {
				if _, missing := os.Stat(tar); err == nil {
					err = missing
				}
			}
			errs <- err
		}()
	}
	for range builders {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
