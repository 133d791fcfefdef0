package runtimewrapper

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

func (b *bench) mustUndo(t *testing.T, e *early) {
	t.Helper()
	if err := b.undo(e, b.in, layout.Container{ID: "abc"}); err != nil {
		t.Error(err)
	}
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
	if note, err := b.layout.ReadContainer("abc"); err != nil || note == nil || !slices.Equal(note.Begun, []string{"/run/x"}) {
		t.Errorf("noted: %+v, %v; want the mount's place", note, err)
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
		"it reads nothing":  {restore: "exit 0\n", deleted: true},
		"it fails":          {restore: "exit 1\n", deleted: true},
		"there is no place": {change: func(b *bench) { os.Remove(b.layout.Staged("")) }},
		"there is none":     {change: func(b *bench) { os.Remove(b.runc) }},
		// Each runc would connect to it.
		"it has a terminal":  {restore: "exec cat $images/descriptors.json\n", change: func(b *bench) { b.in.consoleSocket = "/console" }},
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
		b.mustUndo(t, e)
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
		b.mustUndo(t, e)
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
		b.mustUndo(t, e)
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

// TestEarlyIsBounded: the agent hears of a create also when a runtime never comes to the images; and where
// that does not end, nothing else touches its container.
func TestEarlyIsBounded(t *testing.T) {
	t.Run("it never reads", func(t *testing.T) {
		t.Parallel()
		b, _ := earlyBench(t, "exec sleep 600\n")
		if e, err := b.begin(t.Context(), t); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStuck) || e != nil {
			t.Errorf("begun: %v, %v", e, err)
		}
		b.nothingIsStaged(t)
	})
	t.Run("it does not end", func(t *testing.T) {
		t.Parallel()
		b, work := earlyBench(t, "echo > $work/restored\n")
		runc := exec.Command("true")
		if err := runc.Start(); err != nil {
			t.Fatal(err)
		}
		defer runc.Wait()
		spec, err := readBundle(b.in.bundle)
		if err != nil {
			t.Fatal(err)
		}
		e := &early{images: b.layout.Staged("abc"), work: b.layout.Work("abc"), runc: runc, ended: make(chan struct{})}
		if _, err := b.restore(b.in, spec, layout.Container{ID: "abc"}, filepath.Join(work, "nowhere"), e); !errors.Is(err, errStuck) {
			t.Errorf("restored beside another runtime: %v", err)
		}
		for _, not := range []string{"restored", "deleted"} {
			if _, err := os.Lstat(filepath.Join(work, not)); err == nil {
				t.Errorf("%s beside another runtime", not)
			}
		}
	})
}

// TestEarlyIsUndone: when the restore fails before its images are given to the runtime that has begun,
// nothing of that is left.
func TestEarlyIsUndone(t *testing.T) {
	b, work := earlyBench(t, "exec cat $images/descriptors.json\n")
	e, err := b.begin(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	options := filepath.Dir(b.layout.CriuConfig("abc"))
	if err := os.Remove(options); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(options, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := readBundle(b.in.bundle)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.restore(b.in, spec, layout.Container{ID: "abc"}, complete(t), e); err == nil {
		t.Error("it was restored without options")
	}
	if _, err := os.Stat(filepath.Join(work, "deleted")); err != nil {
		t.Errorf("what it has made is left: %v", err)
	}
	b.nothingIsStaged(t)
}

// TestOptionsOfARestore: what CRIU is told for the time of a restore is not there for a later dump.
func TestOptionsOfARestore(t *testing.T) {
	for name, code := range map[string]string{"good": "0", "bad": "1"} {
		t.Run(name, func(t *testing.T) {
			b, work := earlyBench(t, "")
			options := b.layout.CriuConfig("abc")
			script := "#!/bin/sh\ntest \"$1$3\" = --rootdelete && exit\ncp " + options + " " + work + "/during\nexit " + code + "\n"
			if err := os.WriteFile(b.runc, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			lazy := b.layout.LazySocket("abc")
			if err := os.MkdirAll(filepath.Dir(lazy), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(lazy, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			spec, err := readBundle(b.in.bundle)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.restore(b.in, spec, layout.Container{ID: "abc"}, work, nil); (err == nil) != (code == "0") {
				t.Errorf("restore: %v", err)
			}
			for file, want := range map[string]bool{filepath.Join(work, "during"): true, options: false} {
				got, err := os.ReadFile(file)
				if lazily := strings.Contains(string(got), layout.Lazily); err != nil || lazily != want {
					t.Errorf("%s: lazily %v, %v; want %v", file, lazily, err, want)
				}
			}
		})
	}
}

// TestRestoreOfWhatLacks: images that lack memory are not restored where nothing loads it; those that may, but do not, are.
func TestRestoreOfWhatLacks(t *testing.T) {
	for says, want := range map[string]bool{"": false, "nothing\n": true} {
		b, work := earlyBench(t, "")
		if err := os.WriteFile(b.runc, []byte("#!/bin/sh\ntest \"$1$3\" = --rootdelete && exit\ntouch "+work+"/restored\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		images := t.TempDir()
		if err := os.WriteFile(filepath.Join(images, layout.LackingImage), []byte(says), 0o600); err != nil {
			t.Fatal(err)
		}
		spec, err := readBundle(b.in.bundle)
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.restore(b.in, spec, layout.Container{ID: "abc"}, images, nil)
		_, there := os.Stat(filepath.Join(work, "restored"))
		if (there == nil) != want || (err == nil) != want {
			t.Errorf("%q: restored %v, %v; want %v", says, there == nil, err, want)
		}
	}
}
