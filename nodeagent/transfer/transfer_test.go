package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drover-project/drover/internal/model"
)

func TestSend(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	files := map[string][]byte{
		"pages-1.img": random(64 << 20), "core-1.img": random(777), "empty.img": {}, "mm-1.img": random(int(chunkSize)),
		"inventory.img": random(int(chunkSize) + 1), "descriptors.json": []byte("[]"),
	}
	want := 0
	for _, data := range files {
		want += len(data)
	}
	dir := writeDir(t, files)
	if d, err := x.Store.Complete(t.Context(), testMove); d != "" || err != nil {
		t.Fatalf("complete before anything came: %q, %v", d, err)
	}
	n, err := s.Send(t.Context(), testMove, dir)
	if err != nil || n.Total != int64(want) || n.Sent != n.Total {
		t.Fatalf("sent %+v, %v; want %d", n, err, want)
	}
	got, err := x.Store.Complete(t.Context(), testMove)
	if err != nil || got != filepath.Join(x.Store.Dir, testDir) {
		t.Fatalf("complete: %q, %v", got, err)
	}
	wantDir(t, got, files)
	if !slices.Equal(x.arrivals.uids, []string{"uid-1"}) {
		t.Errorf("notices: %q", x.arrivals.uids)
	}
	for m, direction := range map[*Metrics]string{s.Metrics: sent, x.Metrics: received} {
		if got := testutil.ToFloat64(m.bytes.WithLabelValues(direction)); got != float64(want) {
			t.Errorf("%v bytes %s, want %d", got, direction, want)
		}
	}
	if err := x.Store.Discard(t.Context(), testMove); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, x.Store.Dir)
}

// Each container's images lie in a directory of their own.
func TestSendDirectories(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	dir := t.TempDir()
	files := map[string]map[string][]byte{
		"app":   {"inventory.img": random(10), "pages-1.img": random(3 << 20)},
		"proxy": {"inventory.img": random(11), "empty.img": {}},
	}
	for name, content := range files {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(writeDir(t, content))); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time it is compared with what came before
		if _, err := s.Send(t.Context(), testMove, dir); err != nil {
			t.Fatal(err)
		}
		got, err := x.Store.Complete(t.Context(), testMove)
		if err != nil || got == "" {
			t.Fatalf("complete: %q, %v", got, err)
		}
		for name, content := range files {
			wantDir(t, filepath.Join(got, name), content)
		}
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Send(t.Context(), testMove, dir); err == nil {
		t.Error("a link was sent")
	}
}

// A source that did not hear the answer sends again.
func TestSendAgain(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	files := map[string][]byte{"a": random(3 << 20), "b": {}}
	for range 2 {
		if n, err := s.Send(t.Context(), testMove, writeDir(t, files)); err != nil || n.Total != 3<<20 {
			t.Fatal(n, err)
		}
	}
	if len(x.arrivals.uids) != 2 {
		t.Errorf("notices: %q", x.arrivals.uids)
	}
	for name, other := range map[string]map[string][]byte{
		"content": {"a": random(3 << 20), "b": {}}, "size": {"a": random(5)}, "name": {"c": {}},
	} {
		_, err := s.Send(t.Context(), testMove, writeDir(t, other))
		if status.Code(err) != codes.AlreadyExists {
			t.Errorf("another %s: %v", name, err)
		}
	}
	wantDir(t, filepath.Join(x.Store.Dir, testDir), files)
	if got := x.refusals(different); got != 3 {
		t.Errorf("%v refusals, want 3", got)
	}
}

func TestSendRefused(t *testing.T) {
	for name, c := range map[string]struct {
		caller string
		change func(x *target)
		code   codes.Code
		reason reason
	}{
		"another node":   {"c", func(*target) {}, codes.PermissionDenied, byRecord},
		"the target":     {"b", func(*target) {}, codes.PermissionDenied, byRecord},
		"another target": {"a", func(x *target) { x.admission.move.Target.Node = "c" }, codes.PermissionDenied, byRecord},
		"another epoch":  {"a", func(x *target) { x.admission.move.Epoch++ }, codes.PermissionDenied, byRecord},
		"no epoch":       {"a", func(x *target) { x.admission.move.Epoch = -1 }, codes.PermissionDenied, byRecord},
		"another UID":    {"a", func(x *target) { x.admission.move.UID = "uid-2" }, codes.PermissionDenied, byRecord},
		"another name":   {"a", func(x *target) { x.admission.move.Name = "web-2" }, codes.PermissionDenied, byRecord},
		"decided":        {"a", func(x *target) { x.admission.err = ErrRefused }, codes.PermissionDenied, byRecord},
		"unknown":        {"a", func(x *target) { x.admission.err = errors.New("API server away") }, codes.Unavailable, unknown},
		"no space":       {"a", func(x *target) { x.Store.Reserve = 1 << 60 }, codes.ResourceExhausted, noSpace},
		"limit":          {"a", func(x *target) { x.MaxBytes = 2 }, codes.ResourceExhausted, tooMuch},
		"no directory":   {"a", func(x *target) { x.Store.Dir += "/none" }, codes.Internal, diskFailed},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTarget(t)
			dir := x.Store.Dir
			c.change(x)
			s := x.sender(t, model.NodeID(c.caller))
			s.Streams = 1
			_, err := s.Send(once(t, s), testMove, writeDir(t, map[string][]byte{"a": random(4 << 20)}))
			if status.Code(err) != c.code {
				t.Errorf("got %v, want %v", err, c.code)
			}
			if got := x.refusals(c.reason); got != 1 {
				t.Errorf("%v refusals for %s, want 1", got, c.reason)
			}
			wantEmpty(t, dir)
			if len(x.arrivals.uids) > 0 {
				t.Errorf("notices: %q", x.arrivals.uids)
			}
		})
	}
}

// The sender talks to the target node alone, whoever else is at the address.
func TestSendToTargetAlone(t *testing.T) {
	x := newTarget(t)
	m := testMove
	m.Target.Node = "c"
	s := x.sender(t, "a")
	_, err := s.Send(once(t, s), m, writeDir(t, map[string][]byte{"a": {1}}))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "peer is drover:node:b, want node") {
		t.Errorf("got %v", err)
	}
	wantEmpty(t, x.Store.Dir)
}

func TestSendUnfitDirectory(t *testing.T) {
	s := &Sender{Address: func(string) (string, error) { return "127.0.0.1:1", nil }, TLS: func(model.NodeID) *tls.Config { return &tls.Config{} }}
	for name, spoil := range map[string]func(dir string) error{
		"empty":   func(dir string) error { return os.Remove(filepath.Join(dir, "a")) },
		"link":    func(dir string) error { return os.Symlink("a", filepath.Join(dir, "b")) },
		"pipe":    func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "b"), 0o600) },
		"folder":  func(dir string) error { return os.Mkdir(filepath.Join(dir, "b"), 0o700) },
		"dot":     func(dir string) error { return os.WriteFile(filepath.Join(dir, ".b"), nil, 0o600) },
		"nothing": os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeDir(t, map[string][]byte{"a": {1}})
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Send(t.Context(), testMove, dir); err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v", err)
			}
		})
	}
	s.Address = func(string) (string, error) { return "", errors.New("no such node") }
	if _, err := s.Send(t.Context(), testMove, "/"); err == nil || !strings.Contains(err.Error(), "no such node") {
		t.Errorf("got %v", err)
	}
}

// A sender that gives up says so, and what it left goes with the move.
func TestSendCanceled(t *testing.T) {
	x := newTarget(t)
	ctx, cancel := context.WithCancel(t.Context())
	x.admission.hook = cancel
	_, err := x.sender(t, "a").Send(ctx, testMove, writeDir(t, map[string][]byte{"a": random(32 << 20)}))
	if status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	x.Wait()
	if dir, err := x.Store.Complete(t.Context(), testMove); dir != "" || err != nil {
		t.Errorf("complete: %q, %v", dir, err)
	}
	if err := x.Store.Discard(t.Context(), testMove); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, x.Store.Dir)
}

func TestMetrics(t *testing.T) {
	if err := prometheus.NewPedanticRegistry().Register(NewMetrics()); err != nil {
		t.Fatal(err)
	}
	if got := testutil.CollectAndCount(NewMetrics()); got != 5+len(reasons) {
		t.Errorf("%d series", got)
	}
	var none *Metrics
	none.add(sent, 1)
	none.wire(sent, 1)
	none.again()
	none.refuse(busy)
}
