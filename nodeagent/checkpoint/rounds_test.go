package checkpoint

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

func TestUnmarked(t *testing.T) {
	for name, c := range map[string]struct{ link, maps, says string }{
		"nothing":       {"/data/clear_refs.log", "00400000-00401000 r-xp 00000000 08:01 1 /bin/x\n", ""},
		"tracks itself": {"/proc/7/clear_refs", "", "has /proc/7/clear_refs open"},
		"its thread":    {"/proc/7/task/8/clear_refs", "", "clear_refs open"},
		"AIO":           {"/dev/null", "7f00-7f01 rw-s 00000000 00:10 9 /[aio] (deleted)\n", "asynchronous I/O"},
	} {
		proc := t.TempDir()
		if err := os.Mkdir(filepath.Join(proc, "fd"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(c.link, filepath.Join(proc, "fd", "3")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, "maps"), []byte(c.maps), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := unmarked(proc); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, want %q", name, got, c.says)
		}
	}
	if got := unmarked(filepath.Join(t.TempDir(), "gone")); got != "" {
		t.Errorf("a process that has ended: %q", got)
	}
}

// A process that is not below a container's first was brought in; one that has ended since it was listed, as
// programs do that start others all the time, was not.
func TestBroughtIn(t *testing.T) {
	init, child := sleeps(t)
	other, _ := sleeps(t)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	if err := allMarked("c", init, []int{init.PID, child.PID, ended.Process.Pid}); err != nil {
		t.Errorf("its own: %v", err)
	}
	if err := allMarked("c", init, []int{init.PID, other.PID}); !errors.Is(err, ErrUntracked) {
		t.Errorf("another one: %v", err)
	}
}

// Of a process that cannot be looked at nothing is known: it may track itself.
func TestUnmarkedIsNotKnown(t *testing.T) {
	for name, make := range map[string]func(proc string) error{
		"its files":        func(proc string) error { return os.WriteFile(filepath.Join(proc, "fd"), nil, 0o600) },
		"one of its files": func(proc string) error { return os.MkdirAll(filepath.Join(proc, "fd", "3"), 0o700) },
		"its mappings": func(proc string) error {
			return errors.Join(os.Mkdir(filepath.Join(proc, "fd"), 0o700), os.Mkdir(filepath.Join(proc, "maps"), 0o700))
		},
	} {
		proc := t.TempDir()
		if err := make(proc); err != nil {
			t.Fatal(err)
		}
		if got := unmarked(proc); !strings.Contains(got, "cannot be looked at") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A round that is refused, for whatever reason, takes those before it along: a dump must not build on them.
func TestRefusedRoundDropsAll(t *testing.T) {
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	d := New(Config{Layout: l, HostRoot: t.TempDir(), Root: "/run/r"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.Run(ctx, nil) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	m := migrate.Move{UID: "uid-1", Epoch: 2, Containers: []migrate.Container{{Name: "main", ID: "c0ffee"}}}
	dump, err := d.dir(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(layout.RoundDir(filepath.Join(dump, imageDir, "main"), 1), 0o700); err != nil {
		t.Fatal(err)
	}
	d.written[dump] = 1
	if _, err := d.PreDump(t.Context(), m); err == nil || !strings.Contains(err.Error(), "runc knows no such container") {
		t.Errorf("a round of a container that is not there: %v", err)
	}
	if left, _ := os.ReadDir(l.Dumps()); d.rounds(dump) != 0 || len(left) != 0 {
		t.Errorf("%d rounds are left to build on, and %v", d.rounds(dump), left)
	}
}

// A dump builds on the last round, by a path that leads from its images to those of the round.
func TestParent(t *testing.T) {
	p := part{Container: migrate.Container{Name: "main"}, dump: "/run/dumps/m-1"}
	if got := parent(p, 0); got != nil {
		t.Errorf("without rounds: %q", got)
	}
	got := parent(p, 3)
	if len(got) != 2 || got[0] != "--parent-path" || filepath.Join(p.images(), got[1]) != layout.RoundDir(p.images(), 3) {
		t.Errorf("got %q", got)
	}
}

func TestPagesIn(t *testing.T) {
	dir := t.TempDir()
	for name, n := range map[string]int{"pages-1.img": 4096, "pages-2.img": 8192, "pagemap-1.img": 100} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := pagesIn(dir); got != model.Bytes(12288) || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}
