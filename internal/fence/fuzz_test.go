package fence

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzFence: a file that is there fences, or is an error; it never says that the pod is free,
// and never speaks for another pod.
func FuzzFence(f *testing.F) {
	f.Add([]byte(`{"podUID":"u-1","epoch":4,"migration":"default/m"}`))
	f.Add([]byte(`{"podUID":"u-2","epoch":4}`))
	f.Add([]byte(`{"podUID":"u-1","epoch":-1}`))
	f.Add([]byte(`null`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := Dir(t.TempDir())
		if err := os.WriteFile(filepath.Join(string(d), "u-1"+suffix), data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := d.Check("u-1")
		if (got == nil) == (err == nil) || got != nil && got.PodUID != "u-1" {
			t.Errorf("%q: fence %+v, %v", data, got, err)
		}
	})
}

// FuzzRestored: only a note about this pod and this move says that its checkpoint is spent.
func FuzzRestored(f *testing.F) {
	f.Add([]byte(`{"podUID":"u-1","epoch":4,"migration":"m"}`))
	f.Add([]byte(`{"podUID":"u-2","epoch":4,"migration":"m"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := RestoredDir(t.TempDir())
		if err := os.WriteFile(filepath.Join(string(d), "u-1"+suffix), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if ok, err := d.Check("u-1", "m"); ok && err != nil {
			t.Errorf("%q: %v, %v", data, ok, err)
		}
		if ok, _ := d.Check("u-1", "another"); ok {
			if same, _ := d.Check("u-1", "m"); same {
				t.Errorf("%q is a note of two moves", data)
			}
		}
	})
}
