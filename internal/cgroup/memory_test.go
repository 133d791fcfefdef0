package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

// tree puts files below a directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(data+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMemoryLeft(t *testing.T) {
	for name, c := range map[string]struct {
		v1      bool
		files   map[string]string
		left    int64
		limited bool
	}{
		"v2, none": {files: map[string]string{"pods/a/memory.max": "max", "pods/a/memory.current": "5"}},
		"v2, own":  {files: map[string]string{"pods/a/memory.max": "100", "pods/a/memory.current": "30"}, left: 70, limited: true},
		"v2, the one above is tighter": {files: map[string]string{"pods/a/memory.max": "100", "pods/a/memory.current": "30",
			"pods/memory.max": "100", "pods/memory.current": "90"}, left: 10, limited: true},
		// What is cached of files is given back before anything else: it takes no room away.
		"v2, cached files": {files: map[string]string{"pods/a/memory.max": "100", "pods/a/memory.current": "90",
			"pods/a/memory.stat": "anon 10\nfile 80\nshmem 20\ninactive_file 50\nactive_file 10"}, left: 60, limited: true},
		"v1, cached files": {v1: true, files: map[string]string{"pods/a/memory.limit_in_bytes": "100", "pods/a/memory.usage_in_bytes": "90",
			"pods/a/memory.stat": "inactive_file 1\ntotal_inactive_file 50"}, left: 60, limited: true},
		"v2, over it": {files: map[string]string{"pods/a/memory.max": "100", "pods/a/memory.current": "130"}, limited: true},
		"v1, none": {v1: true, files: map[string]string{"pods/a/memory.limit_in_bytes": "9223372036854771712",
			"pods/a/memory.usage_in_bytes": "5"}},
		"v1, own": {v1: true, files: map[string]string{"pods/a/memory.limit_in_bytes": "100",
			"pods/a/memory.usage_in_bytes": "30"}, left: 70, limited: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := &Hierarchies{proc: tree(t, map[string]string{"7/cgroup": "0::/pods/a"})}
			controller := ""
			if c.v1 {
				h.proc = tree(t, map[string]string{"7/cgroup": "4:memory:/pods/a\n0::/"})
				controller = "memory"
			}
			h.all = []hierarchy{{dir: tree(t, c.files), root: "/", name: controller}}
			left, limited, err := h.MemoryLeft(7)
			if left != c.left || limited != c.limited || err != nil {
				t.Errorf("got %d, %v, %v, want %d, %v", left, limited, err, c.left, c.limited)
			}
		})
	}
}
