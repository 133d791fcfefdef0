package transfer

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLeftovers(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Reserve: 1}
	for _, d := range []string{"a-1", "b-1.partial", "c-1", "c-1.partial", "d-1.partial"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	call := s.enter("d-1", nil)
	got, err := s.Leftovers()
	slices.Sort(got)
	if want := []string{"a-1", "b-1", "c-1"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %q, %v, want %q: d-1 is being received", got, err, want)
	}
	if err := s.Forget(t.Context(), "d-1"); err == nil {
		t.Error("images that are being received were forgotten")
	}
	s.leave(call)
	for _, n := range append(got, "d-1", "../x", "never-was") {
		if err := s.Forget(t.Context(), n); (err != nil) != (n == "../x") {
			t.Errorf("%s: %v", n, err)
		}
	}
	wantEmpty(t, s.Dir)
}
