package filetree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var roomy = Limits{Bytes: 1 << 30, Entries: 10_000}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make files of other users")
	}
}

// packed packs a tree, and gives what a target gets: the index as it is decoded, and the data.
func packed(t *testing.T, root string, o Options) (*Index, []byte) {
	t.Helper()
	data, err := os.Create(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	o.Limits = roomy
	x, err := Pack(t.Context(), root, o, data)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(bytes.NewReader(b), roomy)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, x) {
		t.Fatalf("encoded and decoded:\n%+v\nwas\n%+v", got, x)
	}
	content, err := os.ReadFile(data.Name())
	if err != nil || int64(len(content)) != x.DataSize() {
		t.Fatalf("%d bytes of data, %v; want %d", len(content), err, x.DataSize())
	}
	return got, content
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

func try(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// grower makes random trees.
type grower struct {
	t      *testing.T
	random *rand.Rand
	files  []string
	left   int
}

func (g *grower) grow(dir string, depth int) {
	for range 2 + g.random.IntN(6) {
		if g.left--; g.left < 0 {
			return
		}
		p := filepath.Join(dir, g.name())
		switch g.random.IntN(8) {
		case 0, 1:
			if depth < 5 {
				if os.Mkdir(p, 0o755) == nil {
					g.grow(p, depth+1)
					g.dress(p)
				}
			}
		case 2:
			_ = os.Symlink("../"+g.name()+"/nowhere", p)
		case 3:
			_ = unix.Mkfifo(p, 0o640)
		case 4:
			_ = unix.Mknod(p, unix.S_IFSOCK|0o750, 0)
		case 5:
			if len(g.files) > 0 {
				_ = os.Link(g.files[g.random.IntN(len(g.files))], p)
			}
		default:
			g.file(p)
		}
	}
}

// name is any that Linux takes.
func (g *grower) name() string {
	b := make([]byte, 1+g.random.IntN(12))
	for i := range b {
		for b[i] == 0 || b[i] == '/' {
			b[i] = byte(g.random.IntN(256))
		}
	}
	if s := string(b); s != "." && s != ".." {
		return s
	}
	return "x"
}

func (g *grower) file(p string) {
	f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // the name is taken
	}
	defer f.Close()
	for range g.random.IntN(4) {
		b := make([]byte, 1+g.random.IntN(3*Page))
		for i := range b {
			b[i] = byte(g.random.Uint32())
		}
		_, err := f.WriteAt(b, int64(g.random.IntN(64))*Page+int64(g.random.IntN(2)*77))
		try(g.t, err)
	}
	if g.random.IntN(3) == 0 {
		try(g.t, f.Truncate(int64(g.random.IntN(1<<20))))
	}
	g.files = append(g.files, p)
	g.dress(p)
}

func (g *grower) dress(p string) {
	try(g.t, os.Chown(p, g.random.IntN(70000), g.random.IntN(70000)))
	try(g.t, unix.Chmod(p, g.random.Uint32N(0o10000)))
	if g.random.IntN(3) == 0 {
		try(g.t, unix.Setxattr(p, "user.k"+fmt.Sprint(g.random.IntN(9)), []byte(g.name()), 0))
	}
	if g.random.IntN(9) == 0 {
		// v2, cap_net_bind_service (linux/capability.h).
		try(g.t, unix.Setxattr(p, "security.capability", append([]byte{1, 0, 0, 2, 0, 4}, make([]byte, 14)...), 0))
	}
	at := unix.NsecToTimespec(g.random.Int64N(4e18) - 2e18)
	try(g.t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, 0))
}

// What is unpacked is what was packed: packed again it is the same, to the last byte.
func TestRandomTrees(t *testing.T) {
	needRoot(t)
	for seed := range uint64(40) {
		g := &grower{t: t, random: rand.New(rand.NewPCG(seed, 1)), left: 60}
		from, to := t.TempDir(), t.TempDir()
		g.grow(from, 0)
		g.dress(from)
		x, data := packed(t, from, Options{})
		// A second time nothing of what is there is in the way.
		for range 2 {
			try(t, Unpack(t.Context(), to, x, bytes.NewReader(data)))
			again, same := packed(t, to, Options{})
			if !reflect.DeepEqual(again, x) || !bytes.Equal(same, data) {
				t.Fatalf("seed %d: unpacked\n%+v\nwas\n%+v", seed, again, x)
			}
		}
		// Programs that know nothing of this package see the same, too.
		const all = `cd "$1"; find . -printf '%p %y %m %U %G %T@ %n %l %Y\n' | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum; getfattr -dhR -m 'user|capability' . 2>/dev/null || true`
		if was, is := run(t, "sh", "-c", all, "", from), run(t, "sh", "-c", all, "", to); was != is {
			t.Fatalf("seed %d: unpacked\n%s\nwas\n%s", seed, is, was)
		}
	}
}

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	try(t, unix.Lstat(path, &st))
	return st
}

// A file keeps its holes, and each of its extents begins at a page.
func TestSparse(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	f, err := os.Create(from + "/sparse")
	try(t, err)
	_, err = f.WriteAt([]byte("begin"), 0)
	_, err2 := f.WriteAt([]byte("end"), 1<<30)
	try(t, err, err2, f.Close(), os.WriteFile(from+"/z", []byte("after"), 0o600))
	x, data := packed(t, from, Options{})
	if len(data) != 3*Page || string(data[2*Page:2*Page+5]) != "after" {
		t.Errorf("%d bytes of data", len(data))
	}
	try(t, Unpack(t.Context(), to, x, bytes.NewReader(data)))
	st := stat(t, to+"/sparse")
	if st.Size != 1<<30+3 || st.Blocks*512 > 16*Page {
		t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
	}
	used, err := Survey(t.Context(), from, Options{Limits: roomy})
	if err != nil || used.Bytes < int64(len(data)) || used.Entries != 3 {
		t.Errorf("surveyed %+v, %v, packed %d bytes", used, err, len(data))
	}
}

// overlay mounts one, and gives its upper directory and where all is merged.
func mountOverlay(t *testing.T, lower string) (upper, merged string) {
	t.Helper()
	needRoot(t)
	base := t.TempDir()
	// An upper layer cannot be in an overlay, which the directory for tests may be.
	try(t, unix.Mount("tmpfs", base, "tmpfs", 0, ""))
	t.Cleanup(func() { try(t, unix.Unmount(base, 0)) })
	for _, d := range []string{"upper", "work", "merged"} {
		try(t, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	upper, merged = base+"/upper", base+"/merged"
	try(t, unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+base+"/work"))
	t.Cleanup(func() { try(t, unix.Unmount(merged, 0)) })
	return upper, merged
}

const lowerTree = `cd "$1"; mkdir -p bin etc/conf.d var/cache/deep var/log; echo sh > bin/sh; chmod 4755 bin/sh
	for i in a b c; do echo $i > etc/conf.d/$i; echo $i > var/cache/$i; done; echo x > var/cache/deep/x
	ln -s ../etc/conf.d/a var/link; echo motd > etc/motd; mkdir -p opt/app; echo 1 > opt/app/1`

const changeTree = `cd "$1"; rm etc/motd; rm -r var/cache; mkdir var/cache; echo new > var/cache/new
	echo more >> etc/conf.d/a; chmod 600 etc/conf.d/b; rm -r opt/app; echo file > opt/app
	rm var/link; mkdir var/link; echo y > var/link/y; mkdir -p srv/data; echo z > srv/data/z; ln srv/data/z srv/z2
	rm bin/sh; ln -s /bin/true bin/sh; mkfifo srv/pipe; chown 12:34 var/log; chmod 2775 var/log`

// A layer that was packed from the upper directory and unpacked through another overlay over the
// same lower one shows the same, by whiteouts and opaque directories in the same places.
func TestLayer(t *testing.T) {
	lower := t.TempDir()
	run(t, "sh", "-c", lowerTree, "", lower)
	upper, merged := mountOverlay(t, lower)
	run(t, "sh", "-c", changeTree, "", merged)
	x, data := packed(t, upper, Options{Layer: true})
	var hidden, opaque []string
	for i, e := range x.Entries {
		if e.Kind == Whiteout {
			hidden = append(hidden, x.Path(i))
		}
		if e.Opaque {
			opaque = append(opaque, x.Path(i))
		}
	}
	if fmt.Sprint(hidden, opaque) != "[etc/motd] [srv var/cache var/link]" && fmt.Sprint(hidden, opaque) != "[etc/motd] [var/cache var/link]" {
		t.Errorf("whiteouts %v, opaque %v", hidden, opaque)
	}
	upper2, merged2 := mountOverlay(t, lower)
	// What a runtime has made there before.
	run(t, "sh", "-c", `cd "$1"; mkdir -p srv; touch etc/hosts`, "", merged2)
	try(t, Unpack(t.Context(), merged2, x, bytes.NewReader(data)))
	run(t, "sh", "-c", `rm "$1"/etc/hosts`, "", merged2)
	const all = `cd "$1"; find . ! -name etc -printf '%p %y %m %U %G %T@ %l\n' | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum`
	if was, is := run(t, "sh", "-c", all, "", merged), run(t, "sh", "-c", all, "", merged2); was != is {
		t.Errorf("unpacked\n%s\nwas\n%s", is, was)
	}
	again, _ := packed(t, upper2, Options{Layer: true})
	for i := range again.Entries {
		if e := again.Entries[i]; e.Kind == Whiteout && again.Path(i) != "etc/motd" {
			t.Errorf("a whiteout more: %s", again.Path(i))
		}
	}
}

// What cannot travel is refused with its name, before and at the packing.
func TestUnfit(t *testing.T) {
	needRoot(t)
	deep := strings.Repeat("d/", maxDepth+1)
	for name, c := range map[string]struct {
		make  func(dir string) error
		layer bool
		limit Limits
		says  string
	}{
		"device":            {func(d string) error { return unix.Mknod(d+"/null", unix.S_IFCHR, int(unix.Mkdev(1, 3))) }, true, roomy, `"null" is a device node (1:3)`},
		"whiteout outside":  {func(d string) error { return unix.Mknod(d+"/w", unix.S_IFCHR, 0) }, false, roomy, `"w" is a device node (0:0)`},
		"deep":              {func(d string) error { return os.MkdirAll(d+"/"+deep, 0o755) }, false, roomy, "lies too deep"},
		"redirect":          {func(d string) error { return marked(d, "redirect", "/old") }, true, roomy, "trusted.overlay.redirect"},
		"metacopy":          {func(d string) error { return marked(d, "metacopy", "") }, true, roomy, "trusted.overlay.metacopy"},
		"too many":          {func(d string) error { return errors.Join(os.Mkdir(d+"/a", 0o755), os.Mkdir(d+"/b", 0o755)) }, false, Limits{1 << 20, 2}, "more than 2"},
		"too much":          {func(d string) error { return os.WriteFile(d+"/big", make([]byte, 2<<20), 0o600) }, false, Limits{1 << 20, 9}, "hold more than"},
		"mounted elsewhere": {func(d string) error { return errors.Join(os.Mkdir(d+"/m", 0o755), mountedAt(t, d+"/m")) }, false, roomy, `"m" is a file system that is mounted there`},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			try(t, unix.Mount("tmpfs", base, "tmpfs", 0, "")) // which has all that overlays want
			defer unix.Unmount(base, unix.MNT_DETACH)
			try(t, c.make(base))
			data, err := os.Create(filepath.Join(t.TempDir(), "data"))
			try(t, err)
			defer data.Close()
			o := Options{Layer: c.layer, Limits: c.limit}
			_, packing := Pack(t.Context(), base, o, data)
			_, surveying := Survey(t.Context(), base, o)
			for _, err := range []error{packing, surveying} {
				if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want %q", err, c.says)
				}
			}
		})
	}
}

func marked(dir, mark, value string) error {
	return errors.Join(os.Mkdir(dir+"/f", 0o755), unix.Setxattr(dir+"/f", overlay+mark, []byte(value), 0))
}

func mountedAt(_ *testing.T, dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") }

// A tree that changes while it is packed makes a hint that can be unpacked.
func TestLive(t *testing.T) {
	root := t.TempDir()
	try(t, os.MkdirAll(root+"/d", 0o755))
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			p := fmt.Sprintf("%s/d/%d", root, i%50)
			_ = os.WriteFile(p, make([]byte, i%9*1000), 0o600)
			_ = os.Remove(fmt.Sprintf("%s/d/%d", root, (i+25)%50))
			_ = os.Truncate(p, 1)
		}
	}()
	for range 50 {
		x, data := packed(t, root, Options{Live: true})
		try(t, Unpack(t.Context(), t.TempDir(), x, bytes.NewReader(data)))
	}
	close(stop)
	<-stopped
}

// Less data than the index tells of is an error, and so is a file system without room.
func TestShort(t *testing.T) {
	from := t.TempDir()
	try(t, os.WriteFile(from+"/f", make([]byte, 3*Page), 0o600))
	x, data := packed(t, from, Options{})
	if err := Unpack(t.Context(), t.TempDir(), x, bytes.NewReader(data[:Page])); !errors.Is(err, io.EOF) {
		t.Errorf("data that ends early: %v", err)
	}
	needRoot(t)
	small := t.TempDir()
	try(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=8k"))
	defer unix.Unmount(small, 0)
	if err := Unpack(t.Context(), small, x, bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), "do not fit") {
		t.Errorf("a full file system: %v", err)
	}
	if left, err := os.ReadDir(small); err != nil || len(left) != 0 {
		t.Errorf("it has %v, %v", left, err)
	}
}

// BenchmarkFiles is what files add to the frozen time beside the transfer: one large file, and
// many small ones, by tmpfs.
func BenchmarkFiles(b *testing.B) {
	for name, c := range map[string]struct{ files, size int }{"256MiB": {1, 256 << 20}, "10000x4KiB": {10_000, 4 << 10}} {
		b.Run(name, func(b *testing.B) {
			base := b.TempDir()
			if err := unix.Mount("tmpfs", base, "tmpfs", 0, ""); err != nil {
				b.Skip(err)
			}
			defer unix.Unmount(base, 0)
			content := make([]byte, c.size)
			for i := range content {
				content[i] = byte(i >> 12)
			}
			from := base + "/from"
			errs := []error{os.Mkdir(from, 0o755)}
			for i := range c.files {
				errs = append(errs, os.WriteFile(fmt.Sprintf("%s/%d", from, i), content, 0o600))
			}
			limits := Limits{Bytes: 1 << 30, Entries: 20_000}
			var pack, unpack time.Duration
			for i := 0; b.Loop(); i++ {
				data, err := os.Create(base + "/data")
				began := time.Now()
				x, err2 := Pack(b.Context(), from, Options{Limits: limits}, data)
				pack += time.Since(began)
				to := fmt.Sprintf("%s/to%d", base, i)
				errs = append(errs, err, err2, os.Mkdir(to, 0o755))
				if err := errors.Join(errs...); err != nil {
					b.Fatal(err)
				}
				began = time.Now()
				errs = append(errs, Unpack(b.Context(), to, x, data))
				unpack += time.Since(began)
				errs = append(errs, data.Close(), os.RemoveAll(to))
			}
			if err := errors.Join(errs...); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(pack.Milliseconds())/float64(b.N), "pack-ms")
			b.ReportMetric(float64(unpack.Milliseconds())/float64(b.N), "unpack-ms")
		})
	}
}
