package transfer

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

func TestSweep(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	for _, dir := range []string{"uid-1-3", "uid-1-4.partial", "uid-2-1.partial/deep"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	outside := writeDir(t, map[string][]byte{"a": {1}})
	if err := os.Symlink(outside, filepath.Join(s.Dir, "link.partial")); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s.Dir); !slices.Equal(got, []string{"uid-1-3"}) {
		t.Errorf("left: %q", got)
	}
	if len(list(t, outside)) != 1 {
		t.Error("the link was followed")
	}
	if err := (&Store{Dir: s.Dir + "/none"}).Sweep(); err == nil {
		t.Error("no error for a directory that is not there")
	}
}

func TestDiscard(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	for _, dir := range []string{"uid-1-3", "uid-1-3.partial", "uid-1-33", "uid-1-4"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // nothing there: nil
		if err := s.Discard(t.Context(), testMove); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, s.Dir); !slices.Equal(got, []string{"uid-1-33", "uid-1-4"}) {
		t.Errorf("left: %q", got)
	}
	for _, m := range []migrate.Move{{UID: "../x"}, {UID: ""}, {UID: "a", Epoch: -1}} {
		if err := s.Discard(t.Context(), m); err == nil {
			t.Errorf("%+v: no error", m)
		}
		if dir, err := s.Complete(t.Context(), m); err == nil || dir != "" {
			t.Errorf("%+v: %q, %v", m, dir, err)
		}
	}
}

// Discard says so when a receiver does not end in time.
func TestDiscardWaits(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	c := s.enter(testDir, func(error) {})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Discard(ctx, testMove); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s.leave(c)
	if err := s.Discard(ctx, testMove); err != nil {
		t.Error(err)
	}
}

// What others may still write counts as taken, and what is declared later is asked for.
func TestSpaceIsSetAside(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Reserve: 1, Room: func() (model.Bytes, error) { return 101, nil }}
	join := func(uid string, total, ahead uint64) (*coming, error) {
		b := testBegin(total, ahead)
		b.MigrationUid = uid
		return s.join(s.enter(uid+"-3", nil), "a", b)
	}
	first, err := join("uid-1", 40, 20) // 40 and a quarter of 20
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join("uid-2", 50, 24); err == nil { // 50 + 6 + 45 of 100
		t.Error("two get the same space")
	}
	if _, err := join("uid-1", 60, 20); err != nil {
		t.Error("more for the first:", err)
	}
	if _, err := join("uid-1", 95, 24); err == nil {
		t.Error("more than there is, by and by")
	}
	if total, ahead := first.limits(); total != 60 || ahead != 20 {
		t.Errorf("%d and %d are set aside", total, ahead)
	}
	first.kept = 65 // has been written, and is missing in Room
	if _, err := join("uid-2", 80, 0); err != nil {
		t.Error(err)
	}
}

// A link with a file's name in the partial directory is neither followed nor replaced.
func TestLinkInPlaceOfFile(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Reserve: 1}
	outside := filepath.Join(writeDir(t, map[string][]byte{"a": []byte("precious")}), "a")
	c := s.enter(testDir, func(error) {})
	co, err := s.join(c, "a", testBegin(9, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	partial := filepath.Join(s.Dir, testDir+partialSuffix)
	for name, to := range map[string]string{"b": outside, "c": filepath.Dir(outside) + "/new", aheadFile: outside} {
		if err := os.Symlink(to, filepath.Join(partial, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"b", "c"} {
		if _, err := co.part(chunk(name, 0, "x")); err == nil {
			t.Errorf("file %s was opened", name)
		}
	}
	if _, err := co.part(blocks([]byte(page4("x")))); err == nil {
		t.Error("the cache was opened")
	}
	// One that takes a file's place later, too.
	if _, err := co.part(chunk("d", 0, "x")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(partial, "d")), os.Symlink(outside, filepath.Join(partial, "d"))); err != nil {
		t.Fatal(err)
	}
	if _, err := co.part(chunk("d", 0, "y")); err == nil {
		t.Error("file d was opened")
	}
	s.spoil(co, errDiscarded)
	s.leave(c)
	wantEmpty(t, s.Dir)
	if got, _ := os.ReadFile(outside); string(got) != "precious" || len(list(t, filepath.Dir(outside))) != 1 {
		t.Errorf("outside was written: %q", got)
	}
}

type records struct {
	pm  *v1alpha1.PodMigration
	err error
}

func (r records) Get(context.Context, string, string) (*v1alpha1.PodMigration, error) {
	return r.pm, r.err
}

func TestByRecord(t *testing.T) {
	pm := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", UID: "uid-1"}}
	pm.Status.Epoch, pm.Status.Source.Node, pm.Status.Target.Node = 3, "a", "b"
	if _, err := (ByRecord{records{pm: pm}}).Admit(t.Context(), "a", &agentv1.Begin{}); !errors.Is(err, ErrRefused) {
		t.Errorf("no create waits: %v", err)
	}
	pm.Status.Target.Waiting = true
	got, err := ByRecord{records{pm: pm}}.Admit(t.Context(), "a", &agentv1.Begin{})
	if err != nil || got.UID != "uid-1" || got.Epoch != 3 || got.Source.Node != "a" || got.Target.Node != "b" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, d := range []v1alpha1.Decision{v1alpha1.Commit, v1alpha1.Abort} {
		decided := pm.DeepCopy()
		decided.Status.Decision = d
		if _, err := (ByRecord{records{pm: decided}}).Admit(t.Context(), "a", &agentv1.Begin{}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", d, err)
		}
	}
	pm.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	if _, err := (ByRecord{records{pm: pm}}).Admit(t.Context(), "a", &agentv1.Begin{}); !errors.Is(err, ErrRefused) {
		t.Errorf("being deleted: %v", err)
	}
	if _, err := (ByRecord{records{err: io.ErrUnexpectedEOF}}).Admit(t.Context(), "a", &agentv1.Begin{}); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("away: %v", err)
	}
}
