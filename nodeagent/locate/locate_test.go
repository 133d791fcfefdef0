package locate

import (
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
)

var quiet = slog.New(slog.DiscardHandler)

// voice notes what is announced. Like gossip it has a lock of its own, and asks the Places
// while it holds it.
type voice struct {
	mu     sync.Mutex
	places *Places
	said   []model.Location
	fail   error
}

func (v *voice) Announce(l model.Location) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail != nil {
		return v.fail
	}
	v.said = append(v.said, l)
	return nil
}

func (v *voice) Reconfirm() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.places.Confirmed(model.Location{})
}

func committed(name string, change func(*v1alpha1.PodMigration)) *v1alpha1.PodMigration {
	at := metav1.NewMicroTime(time.Unix(1e9, 5000).In(time.FixedZone("x", 3600)))
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	m.Status = v1alpha1.PodMigrationStatus{
		Epoch: 3, Decision: v1alpha1.Commit, DecidedAt: &at,
		Source: v1alpha1.SourceStatus{Node: "a", PodName: "p", PodUID: "u1", Origin: "u0"},
		Target: v1alpha1.TargetStatus{Node: "b", PodName: "p-dm3", PodUID: "u2", Resumed: true},
	}
	if change != nil {
		change(m)
	}
	return m
}

func TestOf(t *testing.T) {
	want := model.Location{
		Origin: "u0", Pod: model.PodID{Namespace: "ns", Name: "p-dm3", UID: "u2"}, Node: "b", From: "a",
		Epoch: 3, Migration: "m", At: time.Unix(1e9, 5000).UTC(),
	}
	if got, ok := Of(committed("m", nil)); !ok || !cmp.Equal(got, want) {
		t.Errorf("got %v\n%s", ok, cmp.Diff(want, got))
	}
	for name, change := range map[string]func(*v1alpha1.PodMigration){
		"undecided":        func(m *v1alpha1.PodMigration) { m.Status.Decision = v1alpha1.Undecided },
		"aborted":          func(m *v1alpha1.PodMigration) { m.Status.Decision = v1alpha1.Abort },
		"not acknowledged": func(m *v1alpha1.PodMigration) { m.Status.Target.Resumed = false },
		"returned":         func(m *v1alpha1.PodMigration) { m.Status.Returned = true },
	} {
		if l, ok := Of(committed("m", change)); ok {
			t.Errorf("%s: the pod is said to be at %+v", name, l)
		}
	}
}

func TestPlaces(t *testing.T) {
	p := New("a", quiet)
	v := &voice{places: p, fail: errors.New("no certificate yet")}
	m, _ := Of(committed("m", nil))
	p.See(committed("m", nil)) // before there is a gossip
	p.To(v)                    // which cannot speak at first
	v.fail = nil
	p.Retry()
	p.Retry()
	p.See(committed("m", nil))
	if diff := cmp.Diff([]model.Location{m}, v.said); diff != "" {
		t.Errorf("announced other than once (-want +got):\n%s", diff)
	}
	p.See(committed("other", func(m *v1alpha1.PodMigration) { m.Status.Source.Node = "c" }))
	if len(v.said) != 1 {
		t.Error("a node announced a move that it has no part in")
	}
	if !p.Confirmed(m) {
		t.Error("a recorded move is not confirmed")
	}
	for name, change := range map[string]func(*model.Location){
		"epoch": func(l *model.Location) { l.Epoch++ }, "node": func(l *model.Location) { l.Node = "x" },
		"from": func(l *model.Location) { l.From = "x" }, "pod": func(l *model.Location) { l.Pod.UID = "x" },
		"origin": func(l *model.Location) { l.Origin = "x" }, "record": func(l *model.Location) { l.Migration = "x" },
		"time": func(l *model.Location) { l.At = l.At.Add(time.Second) },
	} {
		l := m
		if change(&l); p.Confirmed(l) {
			t.Errorf("a location with another %s than the record's is confirmed", name)
		}
	}
	p.Forget(committed("m", nil))
	if p.Confirmed(m) {
		t.Error("confirmed by a record that is gone")
	}
}

func TestRepeats(t *testing.T) {
	p := New("b", quiet)
	v := &voice{places: p}
	p.To(v)
	p.See(committed("m", nil))
	now := time.Now()
	if _, due := p.due(now); len(due) != 0 {
		t.Errorf("due at once again: %v", due)
	}
	if _, due := p.due(now.Add(repeatInterval)); len(due) != 1 {
		t.Errorf("after an hour %v is due, want the one move", due)
	}
}

// Gossip asks Confirmed under its own lock while others announce: neither may wait for
// the other.
func TestNoDeadlockWithGossip(t *testing.T) {
	p := New("a", quiet)
	v := &voice{places: p}
	p.To(v)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 500 {
				if i%2 == 0 {
					v.Reconfirm()
				} else {
					p.See(committed("m", func(m *v1alpha1.PodMigration) { m.Status.Epoch = int64(i*1000 + j) }))
				}
			}
		})
	}
	wg.Wait()
}
