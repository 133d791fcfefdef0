package filetree

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func root() Entry            { return Entry{Kind: Dir, Mode: 0o755} }
func file(name string) Entry { return Entry{Name: name, Kind: File, Mode: 0o600} }

// No index gets by its check that could lead out of its tree, or make what must not be made.
func TestHostileIndexes(t *testing.T) {
	with := func(e Entry, change func(*Entry)) Entry { change(&e); return e }
	extents := func(size int64, all ...Extent) Entry {
		return with(file("f"), func(e *Entry) { e.Size, e.Extents = size, all })
	}
	link := func(of int) Entry { return Entry{Name: "l", Kind: Link, Of: of} }
	attr := func(names ...string) Entry {
		return with(file("f"), func(e *Entry) {
			for _, n := range names {
				e.Xattrs = append(e.Xattrs, Xattr{Name: n})
			}
		})
	}
	deep := []Entry{root()}
	for i := range maxDepth + 1 {
		deep = append(deep, Entry{Parent: i, Name: "d", Kind: Dir})
	}
	long := []Entry{root()}
	for i := range 20 {
		long = append(long, Entry{Parent: i, Name: strings.Repeat("n", maxName), Kind: Dir})
	}
	for name, entries := range map[string][]Entry{
		"nothing":               {},
		"no root":               {file("f")},
		"a root with a name":    {with(root(), func(e *Entry) { e.Name = "r" })},
		"up":                    {root(), file("..")},
		"itself":                {root(), file(".")},
		"no name":               {root(), file("")},
		"a path":                {root(), file("a/b")},
		"absolute":              {root(), file("/etc/passwd")},
		"NUL":                   {root(), file("a\x00b")},
		"a name too long":       {root(), file(strings.Repeat("n", maxName+1))},
		"in a file":             {root(), file("f"), with(file("g"), func(e *Entry) { e.Parent = 1 })},
		"in a link":             {root(), {Name: "s", Kind: Symlink, Target: "/"}, with(file("g"), func(e *Entry) { e.Parent = 1 })},
		"in itself":             {root(), {Name: "d", Kind: Dir, Parent: 1}},
		"in what comes later":   {root(), with(file("g"), func(e *Entry) { e.Parent = 2 }), {Name: "d", Kind: Dir}},
		"in nothing":            {root(), with(file("g"), func(e *Entry) { e.Parent = -1 })},
		"twice":                 {root(), file("f"), file("f")},
		"a file, then a link":   {root(), file("f"), {Name: "f", Kind: Symlink, Target: "/"}},
		"too deep":              deep,
		"a path too long":       long,
		"a device":              {root(), {Name: "d", Kind: 8}},
		"no kind":               {root(), {Name: "d"}},
		"a whiteout":            {root(), {Name: "w", Kind: Whiteout}},
		"opaque":                {root(), {Name: "w", Kind: Dir, Opaque: true}},
		"mode with a type":      {root(), with(file("f"), func(e *Entry) { e.Mode = unix.S_IFCHR | 0o666 })},
		"owner kept":            {root(), with(file("f"), func(e *Entry) { e.UID = 1<<32 - 1 })},
		"group kept":            {root(), with(file("f"), func(e *Entry) { e.GID = 1<<32 - 1 })},
		"time":                  {root(), with(file("f"), func(e *Entry) { e.Nsec = 1e9 })},
		"link to a directory":   {root(), link(0)},
		"link to itself":        {root(), link(1)},
		"link to a later":       {root(), link(2), file("f")},
		"link to a link":        {root(), file("f"), link(1), with(link(2), func(e *Entry) { e.Name = "m" })},
		"a link nowhere":        {root(), {Name: "s", Kind: Symlink}},
		"a link with a NUL":     {root(), {Name: "s", Kind: Symlink, Target: "a\x00"}},
		"content past the end":  {root(), extents(10, Extent{5, 6})},
		"content before zero":   {root(), extents(10, Extent{-1, 2})},
		"overlapping content":   {root(), extents(10, Extent{0, 6}, Extent{5, 2})},
		"backward content":      {root(), extents(1<<20, Extent{8192, 1}, Extent{0, 1})},
		"empty content":         {root(), extents(10, Extent{0, 0})},
		"content that wraps":    {root(), extents(1<<62, Extent{1 << 61, 1<<63 - 1})},
		"more than the limit":   {root(), extents(1<<40, Extent{0, 1 << 40})},
		"all is the limit":      {root(), extents(1<<62, Extent{0, 1<<62 - 1})},
		"negative size":         {root(), extents(-1)},
		"a pipe with content":   {root(), {Name: "p", Kind: FIFO, Size: 1}},
		"trusted attribute":     {root(), attr("trusted.overlay.redirect")},
		"SELinux label":         {root(), attr("security.selinux")},
		"IMA signature":         {root(), attr("security.ima")},
		"attribute of no name":  {root(), attr("user.")},
		"attribute twice":       {root(), attr("user.a", "user.a")},
		"attributes of a link":  {root(), {Name: "s", Kind: Symlink, Target: "x", Xattrs: []Xattr{{Name: "user.a"}}}},
		"attribute with a NUL":  {root(), attr("user.a\x00b")},
		"attribute too large":   {root(), with(file("f"), func(e *Entry) { e.Xattrs = []Xattr{{"user.a", make([]byte, maxXattr+1)}} })},
		"hidden in a whiteout":  {root(), {Name: "w", Kind: Whiteout, Target: "x"}},
		"a directory of a size": {root(), {Name: "d", Kind: Dir, Size: 1}},
	} {
		if err := (&Index{Entries: entries}).Check(roomy); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := Index{Entries: []Entry{root(), file("a"), file("b")}}
	if err := many.Check(Limits{Bytes: 1, Entries: 2}); !errors.Is(err, ErrUnfit) {
		t.Errorf("too many: %v", err)
	}
	if err := many.Check(roomy); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// What a container has at a name that an index wants is replaced, never followed.
func TestNothingIsFollowed(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	outside, inside := filepath.Join(base, "outside"), filepath.Join(base, "inside")
	try(t, os.Mkdir(outside, 0o700), os.Mkdir(inside, 0o755), os.WriteFile(outside+"/secret", []byte("secret"), 0o600))
	before := stat(t, outside+"/secret")
	try(t, os.Symlink(outside, inside+"/dir"), os.Symlink(outside+"/secret", inside+"/f"),
		os.Symlink(outside+"/secret", inside+"/kept"), os.Mkdir(inside+"/tree", 0o755), os.Symlink(outside, inside+"/tree/out"))
	x := &Index{Entries: []Entry{
		root(), {Name: "dir", Kind: Dir, Mode: 0o777, UID: 7}, {Parent: 1, Name: "secret", Kind: File, Mode: 0o666, Size: 4, Extents: []Extent{{0, 4}}},
		{Name: "f", Kind: File, Mode: 0o4777, UID: 7}, {Name: "kept", Kind: FIFO, Mode: 0o777, UID: 7}, {Name: "tree", Kind: File},
	}}
	try(t, x.Check(roomy), Unpack(t.Context(), inside, x, bytes.NewReader([]byte("evil"))))
	after := stat(t, outside+"/secret")
	if content, err := os.ReadFile(outside + "/secret"); err != nil || string(content) != "secret" || after.Mode != before.Mode || after.Uid != before.Uid || after.Ctim != before.Ctim {
		t.Errorf("outside: %q, %v, %+v, was %+v", content, err, after, before)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
	if content, err := os.ReadFile(inside + "/dir/secret"); err != nil || string(content) != "evil" {
		t.Errorf("inside: %q, %v", content, err)
	}
}

// A link that takes a directory's place while it is unpacked into leads nowhere, and neither
// does a file system that is mounted there.
func TestDirectoryIsTakenAway(t *testing.T) {
	needRoot(t)
	for name, take := range map[string]func(inside, outside string) error{
		"link": func(inside, outside string) error {
			return errors.Join(os.Remove(inside+"/d"), os.Symlink(outside, inside+"/d"))
		},
		"mount": func(inside, outside string) error { return unix.Mount(outside, inside+"/d", "", unix.MS_BIND, "") },
	} {
		t.Run(name, func(t *testing.T) {
			inside, outside := t.TempDir(), t.TempDir()
			x := &Index{Entries: []Entry{root(), {Name: "d", Kind: Dir, Mode: 0o755}, file("between"), {Parent: 1, Name: "f", Kind: File, Mode: 0o600}}}
			x.Entries[2].Size, x.Entries[2].Extents = 1, []Extent{{0, 1}}
			defer unix.Unmount(inside+"/d", unix.MNT_DETACH)
			// The content of a file comes between the directory and what is in it.
			err := Unpack(t.Context(), inside, x, readerAt(func() error { return take(inside, outside) }))
			if err == nil {
				t.Error("no error")
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
				t.Errorf("outside: %v, %v", left, err)
			}
		})
	}
}

type readerAt func() error

func (r readerAt) ReadAt(b []byte, _ int64) (int, error) { return len(b), r() }

func FuzzDecode(f *testing.F) {
	x := &Index{Layer: true, Entries: []Entry{
		root(), {Name: "d", Kind: Dir, Opaque: true}, {Parent: 1, Name: "f", Kind: File, Mode: 0o4755, Size: 9000, Extents: []Extent{{0, 10}, {8192, 1}},
			Xattrs: []Xattr{{"user.a", []byte("b")}}},
		{Name: "l", Kind: Link, Of: 2}, {Name: "s", Kind: Symlink, Target: "/"}, {Name: "w", Kind: Whiteout}, {Name: "p", Kind: FIFO}, {Name: "q", Kind: Socket},
	}}
	b, err := x.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(magic))
	limits := Limits{Bytes: 1 << 20, Entries: 100}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Decode(bytes.NewReader(b), limits)
		if err != nil {
			if !errors.Is(err, ErrUnfit) {
				t.Errorf("%v is no refusal", err)
			}
			return
		}
		if x.DataSize() > limits.Bytes || len(x.Entries) > limits.Entries {
			t.Errorf("%d bytes, %d entries", x.DataSize(), len(x.Entries))
		}
		for i := range x.Entries {
			if p := x.Path(i); p != "" && !filepath.IsLocal(p) {
				t.Errorf("the path %q", p)
			}
		}
		again, err := x.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(bytes.NewReader(again), limits); err != nil {
			t.Errorf("encoded again: %v", err)
		}
	})
}
