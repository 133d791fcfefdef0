package filetree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A directory is read no further than the limit: who owns it says how many names are in it.
func TestManyNames(t *testing.T) {
	dir := t.TempDir()
	const names = 1000
	for i := range names {
		try(t, os.Symlink("x", filepath.Join(dir, fmt.Sprint("link", i))))
	}
	allocations := testing.AllocsPerRun(1, func() {
		if _, err := Survey(t.Context(), dir, Options{Limits: Limits{Entries: 10}}); !errors.Is(err, ErrUnfit) {
			t.Errorf("%v", err)
		}
	})
	if allocations > names {
		t.Errorf("%v allocations for %d names, of which 10 are wanted", allocations, names)
	}
}

// What would be too much for an index is found while a tree is looked at, before a container is stopped for
// it and before all of it is in memory.
func TestLargeIndex(t *testing.T) {
	dir := t.TempDir()
	try(t, os.Symlink(strings.Repeat("x", maxPath), filepath.Join(dir, "l")))
	for room, want := range map[int]error{2 * maxPath: nil, maxPath: ErrUnfit} {
		w := walker{ctx: t.Context(), Options: Options{Limits: roomy}, size: maxIndex - room}
		if err := w.walk(dir); !errors.Is(err, want) {
			t.Errorf("with %d bytes left for a link of %d: %v", room, maxPath, err)
		}
	}
}

// An index of empty attributes is small, and they are not once they are decoded.
func TestManyAttributes(t *testing.T) {
	x := &Index{Entries: []Entry{root()}}
	limits := Limits{Bytes: 1 << 20, Entries: 1000}
	for i := range limits.Entries - 1 {
		x.Entries = append(x.Entries, file(fmt.Sprint(i)))
		x.Entries[i+1].Xattrs = make([]Xattr, maxXattrs)
	}
	b, err := x.Encode()
	try(t, err)
	allocations := testing.AllocsPerRun(1, func() {
		if _, err := Decode(bytes.NewReader(b), limits); !errors.Is(err, ErrUnfit) {
			t.Errorf("%v", err)
		}
	})
	if most := float64(limits.Entries); allocations > most {
		t.Errorf("%v allocations for a refusal, want %v at most", allocations, most)
	}
}
