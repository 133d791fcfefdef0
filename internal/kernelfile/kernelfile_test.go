package kernelfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadsAll(t *testing.T) {
	for name, want := range map[string]string{
		"empty": "", "small": "1\n", "as large as the buffer": strings.Repeat("a", firstSize), "larger": strings.Repeat("line\n", firstSize),
		"small again": "2\n",
	} {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(file); err != nil || got != want {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
	// One that its size, 0, says nothing of, and that comes in several pieces.
	want, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Read("/proc/kallsyms"); err != nil || !bytes.Equal([]byte(got), want) {
		t.Errorf("kallsyms: %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestErrorsAreThoseOfFiles(t *testing.T) {
	dir := t.TempDir()
	var path *fs.PathError
	if _, err := Read(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &path) || path.Op != "open" {
		t.Errorf("of no file: %v", err)
	}
	if _, err := Read(dir); !errors.As(err, &path) || path.Op != "read" || path.Path != dir {
		t.Errorf("of a directory: %v", err)
	}
}

// The runtime's poller would have taken each into its epoll instance.
func BenchmarkRead(b *testing.B) {
	const file = "/sys/fs/cgroup/cgroup.procs"
	read := map[string]func(string) error{
		"here": func(f string) error { _, err := Read(f); return err },
		"os":   func(f string) error { _, err := os.ReadFile(f); return err },
	}
	name := file
	if _, err := os.Stat(name); err != nil {
		name = "/sys/fs/cgroup/cpu/cpu.stat" // v1
	}
	for by, read := range read {
		b.Run(by, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := read(name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
