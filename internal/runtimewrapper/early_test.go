package runtimewrapper

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
)

// earlyBench is a bench with a runtime that is a script; $images and $logs are the directories that its
// restore is given, $work one of the test's.
func earlyBench(t *testing.T, restore string) (b *bench, work string) {
	t.Helper()
	b, work = newBench(t, podOf(nil)), t.TempDir()
	b.group = func(string) (cgroup.Group, error) { return cgroup.Group{}, nil }
	b.runc = filepath.Join(work, "runc")
	script := `#!/bin/sh
work=` + work + `
while [ $# -gt 0 ]; do
	case "$1" in
	delete) echo deleted >> $work/deleted; exit;;
	--image-path) images=$2;;
	--work-path) logs=$2;;
	esac
	shift
done
` + restore
	if err := os.WriteFile(b.runc, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(b.layout.Staged(""), 0o700); err != nil {
		t.Fatal(err)
	}
	return b, work
}

// begin begins a restore of the bench's container.
func (b *bench) begin(ctx context.Context, t *testing.T) (*early, error) {
	t.Helper()
	spec, err := readBundle(b.in.bundle)
	if err != nil {
		t.Fatal(err)
	}
	return b.beginEarly(ctx, b.in, layout.Container{ID: "abc"}, spec)
}

func (b *bench) nothingIsStaged(t *testing.T) {
	t.Helper()
	for _, left := range []string{b.layout.Staged("abc"), b.layout.Work("abc")} {
		if _, err := os.Lstat(left); !os.IsNotExist(err) {
			t.Errorf("%s is left (%v)", left, err)
		}
	}
}

func complete(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{descriptors: "[]", "inventory.img": "i", "pages-1.img": "p"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEarly: a runtime that has begun finds all images when it has read the first.
func TestEarly(t *testing.T) {
	b, work := earlyBench(t, "ls $images > $work/before; cat $images/descriptors.json > $work/first; touch $logs/restore.log; cat $images/*.img > $work/rest; exit 7\n")
	e, err := b.begin(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	began, err := e.goOn(complete(t))
	if !began || err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("began: %v, %v; want its own end", began, err)
	}
	for file, want := range map[string]string{"before": descriptors + "\n", "first": "[]", "rest": "ip"} {
		if got, err := os.ReadFile(filepath.Join(work, file)); string(got) != want {
			t.Errorf("%s: %q, %v; want %q", file, got, err, want)
		}
	}
	if _, err := os.Lstat(b.layout.Staged("abc")); !os.IsNotExist(err) {
		t.Errorf("second names of images are left (%v)", err)
	}
}

// TestEarlyIsLate: a runtime that ends without having read an image, or cannot begin, has restored
// nothing, and what it has made is taken away.
func TestEarlyIsLate(t *testing.T) {
	for name, c := range map[string]struct {
		restore string
		change  func(b *bench)
		deleted bool
	}{
		"it reads nothing":   {restore: "exit 0\n", deleted: true},
		"it fails":           {restore: "exit 1\n", deleted: true},
		"there is no place":  {change: func(b *bench) { os.Remove(b.layout.Staged("")) }},
		"there is none":      {change: func(b *bench) { os.Remove(b.runc) }},
		"the bundle is gone": {change: func(b *bench) { os.Remove(filepath.Join(b.in.bundle, "config.json")) }},
	} {
		t.Run(name, func(t *testing.T) {
			b, work := earlyBench(t, c.restore)
			spec, err := readBundle(b.in.bundle)
			if err != nil {
				t.Fatal(err)
			}
			spec.changed = true
			if c.change != nil {
				c.change(b)
			}
			e, err := b.beginEarly(t.Context(), b.in, layout.Container{ID: "abc"}, spec)
			if err == nil || e != nil {
				t.Fatal("it was begun")
			}
			if began, err := e.goOn(complete(t)); began || err != nil {
				t.Errorf("began: %v, %v", began, err)
			}
			if _, err := os.Stat(filepath.Join(work, "deleted")); (err == nil) != c.deleted {
				t.Errorf("what it has made was removed: %v, want %v", err == nil, c.deleted)
			}
			b.nothingIsStaged(t)
		})
	}
}

// TestEarlyGoes: a runtime that is gone, or whose images cannot be given their second names, does not keep
// another from restoring; and nothing is left of one that is given up.
func TestEarlyGoes(t *testing.T) {
	const waits = "exec cat $images/descriptors.json\n"
	t.Run("killed", func(t *testing.T) {
		b, _ := earlyBench(t, waits)
		e, err := b.begin(t.Context(), t)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.runc.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-e.ended
		if began, err := e.goOn(complete(t)); began || err != nil {
			t.Errorf("began: %v, %v", began, err)
		}
		b.undo(e, b.in, layout.Container{ID: "abc"})
		b.nothingIsStaged(t)
	})
	t.Run("killed before CRIU", func(t *testing.T) {
		b, _ := earlyBench(t, "cat $images/descriptors.json\nkill -9 $$\n")
		e, err := b.begin(t.Context(), t)
		if err != nil {
			t.Fatal(err)
		}
		if began, err := e.goOn(complete(t)); began || err != nil {
			t.Errorf("began: %v, %v", began, err)
		}
		b.undo(e, b.in, layout.Container{ID: "abc"})
		b.nothingIsStaged(t)
	})
	t.Run("no images", func(t *testing.T) {
		b, _ := earlyBench(t, waits)
		e, err := b.begin(t.Context(), t)
		if err != nil {
			t.Fatal(err)
		}
		if began, err := e.goOn(filepath.Join(t.TempDir(), "nowhere")); began || err != nil {
			t.Errorf("began: %v, %v", began, err)
		}
		b.undo(e, b.in, layout.Container{ID: "abc"})
		b.nothingIsStaged(t)
	})
	t.Run("it never reads", func(t *testing.T) {
		b, work := earlyBench(t, "echo > $work/fifo\nexec sleep 600\n")
		if err := unix.Mkfifo(filepath.Join(work, "fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, _ = os.ReadFile(filepath.Join(work, "fifo"))
			cancel()
		}()
		if e, err := b.begin(ctx, t); err == nil || e != nil {
			t.Error("it was begun")
		}
		b.nothingIsStaged(t)
	})
}
