package pin

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/drover-project/drover/bpf/pin/pintest"
)

// newFS gives a directory in a BPF file system of the test's own.
func newFS(t *testing.T) string {
	t.Helper()
	return filepath.Join(pintest.FS(t), "drover", "test")
}

// programs is a program that does nothing and a map of values of a size.
func programs(size uint32) *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"counts": {Name: "counts", Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1}},
		Programs: map[string]*ebpf.ProgramSpec{"nothing": {Name: "nothing", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp,
			AttachTo: "sched_switch", License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}},
	}
}

// process is what one process has of the programs.
type process struct {
	set    *Set
	counts *ebpf.Map
	id     link.ID
	close  func()
}

func begin(t *testing.T, dir string, size uint32, version string) process {
	t.Helper()
	spec := programs(size)
	s, err := Open(dir, spec, version)
	must(t, err)
	c, err := ebpf.NewCollectionWithOptions(spec, *s.Options())
	must(t, err)
	must(t, s.Replace())
	l, err := s.Link("nothing", always, attach(c))
	must(t, err)
	info, err := l.Info()
	must(t, err)
	p := process{s, c.Maps["counts"], info.ID, func() { l.Close(); c.Close() }}
	t.Cleanup(p.close)
	return p
}

func always(link.Link) bool { return true }

func attach(c *ebpf.Collection) func() (link.Link, error) {
	return func() (link.Link, error) {
		return link.AttachTracing(link.TracingOptions{Program: c.Programs["nothing"]})
	}
}

// gone waits until the program of a link is off, which the kernel puts off for a moment.
func gone(t *testing.T, id link.ID) bool {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); attached(t, id); runtime.Gosched() {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func attached(t *testing.T, id link.ID) bool {
	t.Helper()
	l, err := link.NewFromID(id)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestComesBack(t *testing.T) {
	dir := newFS(t)
	first := begin(t, dir, 8, "1")
	must(t, first.counts.Put(uint32(0), uint64(42)))
	first.close()
	if !attached(t, first.id) {
		t.Fatal("the program went with its process")
	}
	second := begin(t, dir, 8, "1")
	var got uint64
	must(t, second.counts.Lookup(uint32(0), &got))
	if got != 42 || second.id != first.id {
		t.Errorf("count %d by link %d, want 42 by link %d", got, second.id, first.id)
	}
}

func TestOtherPrograms(t *testing.T) {
	dir := newFS(t)
	first := begin(t, dir, 8, "1")
	must(t, first.counts.Put(uint32(0), uint64(42)))
	first.close()
	second := begin(t, dir, 8, "2")
	var got uint64
	must(t, second.counts.Lookup(uint32(0), &got))
	if got != 42 || !gone(t, first.id) || !attached(t, second.id) {
		t.Errorf("count %d, want 42; the old programs are attached: %v; the new: %v", got, attached(t, first.id), attached(t, second.id))
	}
}

func TestOtherLayout(t *testing.T) {
	dir := newFS(t)
	first := begin(t, dir, 8, "1")
	first.close()
	second := begin(t, dir, 16, "1")
	if size := second.counts.ValueSize(); size != 16 || !gone(t, first.id) {
		t.Errorf("values of %d bytes, want 16; the old programs are attached: %v", size, attached(t, first.id))
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("%v is left, want the maps and links of one version", entries)
	}
}

// What somebody else has in the directory is not an older version.
func TestWhatIsNotOursStays(t *testing.T) {
	dir := newFS(t)
	others := filepath.Join(dir, "cilium")
	must(t, os.MkdirAll(others, 0o700))
	begin(t, dir, 8, "1")
	if _, err := os.Stat(others); err != nil {
		t.Error(err)
	}
}

// Links whose maps are gone count where nobody reads.
func TestMapsAreGone(t *testing.T) {
	dir := newFS(t)
	first := begin(t, dir, 8, "1")
	first.close()
	must(t, os.Remove(filepath.Join(first.set.maps, "counts")))
	second := begin(t, dir, 8, "1")
	if !gone(t, first.id) || !attached(t, second.id) {
		t.Errorf("the programs of the maps that are gone are attached: %v; the new: %v", attached(t, first.id), attached(t, second.id))
	}
}

// A BPF file system that everybody may write to, as mount(8) makes it, may hold a trap.
func TestDirectoryOfSomebodyElse(t *testing.T) {
	for name, lay := range map[string]func(dir string) error{
		"owned by user 65534": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 65534, 65534)) },
		"open to all":         func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"a symbolic link": func(dir string) error {
			victim := filepath.Join(filepath.Dir(dir), "victim")
			return errors.Join(os.Mkdir(victim, 0o700), os.Symlink(victim, dir))
		},
	} {
		for _, depth := range []int{0, 1} { // the directory itself, and the one that it is in
			dir := newFS(t)
			at := dir
			if depth == 1 {
				at = filepath.Dir(dir)
			} else {
				must(t, os.MkdirAll(filepath.Dir(dir), 0o700))
			}
			must(t, lay(at))
			if _, err := Open(dir, programs(8), "1"); err == nil || !strings.Contains(err.Error(), at) {
				t.Errorf("%s %s: error %v, want one that names it", name, at, err)
			}
		}
	}
}

// A link that is no longer what it should be, such as that of a device which has gone.
func TestLinkGoneBad(t *testing.T) {
	dir := newFS(t)
	first := begin(t, dir, 8, "1")
	spec := programs(8)
	c, err := ebpf.NewCollection(spec)
	must(t, err)
	defer c.Close()
	l, err := first.set.Link("nothing", func(link.Link) bool { return false }, attach(c))
	must(t, err)
	defer l.Close()
	first.close()
	info, err := l.Info()
	must(t, err)
	if info.ID == first.id || !gone(t, first.id) {
		t.Errorf("link %d is in the place of %d, which is attached: %v", info.ID, first.id, attached(t, first.id))
	}
	names, err := first.set.Linked()
	must(t, err)
	if !slices.Equal(names, []string{"nothing"}) {
		t.Errorf("links %v", names)
	}
	must(t, first.set.Unlink("nothing"))
	must(t, first.set.Unlink("nothing"))
	l.Close()
	if !gone(t, info.ID) {
		t.Error("the program is still attached")
	}
}

func TestNoBPFFileSystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "drover")
	if _, err := Open(dir, programs(8), "1"); err == nil || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Errorf("error %v, want one that tells how to mount it", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a directory was made all the same")
	}
}

func TestNothingPinned(t *testing.T) {
	var s *Set
	c, err := ebpf.NewCollection(programs(8))
	must(t, err)
	defer c.Close()
	must(t, s.Replace())
	l, err := s.Link("nothing", always, attach(c))
	must(t, err)
	info, err := l.Info()
	must(t, err)
	must(t, s.Unlink("nothing"))
	if names, err := s.Linked(); len(names) > 0 || err != nil || s.Options() != nil {
		t.Errorf("links %v, %v", names, err)
	}
	l.Close()
	if !gone(t, info.ID) {
		t.Error("the program outlived its link")
	}
}
