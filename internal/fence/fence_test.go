package fence

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const uid = "0f5a2c1e-6d0b-4b52-9d2f-1c2d3e4f5a6b"

func TestWriteCheckLift(t *testing.T) {
	d := Dir(t.TempDir())
	if f, err := d.Check(uid); f != nil || err != nil {
		t.Fatalf("empty directory: got %v, %v", f, err)
	}
	want := Fence{PodUID: uid, Epoch: 7, Migration: "default/web"}
	if err := d.Write(want); err != nil {
		t.Fatal(err)
	}
	if f, err := d.Check(uid); err != nil || f == nil || *f != want {
		t.Fatalf("got %v, %v, want %v", f, err, want)
	}
	if list, err := d.List(); err != nil || len(list) != 1 || list[0] != want {
		t.Fatalf("list: got %v, %v", list, err)
	}
	for _, epoch := range []uint64{5, 6, 9} {
		if err := d.Write(Fence{PodUID: uid, Epoch: epoch}); err == nil {
			t.Errorf("epoch %d replaced another move's fence", epoch)
		}
	}
	if err := d.Write(want); err != nil {
		t.Errorf("its own, again: %v", err)
	}
	// 5 and 9 are the moves before and after; 8 is this one after its return.
	for _, epoch := range []uint64{0, 5, 6, 9} {
		if err := d.Lift(uid, epoch); err == nil {
			t.Errorf("epoch %d lifted another move's fence", epoch)
		}
	}
	if f, err := d.Check(uid); err != nil || f == nil || *f != want {
		t.Fatalf("after others' attempts: got %v, %v, want %v", f, err, want)
	}
	if err := d.Lift(uid, 8); err != nil {
		t.Fatal(err)
	}
	if err := d.Lift(uid, 8); err != nil {
		t.Errorf("lifting twice: %v", err)
	}
	if f, err := d.Check(uid); f != nil || err != nil {
		t.Errorf("after lift: got %v, %v", f, err)
	}
	if err := d.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := d.Lift(uid, want.Epoch); err != nil {
		t.Errorf("its own epoch: %v", err)
	}
}

func TestUnknownIsNotAbsent(t *testing.T) {
	missing := Dir(filepath.Join(t.TempDir(), "gone"))
	if _, err := missing.Check(uid); !errors.Is(err, ErrUnreadable) {
		t.Errorf("missing directory: got %v, want ErrUnreadable", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(file).Check(uid); !errors.Is(err, ErrUnreadable) {
		t.Errorf("a file instead of a directory: got %v, want ErrUnreadable", err)
	}
	for name, content := range map[string]string{
		"empty":       "",
		"half":        `{"podUID":"0f5a`,
		"another pod": `{"podUID":"other","epoch":1}`,
	} {
		d := t.TempDir()
		if err := os.WriteFile(filepath.Join(d, uid+".json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Dir(d).Check(uid); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: got %v, want ErrUnreadable", name, err)
		}
	}
}

func TestUIDIsNoPath(t *testing.T) {
	d := Dir(t.TempDir())
	for _, bad := range []string{"", ".", "..", "a/b", "../x", "a.json", "a\x00", "ä", strings.Repeat("a", 129)} {
		if err := d.Write(Fence{PodUID: bad}); err == nil {
			t.Errorf("UID %q was taken", bad)
		}
		if _, err := d.Check(bad); err == nil {
			t.Errorf("UID %q was looked up", bad)
		}
		if _, err := RestoredDir(d).Check(bad, "m"); err == nil {
			t.Errorf("UID %q was looked up as restored", bad)
		}
	}
}

func TestRestored(t *testing.T) {
	d := RestoredDir(t.TempDir())
	if ok, err := d.Check(uid, "m"); ok || err != nil {
		t.Fatalf("empty: %v, %v", ok, err)
	}
	if err := d.Write(Restored{PodUID: uid, Migration: "m", Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.Check(uid, "m"); !ok || err != nil {
		t.Errorf("same migration: %v, %v", ok, err)
	}
	if ok, err := d.Check(uid, "later"); ok || err != nil {
		t.Errorf("another migration: %v, %v", ok, err)
	}
	if err := d.Remove(uid); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.Check(uid, "m"); ok || err != nil {
		t.Errorf("removed: %v, %v", ok, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"podUID":"` + uid + `","epoch":3,"migration":"a/b"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := t.TempDir()
		if err := os.WriteFile(filepath.Join(d, uid+".json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Dir(d).Check(uid)
		// Whatever is in the file, it is never "not fenced".
		if got == nil && err == nil {
			t.Errorf("%q reads as no fence", data)
		}
	})
}
