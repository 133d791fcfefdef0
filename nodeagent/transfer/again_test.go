package transfer

import (
	"context"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drover-project/drover/internal/model"
)

// After a cut only what is missing is sent.
func TestSendAfterCut(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	k := newLink(t, x.address, 12<<20, 0)
	s := x.sender(t, "a")
	s.Address = func(string) (string, error) { return k.Addr().String(), nil }
	there, before, lost := 0, 0.0, 0
	s.lost = func(error) {
		lost++
		x.Wait()
		there = 0
		for _, b := range x.have(t, a) {
			for _, c := range []byte(b) {
				there += bits.OnesCount8(c)
			}
		}
		before = testutil.ToFloat64(x.Metrics.bytes.WithLabelValues(received))
	}
	files := map[string][]byte{"pages-1.img": random(32 << 20), "core-1.img": random(1 << 20)}
	n, err := s.Send(t.Context(), testMove, writeDir(t, files))
	if err != nil || n.Total != 33<<20 {
		t.Fatal(n, err)
	}
	if lost == 0 || there == 0 {
		t.Fatalf("lost %d times, %d chunks were there", lost, there)
	}
	if got := testutil.ToFloat64(x.Metrics.bytes.WithLabelValues(received)) - before; got != float64(66-there)*float64(chunkSize) {
		t.Errorf("%v bytes were sent again, %d chunks of 66 were there", got, there)
	}
	if got := testutil.ToFloat64(s.Metrics.resent); got != float64(lost) {
		t.Errorf("%v retries are counted, want %d", got, lost)
	}
	wantDir(t, filepath.Join(x.Store.Dir, testDir), files)
}

// A source that did not hear that all is complete asks, and sends nothing again.
func TestSendAfterLostAnswer(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	files := map[string][]byte{"a": random(3 << 20)}
	dir := writeDir(t, files)
	if _, err := s.Send(t.Context(), testMove, dir); err != nil {
		t.Fatal(err)
	}
	y, err := s.session(testMove)
	if err != nil {
		t.Fatal(err)
	}
	y.unsure = true
	before := testutil.ToFloat64(s.Metrics.bytes.WithLabelValues(sent))
	if n, err := s.Send(t.Context(), testMove, dir); err != nil || n.Total != 3<<20 {
		t.Error(n, err)
	}
	if got := testutil.ToFloat64(s.Metrics.bytes.WithLabelValues(sent)); got != before {
		t.Errorf("%v bytes were sent again", got-before)
	}
}

// A target that cannot be reached is tried until the move is given up.
func TestSendUntilTheEnd(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	x.server.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tries := 0
	s.lost = func(error) {
		if tries++; tries == 3 {
			cancel()
		}
	}
	_, err := s.Send(ctx, testMove, writeDir(t, map[string][]byte{"a": {1}}))
	if status.Code(err) != codes.Unavailable || tries != 3 {
		t.Errorf("%d tries, %v", tries, err)
	}
}

// A target that stays away is given up: the pod stands frozen meanwhile.
func TestSendLosesPatience(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	s.Patience = 20 * time.Millisecond
	x.server.Stop()
	_, err := s.Send(t.Context(), testMove, writeDir(t, map[string][]byte{"a": {1}}))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing has come there for 20ms") {
		t.Error(err)
	}
}

// write appends to a file of a dump that grows.
func write(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func (x *target) sent(s *Sender) float64 {
	return testutil.ToFloat64(s.Metrics.bytes.WithLabelValues(sent))
}

// What a dump has written goes while it writes the rest, and is not sent again.
func TestFollow(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	s := x.sender(t, "a")
	dir := filepath.Join(t.TempDir(), "images")
	s.Follow(testMove, dir, 8*model.MiB) // before there is a directory
	if err := os.MkdirAll(filepath.Join(dir, "app"), 0o700); err != nil {
		t.Fatal(err)
	}
	pages := random(5<<20 + 7)
	file := filepath.Join(dir, "app", "pages-1.img")
	write(t, file, pages[:3<<20+1])
	write(t, filepath.Join(dir, "app", "core-1.img"), random(2<<20))
	for x.have(t, a)["app/pages-1.img"] != "\x3f" {
	}
	if got := x.sent(s); got != 3<<20 {
		t.Errorf("%v bytes were sent before the dump was complete", got)
	}
	write(t, file, pages[3<<20+1:])
	n, err := s.Send(t.Context(), testMove, dir)
	if err != nil || n.Total != 7<<20+7 || n.Sent != n.Total || x.sent(s) != 7<<20+7 {
		t.Errorf("sent %+v, %v bytes of them as chunks, %v", n, x.sent(s), err)
	}
	wantFile(t, filepath.Join(x.Store.Dir, testDir, "app", "pages-1.img"), pages)
}

// What was guessed of files that are others in the end is not taken for them.
func TestFollowTheWrong(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	s := x.sender(t, "a")
	dir := t.TempDir()
	s.Follow(testMove, dir, 8*model.MiB)
	for _, d := range []string{"app", "gone"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, d, "pages-1.img"), random(2<<20))
	}
	for h := x.have(t, a); h["app/pages-1.img"] != "\x0f" || h["gone/pages-1.img"] != "\x0f"; h = x.have(t, a) {
	}
	if err := os.RemoveAll(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	pages := random(2 << 20)
	write(t, filepath.Join(dir, "new"), pages)
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "app", "pages-1.img")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Send(t.Context(), testMove, dir); err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(x.Store.Dir, testDir, "app", "pages-1.img"), pages)
	if got := list(t, filepath.Join(x.Store.Dir, testDir)); len(got) != 1 {
		t.Errorf("complete: %q", got)
	}
}

// A dump that was there before is removed when the next one begins, whose files may have the
// names, the sizes and the inodes of those that were followed.
func TestFollowTheDumpBefore(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	s := x.sender(t, "a")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "app"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "app", "pages-1.img")
	write(t, file, random(2<<20))
	s.Follow(testMove, dir, 8*model.MiB)
	for x.have(t, a)["app/pages-1.img"] != "\x0f" {
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	pages := random(2 << 20)
	write(t, file, pages)
	if _, err := s.Send(t.Context(), testMove, dir); err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(x.Store.Dir, testDir, "app", "pages-1.img"), pages)
}

// A dump that fails, or a move that is given up, ends what follows it.
func TestFollowDropped(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	s.Follow(testMove, t.TempDir(), 8*model.MiB)
	s.Drop(testMove)
	x.Wait()
	if len(s.sessions) > 0 {
		t.Errorf("%v is left", s.sessions)
	}
	s.Drop(testMove) // nothing there
	// A target that takes nothing keeps nobody from sending in the end.
	var room atomic.Int64
	x.Store.Room = func() (model.Bytes, error) { return model.Bytes(room.Load()), nil }
	s.Follow(testMove, t.TempDir(), 8*model.MiB)
	for x.refusals(noSpace) == 0 {
	}
	room.Store(int64(model.GiB))
	if _, err := s.Send(t.Context(), testMove, writeDir(t, map[string][]byte{"a": {1}})); err != nil {
		t.Error(err)
	}
}
