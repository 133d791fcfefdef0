package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
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
