package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"google.golang.org/protobuf/proto"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/chain"
)

// TestJoined divides a dump of CRIU's into two rounds and a dump that build on one another, as CRIU would
// have written them, and joins these: what comes of it is what CRIU had dumped, byte for byte,
// and the pages that can be loaded later are those that CRIU had marked. So it needs no kernel that
// tracks what is written to.
func TestJoined(t *testing.T) {
	for name, counter := range map[string]string{"one": "LEDGER=1", "shared": "LEDGER=1 SHARED=1", "locked": "TELL=1"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("COUNTER", counter)
			a, c, m, d, last := dumped(t)
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(d.Dir)); err != nil {
				t.Fatal(err)
			}
			main := filepath.Join(dir, "main")
			maps, err := filepath.Glob(filepath.Join(main, "pagemap-*.img"))
			if err != nil || len(maps) == 0 {
				t.Fatal(maps, err)
			}
			r := rand.New(rand.NewPCG(1, 1))
			want := map[string]memory{}
			for _, file := range maps {
				m := readMemory(t, file)
				want[file] = m
				m.divide(t, file, r)
			}
			if err := chain.Join(dir, func(uint64) error { return nil }); err != nil {
				t.Fatal(err)
			}
			pages, later := 0, 0
			for file, w := range want {
				got := readMemory(t, file)
				if len(got.pages) != len(w.pages) || !bytes.Equal(got.content, w.content) {
					t.Fatalf("%s: %d pages, %d bytes, want %d and %d as CRIU had dumped them", file, len(got.pages), len(got.content), len(w.pages), len(w.content))
				}
				// CRIU 4.2.1 marks none where a stack pointer happens to be at the beginning of a page.
				marked := slices.ContainsFunc(w.pages, func(p pageAt) bool { return p.flags&lazy != 0 })
				for i, p := range w.pages {
					if g := got.pages[i]; g.at != p.at || marked && g != p {
						t.Errorf("the page at %#x is at %#x and has the flags %#x, CRIU says %#x", p.at, g.at, g.flags, p.flags)
					}
					if pages++; p.flags&lazy != 0 {
						later++
					}
				}
			}
			t.Logf("%d pages in %d maps, of which %d can be loaded later", pages, len(maps), later)
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); !slices.Equal(left, []string{main}) {
				t.Errorf("left: %q", left)
			}
			ended(t, a, c, m, last)
		})
	}
}

// memory is what a page map and its file of pages hold.
type memory struct {
	id      uint32
	pages   []pageAt
	content []byte
}

type pageAt struct {
	at    uint64
	flags uint32
}

const (
	// Flags of pages (CRIU's pagemap.h): the round before has them; they can be loaded later.
	inParent  = 1 << 0
	lazy      = 1 << 1
	pageBytes = 4096
)

func readMemory(t *testing.T, file string) (m memory) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b = b[8:] // magic numbers
	for i := 0; len(b) > 0; i++ {
		n := binary.LittleEndian.Uint32(b)
		var e pagemap.PagemapEntry
		var head pagemap.PagemapHead
		into := proto.Message(&e)
		if i == 0 {
			into = &head
		}
		if err := proto.Unmarshal(b[4:4+n], into); err != nil {
			t.Fatal(err)
		}
		if b = b[4+n:]; i == 0 {
			m.id = head.GetPagesId()
			continue
		}
		for k := range e.GetNrPages() {
			m.pages = append(m.pages, pageAt{e.GetVaddr() + k*pageBytes, e.GetFlags()})
		}
	}
	m.content, err = os.ReadFile(filepath.Join(filepath.Dir(file), fmt.Sprintf("pages-%d.img", m.id)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// divide writes the memory anew: each page is in the dump, in the second round, or in the first. What a later one has
// was another page before.
func (m memory) divide(t *testing.T, file string, r *rand.Rand) {
	t.Helper()
	in := make([]int, len(m.pages))
	for i := range in {
		if in[i] = r.IntN(3); i > 0 && r.IntN(8) > 0 {
			in[i] = in[i-1] // pages that are side by side have much in common
		}
	}
	dir := filepath.Dir(file)
	for layer, to := range []string{layout.RoundDir(dir, 1), layout.RoundDir(dir, 2), dir} {
		var content []byte
		b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 0x54564319), 0x56084025)
		add := func(e proto.Message) {
			data, err := proto.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
		}
		add(&pagemap.PagemapHead{PagesId: &m.id})
		for i, p := range m.pages {
			flags := p.flags
			switch {
			case in[i] == layer:
				content = append(content, m.content[i*pageBytes:(i+1)*pageBytes]...)
			case in[i] > layer:
				content = append(content, bytes.Repeat([]byte{byte(i), 0xee}, pageBytes/2)...)
			default:
				flags = inParent
			}
			add(&pagemap.PagemapEntry{Vaddr: &p.at, NrPages: proto.Uint64(1), CompatNrPages: proto.Uint32(1), Flags: &flags})
		}
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{filepath.Base(file): b, fmt.Sprintf("pages-%d.img", m.id): content} {
			if err := os.WriteFile(filepath.Join(to, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
