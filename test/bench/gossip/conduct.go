package gossip

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// conductor has pieces measured, some at once, and keeps what was found: a run that was interrupted
// goes on where it was. What other code has found does not count.
type conductor struct {
	dir     string // of the findings, a file each
	code    string
	jobs    int     // at once
	memory  float64 // GB, for all of them
	measure func(context.Context, piece) (finding, error)
	log     io.Writer
}

// codeDigest tells one state of the code from another: it is the running program's.
func codeDigest() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(self)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", self, err)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

func (c *conductor) file(p piece) string { return filepath.Join(c.dir, p.String()+".json") }

// kept gives what this code has found of a piece before.
func (c *conductor) kept(p piece) (f finding, is bool, err error) {
	b, err := os.ReadFile(c.file(p))
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	if err != nil {
		return f, false, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, false, fmt.Errorf("read %s: %w; without this file it is measured again", c.file(p), err)
	}
	return f, f.Code == c.code && f.Piece == p, nil
}

// keep writes a finding, whole or not at all.
func (c *conductor) keep(f finding) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	half := c.file(f.Piece) + ".half"
	if err := os.WriteFile(half, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(half, c.file(f.Piece))
}

// run gives the findings of all pieces, in their order. The longest are begun first; one that fails
// keeps no other from being measured.
func (c *conductor) run(ctx context.Context, all []piece) ([]finding, error) {
	found := make([]finding, len(all))
	var todo []int
	for i, p := range all {
		f, is, err := c.kept(p)
		if err != nil {
			return nil, err
		}
		if found[i] = f; !is {
			todo = append(todo, i)
		}
	}
	fmt.Fprintf(c.log, "%s  code %s: %d of %d pieces were measured before\n", wall(), c.code, len(all)-len(todo), len(all))
	slices.SortStableFunc(todo, func(i, j int) int { return cmp.Compare(all[j].work(), all[i].work()) })
	begun, left := time.Now(), len(todo)

	var mu sync.Mutex
	free, running, memory := sync.NewCond(&mu), 0, 0.0
	var errs []error
	mu.Lock()
	defer mu.Unlock()
	for len(todo) > 0 && ctx.Err() == nil {
		// The first that fits, in any case when nothing else runs.
		next := slices.IndexFunc(todo, func(i int) bool {
			return running == 0 || running < c.jobs && memory+all[i].gigabytes() <= c.memory
		})
		if next < 0 {
			free.Wait()
			continue
		}
		i := todo[next]
		todo = slices.Delete(todo, next, next+1)
		p := all[i]
		running, memory = running+1, memory+p.gigabytes()
		go func() {
			f, err := c.measure(ctx, p)
			if err == nil {
				f.Code, f.Piece = c.code, p
				err = c.keep(f)
			}
			mu.Lock()
			defer mu.Unlock()
			defer free.Broadcast()
			running, memory, left = running-1, memory-p.gigabytes(), left-1
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", p, err))
				fmt.Fprintf(c.log, "%s  %s failed: %v\n", wall(), p, err)
				return
			}
			found[i] = f
			fmt.Fprintf(c.log, "%s  %s is done, in %.0f s, %.0f s of a processor, %.1f GB; %d pieces left, %.0f min since the start\n",
				wall(), p, f.Took, f.Processors, f.Memory, left, time.Since(begun).Minutes())
		}()
	}
	for running > 0 {
		free.Wait()
	}
	return found, errors.Join(append(errs, ctx.Err())...)
}

// all gives what this code has found of whatever piece, by their names.
func (c *conductor) all() ([]finding, error) {
	files, err := filepath.Glob(filepath.Join(c.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []finding
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var f finding
		if err := json.Unmarshal(b, &f); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if f.Code == c.code {
			all = append(all, f)
		}
	}
	return all, nil
}
