// Package cache holds what a lab's machines are made of, built once and kept outside the checkout:
// a Debian root file system, Kubernetes, and a pause image; and the layers of Debian packages that
// test images lie on. Entries are directories, keyed by
// version and content, built under a lock and renamed into place when complete.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report shows one line of progress.
type Report func(format string, args ...any)

// Dir is where the cache is: $DROVER_CACHE, or /var/cache/drover.
func Dir() string {
	if d := os.Getenv("DROVER_CACHE"); d != "" {
		return d
	}
	return "/var/cache/drover"
}

// entry is one directory of the cache.
type entry struct {
	kind  string
	key   string
	about string // how long it takes to build, for the user
	build func(ctx context.Context, dir string, report Report) error
}

func (e entry) path() string { return filepath.Join(Dir(), e.kind+"-"+e.key) }

func (e entry) exists() bool {
	_, err := os.Stat(e.path())
	return err == nil
}

// Layers makes sure that everything is in the cache, and gives the directories that, laid over
// each other, make the root file system of a lab's machine, the topmost first.
func Layers(ctx context.Context, report Report) ([]string, error) {
	source, err := sourceDir()
	if err != nil {
		return nil, err
	}
	entries, err := allEntries(source)
	if err != nil {
		return nil, err
	}
	var missing []entry
	var paths []string
	for _, e := range entries {
		paths = append(paths, e.path())
		if !e.exists() {
			missing = append(missing, e)
		}
	}
	for i, e := range missing {
		report("cache: %d of %d to build: %s (%s)", i+1, len(missing), e.kind, e.about)
		start := time.Now()
		if err := e.make(ctx, report); err != nil {
			return nil, fmt.Errorf("build %s for the cache: %w", e.kind, err)
		}
		report("cache: %s took %s; left: %s", e.kind, time.Since(start).Round(100*time.Millisecond), left(missing[i+1:]))
	}
	return paths, nil
}

func left(entries []entry) string {
	if len(entries) == 0 {
		return "nothing"
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.kind+" ("+e.about+")")
	}
	return strings.Join(names, ", ")
}

func allEntries(source string) ([]entry, error) {
	kube, err := kubeEntry(source)
	if err != nil {
		return nil, err
	}
	pause, err := pauseEntry(source)
	if err != nil {
		return nil, err
	}
	return []entry{pause, kube, rootfsEntry()}, nil
}

// have builds the entry if it is not there, and says so.
func (e entry) have(ctx context.Context, report Report) error {
	if e.exists() {
		return nil
	}
	report("cache: to build: %s (%s)", e.kind, e.about)
	start := time.Now()
	if err := e.make(ctx, report); err != nil {
		return fmt.Errorf("build %s for the cache: %w", e.kind, err)
	}
	report("cache: %s took %s", e.kind, time.Since(start).Round(100*time.Millisecond))
	return nil
}

// make builds the entry unless another process has done so meanwhile.
func (e entry) make(ctx context.Context, report Report) error {
	if err := os.MkdirAll(Dir(), 0o755); err != nil {
		return err
	}
	unlock, err := Lock(ctx, filepath.Join(Dir(), "."+e.kind+".lock"), func() {
		report("cache: another process is building %s, waiting for it", e.kind)
	})
	if err != nil {
		return err
	}
	defer unlock()
	if e.exists() {
		return nil
	}
	if err := removeLeftovers(e.kind); err != nil {
		return err
	}
	tmp := filepath.Join(Dir(), fmt.Sprintf(".%s.tmp-%d", e.kind, os.Getpid()))
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	if err := e.build(ctx, tmp, report); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return os.Rename(tmp, e.path())
}

// removeLeftovers removes what builders left that were killed; the caller holds the kind's lock.
func removeLeftovers(kind string) error {
	old, err := filepath.Glob(filepath.Join(Dir(), "."+kind+".tmp-*"))
	if err != nil {
		return err
	}
	for _, d := range old {
		if err := os.RemoveAll(d); err != nil {
			return fmt.Errorf("remove leftover %s: %w", d, err)
		}
	}
	return nil
}

// Lock takes the file's lock, calling busy once if it has to wait.
func Lock(ctx context.Context, path string, busy func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if first {
			busy()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// digest is a short hash of the parts.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// sources is the content of a folder's Go files, each after its name.
func sources(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %d\n%s", filepath.Base(path), len(content), content)
		return err
	})
	return b.String(), err
}
