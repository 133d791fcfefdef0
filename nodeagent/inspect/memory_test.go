package inspect

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/imagefile"
)

// pagesOf makes the map of a process's memory: pages that can be loaded later, and those that
// cannot.
func pagesOf(t testing.TB, lazy, present uint64) []byte {
	entry := func(n uint64, flags uint32) *pagemap.PagemapEntry {
		return &pagemap.PagemapEntry{CompatNrPages: proto.Uint32(uint32(n)), NrPages: proto.Uint64(n), Flags: proto.Uint32(flags)}
	}
	return image(t, imagefile.PagemapMagic, &pagemap.PagemapHead{}, entry(lazy, presentPage|lazyPage), entry(present, presentPage), entry(lazy, presentPage|lazyPage))
}

// lackingOf is pagesOf where the first and the last are left out: from address 1 MiB on, one page between them.
func lackingOf(t testing.TB, first, present, last uint64) []byte {
	page, at := uint64(os.Getpagesize()), uint64(model.MiB)
	entry := func(n uint64, flags uint32) *pagemap.PagemapEntry {
		e := &pagemap.PagemapEntry{Vaddr: proto.Uint64(at), CompatNrPages: proto.Uint32(uint32(n)), NrPages: proto.Uint64(n), Flags: proto.Uint32(flags)}
		at += n * page
		return e
	}
	return image(t, imagefile.PagemapMagic, &pagemap.PagemapHead{}, entry(first, lazyPage), entry(present, presentPage|lazyPage), entry(last, lazyPage))
}

func TestLeftOut(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"pagemap-1.img": lackingOf(t, 2, 3, 4), "pagemap-7.img": pagesOf(t, 5, 5), "pagemap-shmem-9.img": lackingOf(t, 9, 9, 9)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left, err := LeftOut(dir)
	if err != nil {
		t.Fatal(err)
	}
	page, at := uint64(os.Getpagesize()), uint64(model.MiB)
	for name, c := range map[string]struct {
		process, page, pages uint64
		want                 bool
	}{
		"all of the first":   {1, 0, 2, true},
		"its last page":      {1, 1, 1, true},
		"beyond its end":     {1, 1, 2, false},
		"what is there":      {1, 2, 1, false},
		"all of the last":    {1, 5, 4, true},
		"more than the last": {1, 5, 5, false},
		"after it":           {1, 9, 1, false},
		"more than there is": {1, 5, ^uint64(0) / page, false},
		"of a whole process": {7, 0, 1, false},
		"of one that is not": {9, 0, 1, false},
		"before all":         {1, ^uint64(0), 1, false},
		"none":               {1, 0, 0, false},
	} {
		if got := left.Has(c.process, at+c.page*page, c.pages*page); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
	if n := left.InARow(1, at+6*page); n != 3*page {
		t.Errorf("%d bytes in a row from the second of 4 pages on, want %d", n, 3*page)
	}
}

// TestLeftOutInPieces: what lies side by side is one span, and more spans than a process has are refused: a
// source may send as many as it likes.
func TestLeftOutInPieces(t *testing.T) {
	page := uint64(os.Getpagesize())
	entry := func(at uint64) []byte {
		b := image(t, imagefile.PagemapMagic, &pagemap.PagemapEntry{
			Vaddr: proto.Uint64(at), CompatNrPages: proto.Uint32(1), NrPages: proto.Uint64(1), Flags: proto.Uint32(lazyPage)})
		return b[len(image(t, imagefile.PagemapMagic)):]
	}
	head := image(t, imagefile.PagemapMagic, &pagemap.PagemapHead{})
	of := func(entries []byte) (Left, error) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "pagemap-1.img"), append(head, entries...), 0o600); err != nil {
			t.Fatal(err)
		}
		return LeftOut(dir)
	}
	left, err := of(append(entry(4*page), entry(5*page)...))
	if err != nil || len(left[1]) != 1 || !left.Has(1, 4*page, 2*page) {
		t.Errorf("two pages side by side: %v, %v", left, err)
	}
	if _, err := of(bytes.Repeat(entry(4*page), mostSpans)); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
	if left, err := of(bytes.Repeat(entry(4*page), mostSpans+1)); err == nil || left != nil {
		t.Errorf("one more: %v, want that it is refused", err)
	}
}

func TestMemory(t *testing.T) {
	page := model.Bytes(os.Getpagesize())
	plain := image(t, imagefile.MMMagic, &mm.MmEntry{Vmas: []*vma.VmaEntry{{Flags: proto.Uint32(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS)}}})
	huge := image(t, imagefile.MMMagic, &mm.MmEntry{Vmas: []*vma.VmaEntry{{Flags: proto.Uint32(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_HUGETLB)}}})
	for name, test := range map[string]struct {
		images map[string][]byte
		want   Memory
		eager  string // from 100 pages on
	}{
		"50 and 50 of 7 pages more": {
			map[string][]byte{"mm-1.img": plain, "pagemap-1.img": pagesOf(t, 50, 7)},
			Memory{Lazy: 100 * page, Processes: 1}, "",
		},
		"the same, and some is left out": {
			map[string][]byte{"mm-1.img": plain, "pagemap-1.img": lackingOf(t, 50, 7, 43)},
			Memory{Lazy: 100 * page, Lacking: true, Processes: 1}, "",
		},
		"too little": {
			map[string][]byte{"mm-1.img": plain, "pagemap-1.img": pagesOf(t, 49, 1000)},
			Memory{Lazy: 98 * page, Processes: 1}, "can be loaded later, want at least",
		},
		"shared memory does not count": {
			map[string][]byte{"mm-1.img": plain, "pagemap-1.img": pagesOf(t, 1, 1), "pagemap-shmem-9.img": pagesOf(t, 1000, 1)},
			Memory{Lazy: 2 * page, Processes: 1}, "can be loaded later",
		},
		"two processes": {
			map[string][]byte{"mm-1.img": plain, "pagemap-1.img": pagesOf(t, 50, 1), "mm-7.img": plain, "pagemap-7.img": pagesOf(t, 50, 1)},
			Memory{Lazy: 200 * page, Processes: 2}, "2 processes",
		},
		"huge pages": {
			map[string][]byte{"mm-1.img": huge, "pagemap-1.img": pagesOf(t, 50, 1)},
			Memory{Lazy: 100 * page, Processes: 1, Huge: true}, "huge pages",
		},
		"more than there can be": {
			map[string][]byte{"mm-1.img": plain, "pagemap-1.img": pagesOf(t, 1<<62, 1)},
			Memory{Lazy: 1001 * page, Processes: 1}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range test.images {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := MemoryOf(dir, 1000*page)
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
			if why := got.Eager(100 * page); (why == "") != (test.eager == "") || !strings.Contains(why, test.eager) {
				t.Errorf("eager: %q, want %q", why, test.eager)
			}
		})
	}
}

func FuzzMemory(f *testing.F) {
	f.Add(pagesOf(f, 50, 7))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "pagemap-1.img"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, _ := MemoryOf(dir, model.GiB); m.Lazy < 0 || m.Lazy > 2*model.GiB+model.MiB {
			t.Errorf("%+v", m)
		}
	})
}
