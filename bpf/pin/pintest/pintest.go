// Package pintest makes places for tests to pin in.
package pintest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FS mounts a BPF file system of the test's own, and gives its directory.
func FS(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a BPF file system (the test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
