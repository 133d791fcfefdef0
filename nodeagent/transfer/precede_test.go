package transfer

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drover-project/drover/internal/model"
)

func sendAhead(t *testing.T, s *Sender, memory []byte) *Ahead {
	t.Helper()
	a, err := s.Ahead(t.Context(), testMove, model.Bytes(len(memory)))
	if err != nil {
		t.Fatal(err)
	}
	if fresh, err := a.Add(memory); err != nil || fresh > model.Bytes(len(memory)) {
		t.Fatal(fresh, err)
	}
	return a
}

func (x *target) wire() float64 {
	return testutil.ToFloat64(x.Metrics.carried.WithLabelValues(received))
}

// Memory that went ahead is named, and only what has changed since is sent.
func TestAhead(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	memory := random(8 << 20)
	a := sendAhead(t, s, memory)
	if fresh, err := a.Add(memory); fresh != 0 || err != nil {
		t.Errorf("the same again: %d, %v", fresh, err)
	}
	if _, err := a.Add(memory[:5]); err == nil {
		t.Error("a part of a page")
	}
	if _, err := a.Add(random(block)); !errors.Is(err, ErrFull) {
		t.Errorf("more than was declared: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// The dump has the pages in another order, some twice, and some that are new.
	pages := append([]byte(nil), memory[4<<20:]...)
	pages = append(pages, memory[:4<<20]...)
	pages = append(pages, memory[:5*block+9]...)
	copy(pages[1<<20+block:], random(2*block))
	before := x.wire()
	files := map[string][]byte{"pages-1.img": pages, "core-1.img": random(9)}
	if _, err := s.Send(t.Context(), testMove, writeDir(t, files)); err != nil {
		t.Fatal(err)
	}
	// 32 bytes name each of 2053 blocks; two and a part of one are new.
	if got := x.wire() - before; got > 2053*32+3*block+4096 {
		t.Errorf("%v bytes were sent after the freeze", got)
	}
	wantDir(t, filepath.Join(x.Store.Dir, testDir), files)
}

// No block is at the target twice, and none outlives the move's images.
func TestAheadIsKeptOnce(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	memory := random(8 << 20)
	if err := sendAhead(t, s, memory).Close(); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(x.Store.Dir, testDir+partialSuffix, aheadFile)
	if got := used(t, cache); got < 8<<20 {
		t.Fatalf("%d bytes are there ahead", got)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "app"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "app", "pages-1.img"), memory)
	s.Follow(testMove, dir, 8*model.MiB)
	c := x.client(t, x.ca.Node(t, "a"))
	for x.have(t, c)["app/pages-1.img"] != "\xff\xff" {
	}
	if got := used(t, cache); got != 0 {
		t.Errorf("%d bytes are there twice", got)
	}
	if _, err := s.Send(t.Context(), testMove, dir); err != nil {
		t.Fatal(err)
	}
	wantDir(t, filepath.Join(x.Store.Dir, testDir, "app"), map[string][]byte{"pages-1.img": memory})
	if got := list(t, filepath.Join(x.Store.Dir, testDir)); len(got) != 1 {
		t.Errorf("left: %q", got)
	}
}

// used is how much of the file system a file takes.
func used(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512
}

// A target that has not, or not any more, what went ahead is sent all of it.
func TestAheadIsGone(t *testing.T) {
	memory := random(8 << 20)
	for name, lose := range map[string]func(*target, *Ahead) error{
		"no room":   func(x *target, a *Ahead) error { return a.Close() },
		"discarded": func(x *target, a *Ahead) error { return errors.Join(a.Close(), x.Store.Discard(t.Context(), testMove)) },
	} {
		t.Run(name, func(t *testing.T) {
			x := newTarget(t)
			s := x.sender(t, "a")
			room := func(b model.Bytes) { x.Store.Room = func() (model.Bytes, error) { return b, nil } }
			if name == "no room" {
				room(9 * model.MiB) // for the images, and not for a quarter more
			}
			a, err := s.Ahead(t.Context(), testMove, 8*model.MiB)
			if err != nil {
				t.Fatal(err)
			}
			_, err = a.Add(memory)
			err = errors.Join(err, lose(x, a))
			if name == "no room" && status.Code(err) != codes.ResourceExhausted || name != "no room" && err != nil {
				t.Errorf("ahead: %v", err)
			}
			files := map[string][]byte{"pages-1.img": memory}
			if _, err := s.Send(t.Context(), testMove, writeDir(t, files)); err != nil {
				t.Fatal(err)
			}
			wantDir(t, filepath.Join(x.Store.Dir, testDir), files)
		})
	}
}
