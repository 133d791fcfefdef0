package simulate

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A directory is read by names of files; lists of both kinds are taken apart; every object knows
// where it stands.
func TestReadDirectory(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "b.json"), `{"apiVersion":"v1","kind":"NodeList","items":[{"metadata":{"name":"n1"}},{"metadata":{"name":"n2"}}]}`)
	writeFile(t, filepath.Join(dir, "a.yml"), `# nothing
---
# a comment first
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: s}}
- {apiVersion: v1, kind: Pod, metadata: {name: p}}
--- # the next
apiVersion: v1
kind: Namespace
metadata: {name: x}
---
`)
	writeFile(t, filepath.Join(dir, "c.txt"), "not read")
	objects, err := Read(dir, Strict)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		m, err := meta.Accessor(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimPrefix(o.Where, dir+"/")+" "+kindOf(o.Object)+" "+m.GetName())
	}
	want := []string{
		"a.yml:4: items[0] Service s", "a.yml:4: items[1] Pod p", "a.yml:10 Namespace x",
		"b.json:1: items[0] Node n1", "b.json:1: items[1] Node n2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("read\n%q, want\n%q", got, want)
	}
}

func TestReadFields(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "p.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {fromTheFuture: 1}\n")
	if _, err := Read(path, Strict); err == nil || !strings.Contains(err.Error(), `p.yaml:1: strict decoding error: unknown field "spec.fromTheFuture"`) {
		t.Errorf("strict: %v", err)
	}
	objects, err := Read(path, Lenient)
	if err != nil || len(objects) != 1 || objects[0].Object.(*corev1.Pod).Name != "p" {
		t.Errorf("lenient: %v, %v", objects, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node}\n---\n"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"resources":{"requests":{"cpu":"NaN"}}}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		writeFile(t, path, string(raw))
		objects, err := Read(path, Strict)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
			return
		}
		if c, err := NewCluster(objects); err == nil {
			_, _ = c.Workload(objects, "default")
		}
	})
}
