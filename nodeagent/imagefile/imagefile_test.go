package imagefile

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// image has entries with these bytes.
func image(magic uint32, entries ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, CommonMagic), magic)
	for _, e := range entries {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(e))), e...)
	}
	return b
}

func head(t testing.TB, id uint32) []byte {
	b, err := proto.Marshal(&pagemap.PagemapHead{PagesId: &id})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEach(t *testing.T) {
	big := append(head(t, 9), protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), make([]byte, MaxEntry))...)
	two := image(PagemapMagic, head(t, 7), head(t, 8))
	for name, c := range map[string]struct {
		image []byte
		ids   []uint32
		says  string
	}{
		"two":                  {two, []uint32{7, 8}, ""},
		"of before":            {two[4:], []uint32{7, 8}, ""},
		"none":                 {image(PagemapMagic), nil, ""},
		"nothing":              {nil, nil, "magic number"},
		"another":              {image(MMMagic), nil, "magic number"},
		"the second cut short": {two[:len(two)-1], []uint32{7}, "was announced"},
		"half a size":          {append(image(PagemapMagic, head(t, 7)), 1, 0), []uint32{7}, "unexpected EOF"},
		"one too large":        {image(PagemapMagic, head(t, 7), big), []uint32{7}, "want at most"},
		"no entry":             {image(PagemapMagic, []byte{0xff}), nil, "proto"},
	} {
		var ids []uint32
		err := Each(bytes.NewReader(c.image), PagemapMagic, func(h *pagemap.PagemapHead) error { ids = append(ids, h.GetPagesId()); return nil })
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) || !slices.Equal(ids, c.ids) {
			t.Errorf("%s: %v, %v; want %v, %q", name, ids, err, c.ids, c.says)
		}
	}
}

// What comes after the one entry of an image would be hidden.
func TestOne(t *testing.T) {
	var h pagemap.PagemapHead
	if err := One(bytes.NewReader(image(PagemapMagic, head(t, 7))), PagemapMagic, &h); err != nil || h.GetPagesId() != 7 {
		t.Errorf("%v, %v", &h, err)
	}
	for name, b := range map[string][]byte{"none": image(PagemapMagic), "two": image(PagemapMagic, head(t, 7), nil), "some more": append(image(PagemapMagic, head(t, 7)), 0)} {
		if err := One(bytes.NewReader(b), PagemapMagic, &h); err == nil {
			t.Errorf("%s: taken for one", name)
		}
	}
}

// mappings is an entry with some.
func mappings(t testing.TB, starts ...uint64) []byte {
	t.Helper()
	e := &mm.MmEntry{}
	for _, s := range starts {
		e.Vmas = append(e.Vmas, &vma.VmaEntry{Start: &s, End: proto.Uint64(s + 1), Pgoff: proto.Uint64(0), Shmid: proto.Uint64(0),
			Prot: proto.Uint32(0), Flags: proto.Uint32(2), Status: proto.Uint32(1), Fd: proto.Int64(-1)})
	}
	b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMappings(t *testing.T) {
	other := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 5)
	var got []uint64
	read := func(b []byte) error {
		got = nil
		return Mappings(bytes.NewReader(b), func(v *vma.VmaEntry) error { got = append(got, v.GetStart()); return nil })
	}
	if err := read(image(MMMagic, append(other, mappings(t, 4096, 8192)...))); err != nil || len(got) != 2 || got[1] != 8192 {
		t.Errorf("%v, %v", got, err)
	}
	empties := bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, vmas, protowire.BytesType), nil), MaxEntry/8)
	for name, b := range map[string][]byte{
		"no entry":    image(MMMagic),
		"two":         image(MMMagic, mappings(t, 4096), mappings(t, 8192)),
		"cut short":   image(MMMagic, mappings(t, 4096)[:9]),
		"empty ones":  image(MMMagic, empties),
		"another":     image(PagemapMagic, mappings(t, 4096)),
		"no protobuf": image(MMMagic, []byte{0xff, 0xff}),
	} {
		if err := read(b); err == nil || len(got) > 1 {
			t.Errorf("%s: %d mappings, %v", name, len(got), err)
		}
	}
}

// FuzzMappings: whatever an image holds, what is read of it is what protobuf reads, or it is an error.
func FuzzMappings(f *testing.F) {
	f.Add(mappings(f, 4096, 8192))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, entry []byte) {
		var got []uint64
		err := Mappings(bytes.NewReader(image(MMMagic, entry)), func(v *vma.VmaEntry) error { got = append(got, v.GetStart()); return nil })
		var want mm.MmEntry
		if werr := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(entry, &want); err != nil || werr != nil {
			return
		}
		if len(got) != len(want.GetVmas()) {
			t.Fatalf("%d mappings, protobuf has %d", len(got), len(want.GetVmas()))
		}
		for i, v := range want.GetVmas() {
			if got[i] != v.GetStart() {
				t.Errorf("mapping %d at %#x, protobuf has %#x", i, got[i], v.GetStart())
			}
		}
	})
}
