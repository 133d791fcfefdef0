package precopy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
)

func TestAnother(t *testing.T) {
	l := Limits{Rounds: 4, Time: 10 * time.Second, Little: 100}
	for name, c := range map[string]struct {
		fresh      []model.Bytes
		took, last time.Duration
		want       bool
	}{
		"nothing read yet":      {want: true},
		"one":                   {fresh: []model.Bytes{1000}, took: 1, last: 1, want: true},
		"much less":             {fresh: []model.Bytes{1000, 699}, want: true},
		"not much less":         {fresh: []model.Bytes{1000, 700}, want: false},
		"little":                {fresh: []model.Bytes{1000, 100}, want: false},
		"as many as there are":  {fresh: []model.Bytes{10000, 4000, 2000, 1000}, want: false},
		"no time for another":   {fresh: []model.Bytes{1000}, took: 6 * time.Second, last: 5 * time.Second, want: false},
		"just time for another": {fresh: []model.Bytes{1000}, took: 5 * time.Second, last: 5 * time.Second, want: true},
	} {
		if got := l.another(c.fresh, c.took, c.last); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// sink keeps pages by their content.
type sink struct {
	pages  map[string]bool
	rounds int
	round  func()
	err    error
}

func (s *sink) Add(memory []byte) (fresh model.Bytes, err error) {
	for p := range slices.Chunk(memory, page) {
		if !s.pages[string(p)] {
			s.pages[string(p)] = true
			fresh += page
		}
	}
	return fresh, s.err
}

func (s *sink) Round() {
	s.rounds++
	if s.round != nil {
		s.round()
	}
}

func own() ([]int, error) { return []int{os.Getpid()}, nil }

// area of this process with random contents: what others have must not be found in it.
func memory(t *testing.T, pages int, flags int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

func (s *sink) wants(t *testing.T, b []byte) {
	t.Helper()
	for p := range slices.Chunk(b, page) {
		if !s.pages[string(p)] {
			t.Fatal("a page was not found")
		}
	}
}

func TestCopy(t *testing.T) {
	private, shared := memory(t, 300, unix.MAP_PRIVATE), memory(t, 5, unix.MAP_SHARED)
	memory(t, 1<<20, unix.MAP_PRIVATE|unix.MAP_NORESERVE) // 4 GiB that nobody has touched
	rand.Read(private)
	rand.Read(shared)
	first := bytes.Clone(private)
	s := &sink{pages: map[string]bool{}}
	s.round = func() {
		if s.rounds == 1 {
			rand.Read(private[:10*page])
		}
	}
	stats, err := Copy(t.Context(), own, s, Limits{Rounds: 2, Time: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s.wants(t, first)
	s.wants(t, private)
	s.wants(t, shared)
	if len(stats.Fresh) != 2 || s.rounds != 2 || stats.Fresh[1] < 10*page || stats.Fresh[1] > stats.Fresh[0]/2 {
		t.Errorf("%+v in %d rounds", stats, s.rounds)
	}
	if stats.Read > model.GiB {
		t.Errorf("%d bytes were read: pages that are not there, too", stats.Read)
	}
}

// Files are read at the lowest priority. That the time for it is over is no error; what fails is one.
func TestFiles(t *testing.T) {
	s := &sink{pages: map[string]bool{}}
	content := bytes.Repeat([]byte("f"), page)
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		then func(ctx context.Context) error
		want error
	}{
		"all":     {func(context.Context) error { return nil }, nil},
		"fails":   {func(context.Context) error { return broken }, broken},
		"no time": {func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("pack: %w", ctx.Err()) }, nil},
	} {
		clear(s.pages)
		nice := 0
		err := Files(t.Context(), func(ctx context.Context, add func([]byte) error) (err error) {
			nice, err = unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
			return errors.Join(err, add(content), c.then(ctx))
		}, s, 100*time.Millisecond)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
		s.wants(t, content)
		if nice != 20-lowest { // as the system call tells it
			t.Errorf("%s: read at %d", what, nice)
		}
	}
	s.err = broken
	if err := Files(t.Context(), func(_ context.Context, add func([]byte) error) error { return add(content) }, s, time.Minute); !errors.Is(err, broken) {
		t.Errorf("the sink fails: %v", err)
	}
}

// The time is kept also where there is nothing to read: it takes minutes to look through 64 TiB
// for pages.
func TestHugeMapping(t *testing.T) {
	memory(t, 1<<34, unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if _, err := Copy(t.Context(), own, &sink{pages: map[string]bool{}}, Limits{Rounds: 1, Time: 100 * time.Millisecond}); err != nil {
		t.Error(err)
	}
}

// What does not answer holds nobody up.
func TestStuck(t *testing.T) {
	answer := make(chan struct{})
	defer close(answer)
	stuck := func() ([]int, error) {
		<-answer
		return own()
	}
	if _, err := Copy(t.Context(), stuck, &sink{}, Limits{Rounds: 1, Time: time.Millisecond}); err == nil {
		t.Error("nobody is told")
	}
}

// Whatever comes after it was given up does not reach the sink.
func TestGuarded(t *testing.T) {
	s := &sink{pages: map[string]bool{}}
	g := &guarded{sink: s}
	if n, err := g.Add(make([]byte, page)); n != page || err != nil {
		t.Error(n, err)
	}
	g.Round()
	g.shut()
	if n, err := g.Add(bytes.Repeat([]byte{1}, page)); n != 0 || !errors.Is(err, errOver) {
		t.Error(n, err)
	}
	g.Round()
	if len(s.pages) != 1 || s.rounds != 1 {
		t.Errorf("%d pages in %d rounds", len(s.pages), s.rounds)
	}
}

// Files are on the target already, or come with it.
func TestFilesAreNotRead(t *testing.T) {
	name := t.TempDir() + "/file"
	content := make([]byte, 3*page)
	rand.Read(content)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// content is on the heap, and will be found there: forget it once it is compared.
	b, err := unix.Mmap(int(f.Fd()), 0, len(content), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	clear(content)
	sum := 0
	for _, c := range b {
		sum += int(c) // all pages are there
	}
	s := &sink{pages: map[string]bool{}}
	if _, err := Copy(t.Context(), own, s, Limits{Rounds: 1, Time: time.Minute}); err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(b, page) {
		if s.pages[string(p)] {
			t.Error("a page of a file was read", sum)
		}
	}
}

// A process that is not listed any more when it has been opened is not read.
func TestPIDOfAnother(t *testing.T) {
	asked := 0
	list := func() ([]int, error) {
		if asked++; asked > 1 {
			return nil, nil
		}
		return own()
	}
	s := &sink{pages: map[string]bool{}}
	if stats, err := Copy(t.Context(), list, s, Limits{Rounds: 1, Time: time.Minute}); err != nil || stats.Read > 0 {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestCopyEnds(t *testing.T) {
	limits := Limits{Rounds: 3, Time: time.Minute}
	broken := errors.New("broken")
	if _, err := Copy(t.Context(), func() ([]int, error) { return nil, broken }, &sink{}, limits); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := Copy(t.Context(), own, &sink{pages: map[string]bool{}, err: broken}, limits); !errors.Is(err, broken) {
		t.Error(err)
	}
	gone := func() ([]int, error) { return []int{1 << 30}, nil }
	if stats, err := Copy(t.Context(), gone, &sink{}, limits); err != nil || stats.Read > 0 {
		t.Errorf("a process that has ended: %+v, %v", stats, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if stats, err := Copy(ctx, own, &sink{pages: map[string]bool{}}, limits); err != nil || stats.Read > 0 {
		t.Errorf("after the end: %+v, %v", stats, err)
	}
}

func TestParseMaps(t *testing.T) {
	got, err := parseMaps(strings.NewReader(`00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon
00651000-00652000 r--s 00051000 08:02 173521      /usr/bin/file
00e03000-00e24000 rw-p 00000000 00:00 0           [heap]
35b1800000-35b1820000 rw-s 00000000 00:01 135522  /dev/zero (deleted)
35b1a20000-35b1a21000 rw-s 00000000 00:01 135523  /memfd:a b (deleted)
35b1a21000-35b1a22000 rw-s 00000000 00:01 135524  /SYSV00000000 (deleted)
35b1a22000-35b1a23000 rw-s 00000000 00:06 7       /dev/dri/card0
35b1a23000-35b1a24000 rw-p 00000000 00:06 7       /dev/dri/card0
35b1a24000-35b1a25000 rw-p 00000000 00:16 9       /sys/devices/pci0000:00/0000:00:01.0/resource0
7fffb2c0d000-7fffb2c2e000 rw-p 00000000 00:00 0   [stack]
7fffb2d48000-7fffb2d49000 r-xp 00000000 00:00 0   [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []area{
		{0x400000, 0x452000, false}, {0xe03000, 0xe24000, false}, {0x35b1800000, 0x35b1820000, true},
		{0x35b1a20000, 0x35b1a21000, true}, {0x35b1a21000, 0x35b1a22000, true}, {0x7fffb2c0d000, 0x7fffb2c2e000, false},
		{0x7f0000000000, 0x7f0000001000, false},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseMapping(f *testing.F) {
	f.Add("00e03000-00e24000 rw-p 00000000 00:00 0           [heap]")
	f.Add("35b1800000-35b1820000 rw-s 00000000 00:01 135522  /dev/zero (deleted)")
	f.Add("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]")
	f.Fuzz(func(t *testing.T, line string) {
		a, ok, err := parseMapping(line)
		if ok && (err != nil || a.end < a.start || a.start%page != 0 || a.end%page != 0) {
			t.Errorf("%q: %+v, %v", line, a, err)
		}
	})
}

// hasher does to pages what a sender does first.
type hasher struct{}

func (hasher) Add(memory []byte) (model.Bytes, error) {
	for p := range slices.Chunk(memory, page) {
		sha256.Sum256(p)
	}
	return model.Bytes(len(memory)), nil
}

func (hasher) Round() {}

// BenchmarkRound reads this process, with 256 MiB of memory that is in use.
func BenchmarkRound(b *testing.B) {
	memory := make([]byte, 256<<20)
	rand.Read(memory)
	limits := Limits{Rounds: 1, Time: time.Minute}
	stats, err := Copy(b.Context(), own, hasher{}, limits)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(stats.Read))
	for b.Loop() {
		if _, err := Copy(b.Context(), own, hasher{}, limits); err != nil {
			b.Fatal(err)
		}
	}
	runtime.KeepAlive(memory)
}
