package transfer

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/refusals"
)

func TestRoom(t *testing.T) {
	x := newTarget(t)
	x.Store.Reserve = 10
	x.Store.Room = func() (model.Bytes, error) { return 100, nil }
	s := x.sender(t, "a")
	if err := s.Room(t.Context(), testMove, 90); err != nil {
		t.Error("what fits:", err)
	}
	if err := s.Room(t.Context(), testMove, 91); status.Code(err) != codes.ResourceExhausted || x.refusals(noSpace) != 1 {
		t.Errorf("one byte too many: %v", err)
	}
	// What others may still write is taken.
	b := testBegin(50, 0)
	b.MigrationUid = "other"
	other := x.Store.enter("other-3", nil)
	if _, err := x.Store.join(other, "a", b); err != nil {
		t.Fatal(err)
	}
	if err := s.Room(t.Context(), testMove, 41); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("beside another: %v", err)
	}
	x.Store.leave(other)
	if err := x.Store.Forget(t.Context(), "other-3"); err != nil {
		t.Fatal(err)
	}
	if err := s.Room(t.Context(), testMove, 90); err != nil {
		t.Error("the other has ended:", err)
	}
	wantEmpty(t, x.Store.Dir)
}

// How much memory a node has is told to nobody that it is not going to take images from.
func TestRoomIsToldToTheSourceAlone(t *testing.T) {
	x := newTarget(t)
	if err := x.sender(t, "c").Room(t.Context(), testMove, 1); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another node: %v", err)
	}
	observer := &Sender{Address: func(string) (string, error) { return x.address, nil },
		TLS: x.ca.Keeper(t, x.ca.Identity(t, identity.Subject{Observer: "a"}, nil)).ClientConfig}
	if err := observer.Room(t.Context(), testMove, 1); status.Code(err) != codes.PermissionDenied || x.refusals(byCaller) != 1 {
		t.Errorf("observer: %v", err)
	}
	decided := testMove
	decided.Epoch++
	if err := x.sender(t, "a").Room(t.Context(), decided, 1); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another epoch: %v", err)
	}
}

// What no honest agent asks for is counted, by what it was.
func TestRefusalsAreCounted(t *testing.T) {
	x := newTarget(t)
	x.Refusals = refusals.New()
	files := writeDir(t, map[string][]byte{"a": {1}})
	for _, node := range []model.NodeID{"c", "b"} { // the record says: from a
		if _, err := x.sender(t, node).Send(t.Context(), testMove, files); status.Code(err) != codes.PermissionDenied {
			t.Errorf("from %s: %v", node, err)
		}
	}
	elsewhere := testMove
	elsewhere.Target.Node = "c"
	x.admission.move = elsewhere
	if _, err := x.sender(t, "a").Send(t.Context(), testMove, files); status.Code(err) != codes.PermissionDenied {
		t.Errorf("addressed to another node: %v", err)
	}
	if got := testutil.ToFloat64(x.Refusals.WithLabelValues(string(refusals.Images))); got != 3 {
		t.Errorf("counted %v, want 3", got)
	}
	// An honest sender that finds no room is none of these.
	x.admission.move = testMove
	x.Store.Room = func() (model.Bytes, error) { return 0, nil }
	if _, err := x.sender(t, "a").Send(t.Context(), testMove, files); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("no room: %v", err)
	}
	if got := testutil.ToFloat64(x.Refusals.WithLabelValues(string(refusals.Images))); got != 3 {
		t.Errorf("counted %v, want 3 still", got)
	}
	wantEmpty(t, x.Store.Dir)
}
