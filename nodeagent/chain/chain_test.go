package chain

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"

	"github.com/drover-project/drover/nodeagent/imagefile"
)

// Whatever a process does between the rounds, the joined dump holds its memory as it was at the end, page
// for page, and nothing of the rounds is left.
func TestJoin(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			dir := t.TempDir()
			w := newWorld(3 + r.IntN(20))
			w.live(r, 60)
			all := dirs(filepath.Join(dir, "main"), r.IntN(4))
			for _, d := range all {
				w.dump(t, d, r)
				if d != all[len(all)-1] {
					w.live(r, r.IntN(12))
				}
			}
			w.rest(t, filepath.Join(dir, "main"))
			before, _ := os.ReadFile(filepath.Join(dir, "main", "pagemap-7.img"))
			came, growth := size(t, dir), uint64(0)
			if err := Join(dir, func(bytes uint64) error { growth = bytes; return nil }); err != nil {
				t.Fatal(err)
			}
			if now := size(t, dir); now > came+growth {
				t.Errorf("of %d bytes were made %d, and %d more were set aside", came, now, growth)
			}
			w.holds(t, filepath.Join(dir, "main"))
			if got := left(t, dir); !slices.Equal(got, []string{"main"}) {
				t.Errorf("left: %q", got)
			}
			if now, _ := os.ReadFile(filepath.Join(dir, "main", "pagemap-7.img")); len(all) == 1 && string(now) != string(before) {
				t.Error("a dump without rounds was written anew")
			}
		})
	}
}

// A stretch that is longer than what is copied at once moves by one page, up and down.
func TestLongStretchesMove(t *testing.T) {
	for _, d := range []int{-1, 1} {
		dir, r := t.TempDir(), rand.New(rand.NewPCG(1, 1))
		w := newWorld(1)
		w.areas[0].end = w.areas[0].start + 1000*page
		for i := range uint64(900) {
			w.write(w.areas[0].start + (50+i)*page)
		}
		w.dump(t, filepath.Join(dir, "main.1"), r)
		if d > 0 {
			w.write(w.areas[0].start)
		} else {
			w.drop(w.areas[0].start + 50*page)
		}
		w.write(w.areas[0].start + 500*page)
		w.dump(t, filepath.Join(dir, "main"), r)
		w.rest(t, filepath.Join(dir, "main"))
		if err := Join(dir, room); err != nil {
			t.Fatal(err)
		}
		w.holds(t, filepath.Join(dir, "main"))
	}
}

// Containers without rounds, and other files, are not touched.
func TestNothingToJoin(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "main"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "main", "pagemap-1.img"), []byte("whatever"))
	if err := Join(dir, room); err != nil || len(left(t, filepath.Join(dir, "main"))) != 1 {
		t.Error(err)
	}
}

// What does not fit together is refused, and nothing beside the images is touched.
func TestHostileRounds(t *testing.T) {
	const at = 1 << 20
	entry := func(at, n uint64, flags uint32) *pagemap.PagemapEntry {
		return &pagemap.PagemapEntry{Vaddr: &at, NrPages: &n, CompatNrPages: proto.Uint32(uint32(n)), Flags: &flags}
	}
	of := func(t *testing.T, entries ...*pagemap.PagemapEntry) []byte {
		all := []proto.Message{&pagemap.PagemapHead{PagesId: proto.Uint32(1)}}
		for _, e := range entries {
			all = append(all, e)
		}
		return image(t, imagefile.PagemapMagic, all...)
	}
	type files map[string][]byte
	two := make([]byte, 2*page)
	for name, c := range map[string]struct {
		files func(t *testing.T) files
		says  string
	}{
		"a page that no round has": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 2, present)), "main.1/pages-1.img": two, "main/pagemap-7.img": of(t, entry(at, 3, inParent))}
		}, "is not in round 1"},
		"a parent of the first": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 2, inParent)), "main/pagemap-7.img": of(t, entry(at, 2, inParent))}
		}, "are in no round"},
		"no such memory in the round": {func(t *testing.T) files {
			return files{"main.1/pagemap-8.img": of(t, entry(at, 2, present)), "main.1/pages-1.img": two, "main/pagemap-7.img": of(t, entry(at, 2, inParent))}
		}, "are in no round"},
		"fewer pages than named": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 1<<40, present)), "main.1/pages-1.img": two, "main/pagemap-7.img": of(t, entry(at, 1<<40, inParent))}
		}, "pages are named of"},
		"more than there are addresses": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 1<<52, present)), "main/pagemap-7.img": of(t)}
		}, "are none of a process"},
		"pages twice": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 2, present), entry(at+page, 1, present)), "main/pagemap-7.img": of(t)}
		}, "come after those up to"},
		"no page's beginning": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at+1, 1, present)), "main/pagemap-7.img": of(t)}
		}, "are none of a process"},
		"neither here nor there": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 1, lazy)), "main/pagemap-7.img": of(t)}
		}, "neither here nor in a round before"},
		"cut short": {func(t *testing.T) files {
			b := of(t, entry(at, 2, inParent))
			return files{"main.1/pagemap-7.img": of(t), "main/pagemap-7.img": b[:len(b)-1]}
		}, "was announced"},
		"another image": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t), "main/pagemap-7.img": image(t, imagefile.MMMagic, &mm.MmEntry{})}
		}, "magic number"},
		"no mappings": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 2, present)), "main.1/pages-1.img": two, "main/pagemap-7.img": of(t, entry(at, 2, inParent))}
		}, "mm-7.img"},
		"a round is missing": {func(t *testing.T) files {
			return files{"main.2/pagemap-7.img": of(t), "main/pagemap-7.img": of(t)}
		}, "want all up to it"},
		"pages of two": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 2, present)), "main.1/pagemap-8.img": of(t, entry(at, 2, present)), "main.1/pages-1.img": two,
				"main/pagemap-7.img": of(t, entry(at, 2, inParent)), "main/pagemap-8.img": image(t, imagefile.PagemapMagic, &pagemap.PagemapHead{PagesId: proto.Uint32(2)}, entry(at, 2, inParent)), "main/mm-8.img": image(t, imagefile.MMMagic, &mm.MmEntry{})}
		}, "two page maps name main.1/pages-1.img"},
		"pages of one that needs no round": {func(t *testing.T) files {
			return files{"main.1/pagemap-7.img": of(t, entry(at, 2, present)), "main.1/pages-1.img": two,
				"main/pagemap-7.img": of(t, entry(at, 2, inParent)), "main/pagemap-8.img": of(t, entry(at, 2, present)), "main/pages-1.img": two}
		}, "two page maps name main/pages-1.img"},
		"rounds of nobody": {func(t *testing.T) files { return files{"main.1/pagemap-7.img": of(t)} }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			all := c.files(t)
			if name != "no mappings" && all["main/pagemap-7.img"] != nil {
				all["main/mm-7.img"] = image(t, imagefile.MMMagic, &mm.MmEntry{})
			}
			for file, data := range all {
				path := filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, path, data)
			}
			if err := Join(dir, room); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

// Where there is no room for what is needed meanwhile nothing is touched.
func TestNoRoomToJoin(t *testing.T) {
	dir, r := t.TempDir(), rand.New(rand.NewPCG(1, 1))
	w := newWorld(1)
	w.write(w.areas[0].start + 5*page)
	w.dump(t, filepath.Join(dir, "main.1"), r)
	w.write(w.areas[0].start + 4*page)
	w.dump(t, filepath.Join(dir, "main"), r)
	w.rest(t, filepath.Join(dir, "main"))
	none := errors.New("no room")
	var asked uint64
	if err := Join(dir, func(bytes uint64) error { asked = bytes; return none }); !errors.Is(err, none) || asked < page || asked > 2*page {
		t.Errorf("%d bytes were asked for, %v", asked, err)
	}
	if got := left(t, dir); !slices.Equal(got, []string{"main", "main.1"}) {
		t.Errorf("left: %q", got)
	}
	if err := Join(dir, room); err != nil {
		t.Fatal(err)
	}
	w.holds(t, filepath.Join(dir, "main"))
}

// Page maps have so many entries, in all rounds and in the dump, or they are refused: each takes memory here.
func TestEntriesAreBounded(t *testing.T) {
	dir := t.TempDir()
	one := image(t, imagefile.PagemapMagic, &pagemap.PagemapHead{PagesId: proto.Uint32(1)})
	entry := one[len(one):]
	all := slices.Clone(one)
	for i := range uint64(mostSpans/2 + 1) {
		at := (1 + 2*i) * page
		entry, _ = appendEntry(entry[:0], &pagemap.PagemapEntry{Vaddr: &at, NrPages: proto.Uint64(1), CompatNrPages: proto.Uint32(1), Flags: proto.Uint32(inParent)})
		all = append(all, entry...)
	}
	for _, d := range dirs(filepath.Join(dir, "main"), 1) {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(d, "pagemap-7.img"), all)
	}
	if err := Join(dir, room); err == nil || !strings.Contains(err.Error(), "more than 2097152 entries") {
		t.Errorf("got %v", err)
	}
}

// A link that lies among the images leads nowhere.
func TestLinksAreNotFollowed(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	r := rand.New(rand.NewPCG(1, 1))
	w := newWorld(2)
	w.live(r, 30)
	w.dump(t, filepath.Join(dir, "main.1"), r)
	w.dump(t, filepath.Join(dir, "main"), r)
	w.rest(t, filepath.Join(dir, "main"))
	found, _ := filepath.Glob(filepath.Join(dir, "main.1", "pages-*.img"))
	to := filepath.Join(outside, "pages")
	if err := os.Rename(found[0], to); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, found[0]); err != nil {
		t.Fatal(err)
	}
	was, _ := os.ReadFile(to)
	if err := Join(dir, room); err == nil {
		t.Error("a link was taken for a file of pages")
	}
	if now, _ := os.ReadFile(to); string(now) != string(was) {
		t.Error("what the link leads to was changed")
	}
}

// FuzzPagemap: whatever an image holds, it is refused, or its pages are in order and in the file.
func FuzzPagemap(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	w := newWorld(3)
	w.live(r, 30)
	dir := f.TempDir()
	w.dump(f, dir, r)
	whole, err := os.ReadFile(filepath.Join(dir, "pagemap-7.img"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[4:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "pagemap-7.img"), data)
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		l, err := readLayer(root, ".", "pagemap-7.img", new(1<<20))
		if err != nil {
			return
		}
		var last uint64
		for _, s := range l.spans {
			if !s.parent || s.start < last || s.end() <= s.start {
				t.Errorf("let through: %+v after %#x, and there is no file of pages", s, last)
			}
			last = s.end()
		}
	})
}
