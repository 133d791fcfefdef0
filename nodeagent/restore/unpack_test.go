package restore

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

// waits connects a wrapper that waits for container main of the pod; what it is answered comes out.
func (b *bench) waits(t *testing.T, id string) <-chan runtimeapi.Answer {
	t.Helper()
	answers := make(chan runtimeapi.Answer, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Await(ctx, runtimeapi.Create{Wrapper: b.note.Wrapper, Request: &agentv1.AwaitRestoreRequest{
			PodUid: move.Target.UID, ContainerId: id, Container: "main", Bundle: "/run/bundle", CgroupsPath: "/x"}},
			func(a runtimeapi.Answer) error { answers <- a; return nil })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	if err := b.until(t.Context(), func() bool { return b.waiters[id] != nil }); err != nil {
		t.Fatal(err)
	}
	return answers
}

// unnoted is a bench on which nothing was restored yet.
func unnoted(t *testing.T) *bench {
	b := newBench(t, begun)
	if err := b.forget(b.note); err != nil {
		t.Fatal(err)
	}
	return b
}

// An abort ends what makes files for a copy before it returns, nothing is restored from then
// on, and the create does not wait any longer.
func TestKillBreaksOffUnpacking(t *testing.T) {
	b := unnoted(t)
	answers := b.waits(t, "c2")
	began := make(chan struct{})
	ended := false
	b.cfg.Unpack = func(ctx context.Context, _ files.Container, _ []string) error {
		close(began)
		<-ctx.Done()
		ended = true
		return nil // it was ready in the same moment
	}
	restored := make(chan error, 1)
	go func() { restored <- b.Restore(t.Context(), move, "c2", "/images") }()
	<-began
	if err := b.Kill(t.Context(), move); err != nil {
		t.Fatal(err)
	}
	if !ended {
		t.Error("the files are still being made")
	}
	if err := <-restored; !errors.Is(err, context.Canceled) {
		t.Errorf("restore: %v", err)
	}
	if a := <-answers; a.Refuse == "" {
		t.Errorf("the create is answered %+v", a)
	}
	if notes, err := b.of(move.Target.UID); err != nil || len(notes) != 0 {
		t.Errorf("notes %+v, %v", notes, err)
	}
}

// Files are made before the images are looked into, which asks what there is; a failure of either
// is the restore's.
func TestUnpackComesFirst(t *testing.T) {
	m := move
	m.Containers = []migrate.Container{{Name: "main", ID: "s1"}, {Name: "proxy", ID: "s2"}}
	for name, c := range map[string]struct{ unpack, inspect error }{
		"good": {}, "unpack fails": {unpack: errors.New("no room")}, "hostile": {inspect: errors.New("hostile")},
	} {
		t.Run(name, func(t *testing.T) {
			b := unnoted(t)
			answers := b.waits(t, "c2")
			var order []string
			b.cfg.Unpack = func(_ context.Context, f files.Container, others []string) error {
				want := files.Container{PodUID: move.Target.UID, Bundle: "/run/bundle", Images: "/images/main"}
				if f != want || len(others) != 1 || others[0] != "/images/proxy" {
					t.Errorf("unpack %+v beside %v", f, others)
				}
				order = append(order, "unpack")
				return c.unpack
			}
			began := []string{"/etc/config"}
			if err := b.cfg.Layout.WriteContainer(layout.Container{ID: "c2", Begun: began}); err != nil {
				t.Fatal(err)
			}
			b.cfg.Inspect = func(images, bundle string, begun []string) error {
				if !slices.Equal(begun, began) {
					t.Errorf("begun with %q, want %q", begun, began)
				}
				order = append(order, "inspect "+filepath.Base(images))
				return c.inspect
			}
			err := b.Restore(t.Context(), m, "c2", "/images")
			want := c.unpack
			if want == nil {
				want = c.inspect
			}
			if !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if order[0] != "unpack" || (len(order) > 1) != (c.unpack == nil) {
				t.Errorf("order: %v", order)
			}
			if err == nil {
				if a := <-answers; a.Restore != "/images/main" {
					t.Errorf("answered %+v", a)
				}
				return
			}
			if notes, err := b.of(move.Target.UID); err != nil || len(notes) != 0 {
				t.Errorf("notes %+v, %v", notes, err)
			}
		})
	}
}
