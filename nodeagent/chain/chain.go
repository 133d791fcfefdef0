// Package chain makes one dump of several. Where the kernel tracks which pages are written to, CRIU
// writes a container's memory in rounds while it runs, and in the frozen time what has changed
// since: of the rest it says that it is in the parent. The target joins them when all of them are
// there and verified. What it inspects and restores is then a dump like any other, which leads to no
// other directory.
//
// The pages stay in the file that has most of them. What has to move, because memory before it came
// or went, moves within that file, and only what other rounds have is copied.
//
// The images are another node's word: what they say is held against the sizes of the files that
// came, and nothing is opened but below the move's own directory.
package chain

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/layout"
)

// Join makes complete images of the directory of each container below dir, with what the rounds
// beside it hold (layout.RoundDir), and removes those. Where there are none nothing is touched. After an
// error the images must not be used.
func Join(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("join rounds: %w", err)
	}
	defer root.Close()
	all, err := rounds(root)
	if err != nil {
		return fmt.Errorf("join rounds in %s: %w", dir, err)
	}
	for name, n := range all {
		if err := join(root, name, n); err != nil {
			return fmt.Errorf("join %d rounds of %s: %w", n, filepath.Join(dir, name), err)
		}
		if err := durable.SyncDir(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		return durable.SyncDir(dir)
	}
	return nil
}

// rounds tells how many each container has. They are numbered from 1 on.
func rounds(root *os.Root) (map[string]int, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	last, count := map[string]int{}, map[string]int{}
	for _, e := range entries {
		if name, n, ok := layout.Round(e.Name()); ok {
			last[name] = max(last[name], n)
			count[name]++
		}
	}
	for name, n := range count {
		if n != last[name] {
			return nil, fmt.Errorf("%d rounds of %q, the last with number %d: want all up to it", n, name, last[name])
		}
	}
	return count, nil
}

func join(root *os.Root, name string, rounds int) error {
	dirs := make([]string, 0, rounds+1)
	for n := range rounds {
		dirs = append(dirs, layout.RoundDir(name, n+1))
	}
	dirs = append(dirs, name)
	entries, err := fs.ReadDir(root.FS(), name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), mapPrefix) {
			continue
		}
		m := memory{root: root, name: e.Name(), dirs: dirs, layers: make([]*layer, len(dirs))}
		if err := m.join(); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	for _, d := range dirs[:rounds] {
		if err := root.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}
