package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What was found of a trial is kept for the very same trial alone.
func TestKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "lab.json")
	if kept, err := read(file); err != nil || len(kept) != 0 {
		t.Fatalf("of no file: %v, %v", kept, err)
	}
	one := found{Trial: trials[1].String(), Rounds: [][]time.Duration{{3, 4}, {5}}, Trip: [][]time.Duration{{0, 9}, {9, 0}}, Cost: 7}
	if err := write(file, map[string]found{one.Trial: one, "one of an earlier version": {}}); err != nil {
		t.Fatal(err)
	}
	kept, err := read(file)
	if want := map[string]found{one.Trial: one}; err != nil || !reflect.DeepEqual(kept, want) {
		t.Errorf("%v, %v, want %v", kept, err, want)
	}
	other := trials[1]
	other.demand++
	if _, known := kept[other.String()]; known {
		t.Errorf("%q is taken for %q", other, trials[1])
	}
	if err := os.WriteFile(file, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(file); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("of half a file: %v", err)
	}
}

func TestBetween(t *testing.T) {
	if low, high := between([][]time.Duration{{5, 6, 7}, {1, 2, 9}, {4, 4, 4}}, .5); low != 2 || high != 6 {
		t.Errorf("medians between %d and %d, want 2 and 6", low, high)
	}
}
