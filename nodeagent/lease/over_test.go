package lease

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// arrives is the second move up to where the pod runs on, with nobody but the target's worker there.
func (w *world) arrives(pm *v1alpha1.PodMigration) {
	w.Helper()
	m := migrate.MoveOf(pm)
	must(w.T, w.target(pm).Arrive(m))
	must(w.T, w.target(pm).Open(w.Context(), m))
	pm.Status.Decision, pm.Status.Target.Starting, pm.Status.Target.Resumed = v1alpha1.Commit, true, true
}

// open fails unless the pod's first address is open at the newest place, or not.
func (w *world) open(want bool) {
	w.Helper()
	u, err := address.Used(w.places[2].path(), leases(migrate.MoveOf(w.more[0]))[1], 0)
	must(w.T, err)
	if is := u.Left > 0; is != want || is == u.Held {
		w.Errorf("the first address: %+v; want it open: %v", u, want)
	}
}

// An earlier address is opened where the pod has come to only if it is known that it is still the pod's; where
// that is known later, then.
func TestOpenEarlier(t *testing.T) {
	for name, c := range map[string]struct {
		then  func(*world)
		first bool // it is opened at once
		last  bool
	}{
		"its lease lives":         {func(*world) {}, true, true},
		"its lease is over":       {func(w *world) { w.pm.Status.Connections.LeaseEnded = true }, false, false},
		"its record is gone":      {func(w *world) { w.missing = w.pm.Name }, false, false},
		"another has its name":    {func(w *world) { w.pm.UID = "uid-9" }, false, false},
		"nobody can be asked now": {func(w *world) { w.deaf = errors.New("no route to the API server") }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, pm := aboutToMoveOn(t)
			c.then(w)
			w.arrives(pm)
			w.open(c.first)
			w.deaf = nil
			must(t, w.on(pm.Status.Target.Node).watch.look(t.Context()))
			w.says(!c.last, !c.last, "")
			if c.last {
				w.open(true)
			} else if all, err := address.Arrived(w.places[2].path()); err != nil || len(all) != 1 || all[0].Old[0] != w.fresh.addr {
				t.Errorf("the newest sandbox has %v, %v; want the second address alone", all, err)
			}
		})
	}
}

// For an address whose lease has ended the others do not stay behind.
func TestProbeWhatLives(t *testing.T) {
	for name, c := range map[string]struct {
		then func(*world)
		goes bool
	}{
		"its holder does not answer": {func(*world) {}, false},
		"nobody can be asked":        {func(w *world) { w.deaf = errors.New("no route to the API server") }, false},
		"its lease is over":          {func(w *world) { w.pm.Status.Connections.LeaseEnded = true }, true},
		"its record is gone":         {func(w *world) { w.missing = w.pm.Name }, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, "n1", "n2")
			w.moved(true)
			w.look()
			pm := w.onward()
			m := migrate.MoveOf(pm)
			c.then(w)
			limit := time.Second
			if c.goes {
				limit = patience
			}
			ctx, done := context.WithTimeout(t.Context(), limit)
			defer done()
			answers, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- w.source(pm).Answer(answers, m) }()
			if err := w.target(pm).Probe(ctx, m); (err == nil) != c.goes {
				t.Errorf("%v; want that it goes on: %v", err, c.goes)
			}
			stop()
			must(t, <-ended)
		})
	}
}

// An earlier address whose record is gone is nobody's to keep any more.
func TestEarlierRecordGone(t *testing.T) {
	w, _, _ := onTheThird(t)
	w.missing = w.pm.Name
	must(t, w.on("n3").watch.look(t.Context()))
	w.says(true, true, "")
	if all, err := address.Arrived(w.places[2].path()); err != nil || len(all) != 1 || all[0].Old[0] != w.fresh.addr {
		t.Errorf("the newest sandbox has %v, %v; want the second address alone", all, err)
	}
}

// What is for an address is sent on to nobody as soon as the newest record says that its lease is over.
func TestHeldWhenTheNewestRecordSaysSo(t *testing.T) {
	w, client, server := onTheThird(t)
	client.Close()
	server.Close()
	if err := w.answers(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("nothing is sent on: %v", err)
	}
	w.more[0].Status.Connections.Earlier[0].Ended = true
	must(t, w.watch.follow(t.Context()))
	if err := w.answers(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("who connects to the first address hears %v, want nothing", err)
	}
}

// Who has heard of nothing newer does not turn an address to where it may not lead any more.
func TestTurnAsksFirst(t *testing.T) {
	for name, over := range map[string]func(*world){
		"its lease has ended":                   func(w *world) { w.pm.Status.Connections.LeaseEnded = true },
		"its record is gone":                    func(w *world) { w.missing = w.pm.Name },
		"the newest record says so":             func(w *world) { w.more[0].Status.Connections.Earlier[0].Ended = true },
		"the newest record is gone":             func(w *world) { w.missing = w.more[0].Name },
		"its time is over, as was heard before": nil,
	} {
		t.Run(name, func(t *testing.T) {
			w, pm := aboutToMoveOn(t)
			w.arrives(pm)
			if over == nil {
				pm.Status.Connections.Until = &metav1.MicroTime{Time: w.now.Add(v1alpha1.LeaseMargin)}
			}
			w.stale = w.list()
			if over != nil {
				over(w)
			}
			must(t, w.watch.follow(t.Context()))
			if l, err := address.Left(w.left.path()); err != nil || l.New != w.fresh.addr {
				t.Errorf("the first address leads by %v, %v; want it where it was", l, err)
			}
			if err := w.answers(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("who connects to the first address hears %v, want nothing", err)
			}
			if c := w.pm.Status.Connections; c.TurnedTo != "" {
				t.Errorf("the record says that it was turned: %+v", c)
			}
		})
	}
}

// A record that was heard of late does not turn an address back.
func TestNotTurnedBack(t *testing.T) {
	w, _, _ := onTheThird(t)
	before := w.list()
	pm := w.onward()
	w.asks(pm)
	must(t, w.source(pm).Hold(migrate.MoveOf(pm)))
	pm.Status.Source.Offered = true
	w.resumes(pm, func() {})
	w.newAgent()
	w.stale = before
	if err := w.watch.follow(t.Context()); !errors.Is(err, address.ErrMovedOn) {
		t.Errorf("it was turned by what is long past: %v", err)
	}
	if l, err := address.Left(w.left.path()); err != nil || l.New != w.places[3].addr {
		t.Errorf("the first address leads by %v, %v; want to %v", l, err, w.places[3].addr)
	}
}

// An address is sent on for no longer than it has from the moment that the pod has come.
func TestLeftOfAnEarlierAddress(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for name, c := range map[string]struct {
		until time.Duration // of the move's own address; 0: not known
		want  time.Duration
	}{
		"nobody has counted yet":     {0, 10 * time.Minute},
		"the pod has just come":      {time.Hour, 10 * time.Minute},
		"it came four minutes ago":   {56 * time.Minute, 6 * time.Minute},
		"it came ten minutes ago":    {50 * time.Minute, 0},
		"it came an hour ago":        {time.Nanosecond, 0},
		"counted by a faster clock":  {59 * time.Minute, 9 * time.Minute},
		"counted by a slower clock":  {61 * time.Minute, 10 * time.Minute},
		"long past, nobody tells it": {-time.Hour, 0},
	} {
		s := seat{i: 1, m: migrate.Move{Keep: migrate.Keep{For: time.Hour, Earlier: []migrate.Earlier{{For: 10 * time.Minute}}}}}
		if c.until != 0 {
			s.m.Keep.Until = now.Add(c.until)
		}
		if got := s.left(now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What answers probes and has failed is started again.
func TestAnswersAgain(t *testing.T) {
	w := newWorldOf(t, "n1", "n2")
	w.moved(true)
	w.look()
	pm := w.onward()
	path, err := w.ends.file(string(w.pm.UID), migrate.RoleSource)
	must(t, err)
	note, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte("{"), 0o600))
	_ = w.watch.follow(t.Context())
	<-w.watch.answers[seat{m: migrate.MoveOf(pm), i: 1}.key()].ended
	must(t, os.WriteFile(path, note, 0o600))
	w.asks(pm)
}

// What is kept for an address is there until it is sent on, and not for longer than somebody may want it.
func TestKept(t *testing.T) {
	kept := func(w *world) bool { return w.ends.kept[string(w.pm.UID)] != nil }
	begun := func(t *testing.T) (*world, *v1alpha1.PodMigration) {
		w, pm := aboutToMoveOn(t)
		w.look()
		if !kept(w) {
			t.Fatal("nothing is kept")
		}
		return w, pm
	}
	t.Run("sent on by the earlier move again", func(t *testing.T) {
		w, _ := begun(t)
		clear(w.watch.forwards)
		w.look()
		if !kept(w) {
			t.Error("what is kept was given to where the pod was")
		}
	})
	t.Run("turned in vain", func(t *testing.T) {
		w, pm := begun(t)
		w.arrives(pm)
		w.deaf = errors.New("no route to the API server")
		if err := w.watch.follow(t.Context()); !errors.Is(err, w.deaf) {
			t.Errorf("turned although nobody could be asked: %v", err)
		}
		l := leases(migrate.MoveOf(pm))[1]
		elsewhere := address.Lease{Old: []netip.Addr{w.client.addr}, New: l.New, Network: l.Network}
		if err := w.ends.turn(string(w.pm.UID), w.left.path(), elsewhere, time.Hour); !errors.Is(err, address.ErrNoEnd) {
			t.Errorf("turned what is no end: %v", err)
		}
		if !kept(w) {
			t.Error("nothing is kept any more")
		}
		w.deaf = nil
		w.look()
		if kept(w) || w.pm.Status.Connections.TurnedTo != pm.UID {
			t.Errorf("kept: %v; %+v", kept(w), w.pm.Status.Connections)
		}
	})
	for name, over := range map[string]func(*world, *v1alpha1.PodMigration){
		"its lease is over": func(w *world, _ *v1alpha1.PodMigration) { w.pm.Status.Connections.LeaseEnded = true },
		"the move is over, and the pod gone": func(_ *world, pm *v1alpha1.PodMigration) {
			pm.Status.Decision = v1alpha1.Commit
			pm.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionComplete, Status: metav1.ConditionTrue}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, pm := begun(t)
			over(w, pm)
			w.look()
			if kept(w) {
				t.Error("it is kept for nobody")
			}
		})
	}
}
