package inspect

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-project/drover/internal/rootfs"
)

// TestMountsStay: files that came may not lead a mount elsewhere than runc has found its place.
func TestMountsStay(t *testing.T) {
	dir := t.TempDir()
	link := func(to string) {
		t.Helper()
		name := filepath.Join(dir, "mnt")
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	b := &bundle{rootfs: dir, Mounts: []mountSpec{{Destination: "/mnt/a"}, {Destination: "/data"}}}
	link("/first")
	var begun []string
	for _, m := range b.Mounts {
		where, err := rootfs.Place(dir, m.Destination)
		if err != nil {
			t.Fatal(err)
		}
		begun = append(begun, where)
	}
	if err := b.stayed(begun); err != nil {
		t.Errorf("nothing has changed: %v", err)
	}
	link("/second")
	if err := b.stayed(begun); !errors.Is(err, ErrRefused) {
		t.Errorf("a link leads elsewhere: %v", err)
	}
	if err := b.stayed(nil); err != nil {
		t.Errorf("runc has not looked yet: %v", err)
	}
	if err := b.stayed(begun[:1]); err == nil {
		t.Error("a mount of which nothing is known")
	}
}
