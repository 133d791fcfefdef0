package layout

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestContainerNotes(t *testing.T) {
	dir := t.TempDir()
	l := Layout{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}
	want := Container{ID: "abc", PodUID: "u", Bundle: "/b", Root: "/r", CgroupsPath: "/c", Restored: true, Begun: []string{"/m"}}
	if err := l.WriteContainer(want); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteCriuConfig("abc", "/hook", Close); err != nil {
		t.Fatal(err)
	}
	if got, err := l.ReadContainer("abc"); err != nil || got == nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for range 2 {
		if err := l.RemoveContainer("abc"); err != nil {
			t.Error(err)
		}
	}
	if got, err := l.ReadContainer("abc"); err != nil || got != nil {
		t.Errorf("removed: got %+v, %v", got, err)
	}
	if _, err := os.Stat(l.CriuConfig("abc")); err == nil {
		t.Error("CRIU's options are left behind")
	}
}

// What becomes of connections is noted for one container, and with it forgotten.
func TestConnections(t *testing.T) {
	dir := t.TempDir()
	l := Layout{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Connections{Close, Keep, Keep, Close, Close} {
		if err := l.NoteConnections("abc", want); err != nil {
			t.Fatal(err)
		}
		got, err := l.NotedConnections("abc")
		if err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if err := l.WriteCriuConfig("abc", "/hook", got); err != nil {
			t.Fatal(err)
		}
		options, err := os.ReadFile(l.CriuConfig("abc"))
		if kept := strings.Contains(string(options), "tcp-established\n"); err != nil || kept != bool(want) || kept == strings.Contains(string(options), "tcp-close\n") {
			t.Errorf("CRIU's options are %q, %v; connections kept: %v", options, err, want)
		}
	}
	if err := l.NoteConnections("abc", Keep); err != nil {
		t.Fatal(err)
	}
	if err := l.RemoveContainer("abc"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.NotedConnections("abc"); err != nil || got != Close {
		t.Errorf("of a container that is gone: %v, %v", got, err)
	}
	for _, id := range []string{"", "../a"} {
		if _, err := l.NotedConnections(id); err == nil || l.NoteConnections(id, Keep) == nil {
			t.Errorf("container ID %q was taken", id)
		}
	}
}

func TestNamesThatAreNoFileNames(t *testing.T) {
	l := Layout{Run: t.TempDir(), State: t.TempDir()}
	for _, id := range []string{"", ".", "..", "a/b", "../a", "a\x00", "a b", "ä"} {
		if err := l.WriteContainer(Container{ID: id}); err == nil {
			t.Errorf("container ID %q was taken", id)
		}
		if err := l.WriteCriuConfig(id, "/hook", Close); err == nil {
			t.Errorf("container ID %q got options", id)
		}
		if _, err := MoveDir(id, 1); err == nil {
			t.Errorf("migration UID %q was taken", id)
		}
	}
	if got, err := MoveDir("0f5a-1", 7); err != nil || got != "0f5a-1-7" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPrepareKeepsOthersOut(t *testing.T) {
	dir := t.TempDir()
	l := Layout{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}
	for range 2 {
		if err := l.Prepare(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{l.Run, l.Images(), l.Dumps(), string(l.Fences()), string(l.Restored())} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, info, err)
		}
	}
}

func TestOwnImages(t *testing.T) {
	// The directories are links, as where the disk for images is another.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := Layout{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}
	for _, d := range []string{"disk", "disk2", "real"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if own, err := l.OwnImages(filepath.Join(dir, "run", "vault", "images", "m-2")); own || err != nil {
		t.Errorf("no such directory: got %v, %v", own, err)
	}
	if err := os.Mkdir(l.Run, 0o700); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"run/vault": "real", "real/dumps": "disk"} {
		if err := os.Symlink(filepath.Join(dir, to), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for images, want := range map[string]bool{
		"real/images/m-2":       true,
		"disk/m-2/images":       true,
		"disk":                  true,
		"disk2/m-2/images":      false,
		"kubelet/checkpoints/x": false,
	} {
		if own, err := l.OwnImages(filepath.Join(dir, images)); own != want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", images, own, err, want)
		}
	}
	// Whoever cannot tell must not let go.
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	if _, err := (Layout{Run: loop}).OwnImages("/x"); err == nil {
		t.Error("a directory that cannot be resolved: no error")
	}
}

func TestRoundDirs(t *testing.T) {
	for n := 1; n <= MostRounds; n++ {
		if c, got, ok := Round(filepath.Base(RoundDir("/x/main", n))); c != "main" || got != n || !ok {
			t.Errorf("round %d: %q, %d, %v", n, c, got, ok)
		}
	}
	for _, name := range []string{"main", "main.0", "main.9", "main.01", "main.+1", "main.x", ".1", "main."} {
		if c, n, ok := Round(name); ok {
			t.Errorf("%q is round %d of %q", name, n, c)
		}
	}
}
