package inspect

import (
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
	const isPresent = 1 << 2
	return image(t, imagefile.PagemapMagic, &pagemap.PagemapHead{}, entry(lazy, isPresent|lazyPage), entry(present, isPresent), entry(lazy, isPresent|lazyPage))
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
