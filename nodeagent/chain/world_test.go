package chain

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/imagefile"
)

// world is a process's memory, whose pages come, go, move and are written to, and which is dumped as
// CRIU does: what was not written to since the dump before is left to that.
type world struct {
	pages map[uint64]uint64 // address to content
	dirty map[uint64]bool
	areas []area
	next  uint64 // content that no page has had
	dumps int
}

// newWorld has mappings of 40 pages with a gap of 10 between them, lazy or not in turn.
func newWorld(areas int) *world {
	w := &world{pages: map[uint64]uint64{}, dirty: map[uint64]bool{}, next: 1}
	for i := range uint64(areas) {
		start := (1000 + 50*i) * page
		w.areas = append(w.areas, area{start, start + 40*page, i%3 != 0})
	}
	return w
}

func (w *world) write(at uint64) {
	w.pages[at], w.dirty[at] = w.next, true
	w.next++
}

func (w *world) drop(at uint64) {
	delete(w.pages, at)
	delete(w.dirty, at)
}

// any is an address in a mapping.
func (w *world) any(r *rand.Rand) uint64 {
	a := w.areas[r.IntN(len(w.areas))]
	return a.start + uint64(r.IntN(int((a.end-a.start)/page)))*page
}

// live writes, drops and moves stretches of pages.
func (w *world) live(r *rand.Rand, times int) {
	for range times {
		at, n := w.any(r), uint64(r.IntN(30))
		to := w.any(r)
		for i := range n {
			from, into := at+i*page, to+i*page
			switch r.IntN(3) * (times % 2) { // some only write
			case 0:
				if w.inside(from) {
					w.write(from)
				}
			case 1:
				w.drop(from)
			default:
				if was, ok := w.pages[from]; ok && w.inside(into) {
					w.pages[into], w.dirty[into] = was, true
					w.drop(from)
				}
			}
		}
	}
}

func (w *world) inside(at uint64) bool {
	return slices.ContainsFunc(w.areas, func(a area) bool { return a.start <= at && at < a.end })
}

func (w *world) lazy(at uint64) bool {
	i := slices.IndexFunc(w.areas, func(a area) bool { return a.start <= at && at < a.end })
	return w.areas[i].lazy
}

func content(n uint64) []byte {
	b := make([]byte, page)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], n*31+uint64(i))
	}
	return b
}

// dump writes a round, or the dump.
func (w *world) dump(t testing.TB, dir string, r *rand.Rand) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	id := uint32(1 + r.IntN(9))
	var data []byte
	var entries []*pagemap.PagemapEntry
	for _, at := range slices.Sorted(maps.Keys(w.pages)) {
		flags := uint32(inParent)
		if w.dumps == 0 || w.dirty[at] {
			flags = present
			if w.lazy(at) {
				flags |= lazy
			}
			data = append(data, content(w.pages[at])...)
		}
		last := len(entries) - 1
		if last >= 0 && entries[last].GetVaddr()+entries[last].GetNrPages()*page == at && entries[last].GetFlags() == flags && r.IntN(50) > 0 {
			*entries[last].NrPages++
			continue
		}
		entries = append(entries, &pagemap.PagemapEntry{Vaddr: &at, NrPages: proto.Uint64(1), CompatNrPages: proto.Uint32(1), Flags: &flags})
	}
	all := []proto.Message{&pagemap.PagemapHead{PagesId: &id}}
	for _, e := range entries {
		all = append(all, e)
	}
	write(t, filepath.Join(dir, "pagemap-7.img"), image(t, imagefile.PagemapMagic, all...))
	if len(data) > 0 {
		write(t, pagesFile(dir, id), data)
	}
	clear(w.dirty)
	w.dumps++
}

// rest writes what else of a dump is read.
func (w *world) rest(t testing.TB, dir string) {
	t.Helper()
	m := &mm.MmEntry{}
	for _, a := range w.areas {
		flags := uint32(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS)
		if !a.lazy {
			flags |= unix.MAP_LOCKED
		}
		m.Vmas = append(m.Vmas, &vma.VmaEntry{Start: &a.start, End: &a.end, Flags: &flags, Status: proto.Uint32(1)})
	}
	write(t, filepath.Join(dir, "mm-7.img"), image(t, imagefile.MMMagic, m))
}

func write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func image(t testing.TB, magic uint32, entries ...proto.Message) []byte {
	t.Helper()
	b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, imagefile.CommonMagic), magic)
	for _, e := range entries {
		require(e.ProtoReflect())
		data, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
	}
	return b
}

// require sets what a test does not mention and CRIU always writes.
func require(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Cardinality() == protoreflect.Required && !m.Has(f) && f.Message() == nil {
			m.Set(f, f.Default())
		}
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				require(v.List().Get(i).Message())
			}
		default:
			require(v.Message())
		}
		return true
	})
}

// holds fails unless the images in dir are the whole world as it is now.
func (w *world) holds(t *testing.T, dir string) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	l, err := readLayer(root, ".", "pagemap-7.img", new(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	data, err := root.ReadFile(pagesFile(".", l.id))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, s := range l.spans {
		for i := range s.pages {
			at := s.start + i*page
			seen++
			switch got := data[(s.at+i)*page : (s.at+i+1)*page]; {
			case s.parent:
				t.Errorf("the page at %#x is still in a parent", at)
			case w.pages[at] == 0:
				t.Errorf("the page at %#x is none", at)
			case string(got) != string(content(w.pages[at])):
				t.Errorf("the page at %#x is another", at)
			case s.lazy != w.lazy(at):
				t.Errorf("the page at %#x: lazy is %v", at, s.lazy)
			}
		}
	}
	if seen != len(w.pages) || uint64(len(data)) != uint64(seen)*page {
		t.Errorf("%d pages and %d bytes, want %d pages", seen, len(data), len(w.pages))
	}
}

// dirs are the directories of a container's rounds and of its dump.
func dirs(base string, rounds int) []string {
	var all []string
	for n := range rounds {
		all = append(all, layout.RoundDir(base, n+1))
	}
	return append(all, base)
}

func left(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// room is there for anything.
func room(uint64) error { return nil }

// size is how many bytes the files below a directory have.
func size(t testing.TB, dir string) (sum uint64) {
	t.Helper()
	for _, name := range left(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if sum += uint64(info.Size()); info.IsDir() {
			sum += size(t, filepath.Join(dir, name)) - uint64(info.Size())
		}
	}
	return sum
}
