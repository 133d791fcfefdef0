package nodeagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestYards(t *testing.T) {
	got, err := yards(strings.NewReader(`22 1 0:20 / / rw shared:1 - overlay overlay rw
31 22 0:31 / /tmp rw shared:2 - tmpfs tmp rw
77 31 0:77 / /tmp/.criu.mntns.RyaTpg rw - tmpfs none rw
78 77 0:78 / /tmp/.criu.mntns.RyaTpg/9-0000000000 rw - overlay overlay rw
79 31 0:79 / /tmp/.criu.cgyard.x rw - tmpfs none rw
`))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"/tmp/.criu.mntns.RyaTpg"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestCriuRuns(t *testing.T) {
	proc := t.TempDir()
	for pid, comm := range map[string]string{"1": "init", "7": "criu-image-str"} {
		if err := os.MkdirAll(filepath.Join(proc, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "comm"), []byte(comm+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if runs, err := criuRuns(proc); runs || err != nil {
		t.Errorf("no CRIU among them: %v, %v", runs, err)
	}
	if err := os.WriteFile(filepath.Join(proc, "7", "comm"), []byte("criu\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if runs, err := criuRuns(proc); !runs || err != nil {
		t.Errorf("a CRIU among them: %v, %v", runs, err)
	}
}
