package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drover-project/drover/internal/model"
)

// addFiles writes files into directories below dir.
func addFiles(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *Sender) sentBytes() float64 {
	return testutil.ToFloat64(s.Metrics.bytes.WithLabelValues(sent))
}

// pushed is a directory of two rounds, which went ahead, and a dump.
func pushed(t *testing.T, s *Sender) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "main"), 0o700); err != nil { // the dump's, which comes last
		t.Fatal(err)
	}
	for i, size := range []int{3<<20 + 9, 1 << 20} {
		addFiles(t, dir, map[string][]byte{"main." + string(rune('1'+i)) + "/pages-1.img": random(size)})
		before := s.sentBytes()
		if err := s.Push(t.Context(), testMove, dir); err != nil {
			t.Fatal(err)
		}
		if got := s.sentBytes() - before; got != float64(size) {
			t.Errorf("round %d: %v bytes were sent, want %d", i+1, got, size)
		}
	}
	addFiles(t, dir, map[string][]byte{"main/pages-1.img": random(1 << 19), "main/core-1.img": random(77)})
	for from, to := range map[string]string{"main": "../main.2", "main.2": "../main.1"} {
		if err := os.Symlink(to, filepath.Join(dir, from, parentLink)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What was written while the source ran is there before the dump, of which only what is new is sent. The
// target joins them once all is verified, and before they count as complete.
func TestPush(t *testing.T) {
	x := newTarget(t)
	joins := 0
	x.Store.Join = func(dir string, _ func(uint64) error) error {
		joins++
		for name, want := range map[string][]string{".": {"main", "main.1", "main.2"}, "main": {"core-1.img", "pages-1.img"}, "main.2": {"pages-1.img"}} {
			if got := list(t, filepath.Join(dir, name)); !slices.Equal(got, want) {
				t.Errorf("%s holds %q, want %q", name, got, want)
			}
		}
		if kept, err := x.Store.Complete(t.Context(), testMove); err != nil || kept != "" {
			t.Errorf("complete before they are joined: %q, %v", kept, err)
		}
		return os.RemoveAll(filepath.Join(dir, "main.1"))
	}
	s := x.sender(t, "a")
	dir := pushed(t, s)
	before := s.sentBytes()
	s.Follow(testMove, dir, 8<<20)
	if _, err := s.Send(t.Context(), testMove, dir); err != nil {
		t.Fatal(err)
	}
	if got := s.sentBytes() - before; got != 1<<19+77 {
		t.Errorf("%v bytes went after the rounds, want %d", got, 1<<19+77)
	}
	kept, err := x.Store.Complete(t.Context(), testMove)
	if err != nil || !slices.Equal(list(t, kept), []string{"main", "main.2"}) {
		t.Errorf("%q, %v", kept, err)
	}
	// Its answer was lost: the source asks again, and what is there is not what was sent any more.
	y, err := s.session(testMove)
	if err != nil {
		t.Fatal(err)
	}
	y.unsure = true
	if _, err := s.Send(t.Context(), testMove, dir); err != nil || joins != 1 {
		t.Errorf("again: %v, joined %d times", err, joins)
	}
	addFiles(t, dir, map[string][]byte{"main/core-1.img": random(77)})
	if y, err = s.session(testMove); err != nil {
		t.Fatal(err)
	}
	y.unsure = true
	if _, err := s.Send(t.Context(), testMove, dir); status.Code(err) != codes.AlreadyExists {
		t.Errorf("another dump: %v", err)
	}
}

// Images that cannot be joined are not taken, and nothing of them is kept.
func TestImagesThatCannotBeJoined(t *testing.T) {
	x := newTarget(t)
	x.Store.Join = func(string, func(uint64) error) error { return errors.New("a page is in no round") }
	s := x.sender(t, "a")
	dir := pushed(t, s)
	if _, err := s.Send(t.Context(), testMove, dir); status.Code(err) != codes.DataLoss {
		t.Errorf("got %v", err)
	}
	x.Wait()
	wantEmpty(t, x.Store.Dir)
}

// A round that is dropped when it has been sent is in nobody's way: what there is instead goes once.
func TestUnpush(t *testing.T) {
	for name, ahead := range map[string]bool{"all in the dump": false, "some ahead of it": true} {
		t.Run(name, func(t *testing.T) {
			x := newTarget(t)
			s := x.sender(t, "a")
			s.lost = func(err error) { t.Error(err) }
			const size = 4 * others // more than there is beside what is declared
			dir := t.TempDir()
			addFiles(t, dir, map[string][]byte{"main.1/pages-1.img": random(int(size))})
			if err := s.Push(t.Context(), testMove, dir); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(dir, "main.1")); err != nil {
				t.Fatal(err)
			}
			s.Unpush(testMove)
			data := random(int(size))
			if ahead {
				a, err := s.Ahead(t.Context(), testMove, size)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := a.Add(data[:size/2]); err != nil {
					t.Fatal(err)
				}
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
			}
			addFiles(t, dir, map[string][]byte{"main/pages-1.img": data})
			s.Follow(testMove, dir, size)
			before := s.sentBytes()
			if _, err := s.Send(t.Context(), testMove, dir); err != nil {
				t.Fatal(err)
			}
			if got := s.sentBytes() - before; got > float64(size) {
				t.Errorf("%v bytes were sent, of a dump of %d", got, size)
			}
			if x.refusals(misuse) != 0 {
				t.Error("the target refused something")
			}
			kept := filepath.Join(x.Store.Dir, testDir)
			if got := list(t, kept); !slices.Equal(got, []string{"main"}) {
				t.Errorf("kept: %q", got)
			}
			wantFile(t, filepath.Join(kept, "main", "pages-1.img"), data)
		})
	}
}

// What joining needs beside what came is set aside, or the images are not joined.
func TestRoomForJoining(t *testing.T) {
	for name, c := range map[string]struct {
		need uint64
		fits bool
	}{"there is room": {1 << 20, true}, "there is none": {1<<20 + 1, false}} {
		t.Run(name, func(t *testing.T) {
			x := newTarget(t)
			const came = 3<<20 + 9 + 1<<20 + 1<<19 + 77
			room := model.Bytes(64 << 20)
			x.Store.Room = func() (model.Bytes, error) { return room, nil }
			x.Store.Join = func(_ string, aside func(uint64) error) error {
				room = 1<<20 + model.Bytes(x.Store.Reserve) // what came is there
				if err := aside(c.need); err != nil {
					return err
				}
				if err := x.Store.fits(1); err == nil {
					t.Error("what joining needs is given to others")
				}
				return nil
			}
			s := x.sender(t, "a")
			dir := pushed(t, s)
			_, err := s.Send(t.Context(), testMove, dir)
			if c.fits && err != nil || !c.fits && status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%d bytes beside %d: %v", c.need, came, err)
			}
		})
	}
}

// A round that cannot be sent is no condition: it goes with the dump.
func TestPushIsNoCondition(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	dir := t.TempDir()
	addFiles(t, dir, map[string][]byte{"main.1/pages-1.img": random(3 << 20)})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Push(over, testMove, dir); err == nil {
		t.Error("sent although there was no time")
	}
	addFiles(t, dir, map[string][]byte{"main/pages-1.img": random(9)})
	if n, err := s.Send(t.Context(), testMove, dir); err != nil || n.Total != 3<<20+9 {
		t.Error(n, err)
	}
}

// A target tells whether it joins rounds.
func TestRoomForRounds(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	if err := s.RoomForRounds(t.Context(), testMove, 1<<20); err == nil {
		t.Error("rounds would go to a target that does not join them")
	}
	x.Store.Join = func(string, func(uint64) error) error { return nil }
	if err := s.RoomForRounds(t.Context(), testMove, 1<<20); err != nil {
		t.Error(err)
	}
	if err := s.RoomForRounds(t.Context(), testMove, 1<<60); err == nil {
		t.Error("there is room for everything")
	}
}
