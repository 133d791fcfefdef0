// Command docsplots draws what the parameters of the ranking do, by the ranking itself, and
// writes the diagrams with their data.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("out", "docs/placement", "directory to write to")
	flag.Parse()
	if err := write(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "docsplots:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range figures() {
		svg, data, err := f.draw()
		if err != nil {
			return fmt.Errorf("draw %s: %w", f.Name, err)
		}
		for ext, b := range map[string][]byte{".svg": svg, ".json": data} {
			if err := os.WriteFile(filepath.Join(dir, f.Name+ext), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
