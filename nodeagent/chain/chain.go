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
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/layout"
)

// Join makes complete images of the directory of each container below dir, with what the rounds
// beside it hold (layout.RoundDir), and removes those. Where there are none nothing is touched. Before it
// writes it calls aside with how many bytes the images will take meanwhile beside what is there; that fails,
// and nothing was touched, where there is no room for them. After any other error the images must not
// be used.
func Join(dir string, aside func(bytes uint64) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("join rounds: %w", err)
	}
	defer root.Close()
	all, err := rounds(root)
	if err != nil || len(all) == 0 {
		return wrapped(dir, err)
	}
	p := plan{root: root, spans: mostSpans, files: map[string]bool{}}
	names := slices.Sorted(maps.Keys(all))
	for _, name := range names {
		if err := p.add(name, all[name]); err != nil {
			return fmt.Errorf("join %d rounds of %s: %w", all[name], filepath.Join(dir, name), err)
		}
	}
	if err := aside(p.growth); err != nil {
		return fmt.Errorf("join rounds in %s, for which %d bytes more are needed meanwhile: %w", dir, p.growth, err)
	}
	for _, m := range p.memories {
		if err := m.write(root); err != nil {
			return wrapped(dir, err)
		}
	}
	for _, name := range names {
		if err := remove(root, name, all[name]); err != nil {
			return wrapped(dir, err)
		}
		if err := durable.SyncDir(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return durable.SyncDir(dir)
}

func wrapped(dir string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("join rounds in %s: %w", dir, err)
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

func remove(root *os.Root, name string, rounds int) error {
	for n := range rounds {
		if err := root.RemoveAll(layout.RoundDir(name, n+1)); err != nil {
			return err
		}
	}
	return nil
}

// mostSpans bounds what page maps say in all: some 200 MiB of this agent's memory at most. Memory of 16 GiB
// of which every tenth page was written to after each of two rounds, each of them alone, is within it.
const mostSpans = 2 << 20

// plan is what will be written.
type plan struct {
	root *os.Root
	// spans are how many more may be read; files are the files of pages that page maps have named.
	spans    int
	files    map[string]bool
	memories []*memory
	// growth is how many bytes files will grow by.
	growth uint64
}

// add plans for a container with so many rounds.
func (p *plan) add(name string, rounds int) error {
	dirs := make([]string, 0, rounds+1)
	for n := range rounds {
		dirs = append(dirs, layout.RoundDir(name, n+1))
	}
	dirs = append(dirs, name)
	entries, err := fs.ReadDir(p.root.FS(), name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), mapPrefix) {
			continue
		}
		if err := p.memory(e.Name(), dirs); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}
