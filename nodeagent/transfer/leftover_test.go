package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

func TestLeftovers(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Reserve: 1}
	for _, d := range []string{"a-1", "b-1.partial", "c-1", "c-1.partial", "d-1.partial"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	call := s.enter("d-1", cancel)
	go func() {
		<-ctx.Done()
		s.leave(call)
	}()
	got, err := s.Leftovers()
	slices.Sort(got)
	if want := []string{"a-1", "b-1", "c-1", "d-1"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
	for _, n := range append(got, "../x", "never-was") {
		if err := s.Forget(t.Context(), n); (err != nil) != (n == "../x") {
			t.Errorf("%s: %v", n, err)
		}
	}
	wantEmpty(t, s.Dir)
	if !errors.Is(context.Cause(ctx), errDiscarded) {
		t.Error("a sender goes on after the record of its move")
	}
}

// A sender that goes on when the record of its move is gone is stopped, and comes no more: for
// what was let in once the record is not read again.
func TestSenderOutlivesRecord(t *testing.T) {
	x := newTarget(t)
	id := x.ca.Node(t, "a")
	a := x.client(t, id)
	s := x.stream(t, t.Context(), id)
	_ = s.Send(begin(9))
	_ = s.Send(chunk("a", 0, "x"))
	for len(x.have(t, a)) == 0 {
	}
	x.admission.err = ErrRefused
	names, err := x.Store.Leftovers()
	if err != nil || !slices.Equal(names, []string{testDir}) {
		t.Fatal(names, err)
	}
	if err := x.Store.Forget(t.Context(), testDir); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(&agentv1.PutResponse{}); status.Code(err) != codes.Aborted {
		t.Errorf("got %v", err)
	}
	if err := put(t, a, begin(9), chunk("a", 0, "x")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
	wantEmpty(t, x.Store.Dir)
}
