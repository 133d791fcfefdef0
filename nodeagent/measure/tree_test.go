package measure

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	uidA = "0a1b2c3d-1111-4222-8333-444455556666"
	uidB = "ffffeeee-1111-4222-8333-444455556666"
	// A static pod has a hash for a UID.
	uidStatic = "5d41402abc4b2a76b9719d911017c592"
)

var (
	idA = strings.Repeat("a", 64)
	idB = strings.Repeat("b", 64)
	idS = strings.Repeat("5", 64)
)

// tree is a made-up /sys/fs/cgroup or /proc: a file's path to its content.
type tree map[string]string

// write makes the files below a new directory.
func (files tree) write(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	files.writeTo(t, root)
	return root
}

func (files tree) writeTo(t *testing.T, root string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(file, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// open opens a made-up /sys/fs/cgroup.
func (files tree) open(t *testing.T) Cgroups {
	t.Helper()
	c, err := OpenCgroups(files.write(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func inode(t *testing.T, dir string) uint64 {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(dir, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}
