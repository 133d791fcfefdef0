package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// turn has everybody act once, also for the later moves.
func (w *world) turn() {
	w.t.Helper()
	for _, m := range w.moves() {
		_, err := w.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&m)})
		if err != nil && !errors.Is(err, errLost) {
			w.t.Fatal(err)
		}
	}
	w.guarded()
	w.play()
	w.now = w.now.Add(time.Second)
}

// until turns until it is so.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for range rounds {
		if is() {
			return
		}
		w.turn()
	}
	w.t.Fatalf("not within %d rounds: %s: %+v", rounds, what, w.moves())
}

// record is one; nil: it is gone.
func (w *world) record(name string) *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{}
	if err := client.IgnoreNotFound(w.api.Get(context.Background(), client.ObjectKey{Namespace: testNamespace, Name: name}, m)); err != nil {
		w.t.Fatal(err)
	}
	if m.UID == "" {
		return nil
	}
	return m
}

// says changes a record as an agent does.
func (w *world) says(name string, do func(*v1alpha1.ConnectionsStatus)) {
	w.t.Helper()
	m := w.record(name)
	do(m.Status.Connections)
	w.must(w.api.Status().Update(context.Background(), m))
}

// movesOn is a pod that moves once more while it has the address of its first move.
func movesOn(t *testing.T, story string, f fault) *world {
	return movesOnWith(t, story, f, time.Hour)
}

// movesOnWith does so when no more than that is left of the address's time.
func movesOnWith(t *testing.T, story string, f fault, left time.Duration) *world {
	w := named(story).begin(t, fault{})
	w.endless, w.r.Config.KeepFor, w.r.Config.CarryEarlierAddresses = true, time.Hour, true
	w.now = w.now.Add(time.Nanosecond) // of which records know nothing
	w.lease()
	if at := w.move().Status.Connections.Until.Add(-leaseMargin - left); at.After(w.now) {
		w.now = at
	}
	w.fault = fault{at: w.calls + f.at, mode: f.mode}
	if f.at == 0 {
		w.fault = fault{}
	}
	second := wish()
	second.Name, second.UID, second.Spec.PodName = "move-2", "uid-second", newName
	w.must(w.api.Create(context.Background(), second))
	w.later = 1
	return w
}

// movesTwice lets it move, its second address be left soon after, and the first in the end.
func (w *world) movesTwice() {
	t := w.t
	second := func() *v1alpha1.PodMigration { return w.record("move-2") }
	w.until("the second move is complete", func() bool { return v1alpha1.Finished(second()) })
	if s := second(); s.Status.Phase != v1alpha1.PhaseCompleted || !leasing(s) || len(s.Status.Connections.Earlier) != 1 ||
		s.Status.Connections.Earlier[0].UID != "uid-move" || s.Status.Connections.Earlier[0].Node != "n1" {
		t.Fatalf("the second move: %s, %+v, %+v", s.Status.Phase, s.Status.Conditions, s.Status.Connections)
	}
	if m := w.move(); !leasing(m) {
		t.Fatalf("the first lease: %+v", m.Status.Connections)
	}
	w.says("move-2", func(c *v1alpha1.ConnectionsStatus) {
		c.LeaseEnded, c.TargetLeft, c.LeaseReason = true, true, v1alpha1.ReasonLastConnection
	})
	w.until("what holds the second address is gone", func() bool { return w.pod(newName) == nil })
	if m := w.move(); !leasing(m) || m.Status.Connections.TurnedTo != "uid-second" || w.pod(oldName) == nil {
		t.Fatalf("the first lease: %+v", m.Status.Connections)
	}
	w.says("move-2", func(c *v1alpha1.ConnectionsStatus) {
		e := &c.Earlier[0]
		e.Ended, e.TargetLeft, e.EndReason = true, true, v1alpha1.ReasonLastConnection
	})
	w.until("what holds the first address is gone", func() bool {
		if w.pod(oldName) != nil && len(second().Finalizers) == 0 {
			t.Fatal("nothing keeps the second record while the first lease lives by it")
		}
		return w.pod(oldName) == nil
	})
	w.until("both records are let go", func() bool { return len(w.move().Finalizers)+len(second().Finalizers) == 0 })
	if c := w.move().Status.Connections; c.LeaseReason != v1alpha1.ReasonLastConnection || !c.TargetLeft {
		t.Errorf("the first lease: %+v", c)
	}
}

// A pod that moves again takes its first address along: the holder of the second goes when nothing is sent to
// it any more, that of the first when nobody has its address any more, whatever call of the controller's fails.
func TestSecondMoveTakesAddressAlong(t *testing.T) {
	for _, story := range []string{"lease", "lease of a bare pod"} {
		w := movesOn(t, story, fault{})
		before := w.calls
		w.movesTwice()
		for at := 1; at <= w.calls-before; at++ {
			for _, mode := range []string{"before", "after", "conflict"} {
				t.Run(fmt.Sprintf("%s/%s/%d", story, mode, at), func(t *testing.T) { movesOn(t, story, fault{at: at, mode: mode}).movesTwice() })
			}
		}
	}
}

// Until who holds the first address says that it is sent to the newest place, where the pod was stays, for it has
// the address to which it is sent.
func TestWhereItWasStaysUntilTurned(t *testing.T) {
	w := movesOn(t, "lease", fault{})
	w.holderAway = true
	w.until("the second move is complete", func() bool { return v1alpha1.Finished(w.record("move-2")) })
	w.says("move-2", func(c *v1alpha1.ConnectionsStatus) {
		c.LeaseEnded, c.TargetLeft, c.LeaseReason = true, true, v1alpha1.ReasonLastConnection
	})
	for range 20 {
		w.turn()
	}
	if w.pod(newName) == nil {
		t.Fatal("where the pod was is gone, and what comes for its first address is sent there")
	}
	w.holderAway = false
	w.until("what holds the second address is gone", func() bool { return w.pod(newName) == nil })
}

// That the lease of an address is over which has gone along is read in its own record, so that stays until the pod has
// left the address, though who held it is gone.
func TestRecordOfAnAddressThatIsHeldNoMore(t *testing.T) {
	w := movesOn(t, "lease", fault{})
	w.targetAway = true
	w.until("the second move is complete", func() bool { return v1alpha1.Finished(w.record("move-2")) })
	deletes(oldName)(w)
	w.until("the first lease is over", func() bool { return !leasing(w.move()) })
	for range 5 {
		if w.turn(); len(w.move().Finalizers) == 0 {
			t.Fatal("nothing keeps the record of the first lease, and the pod may have its address")
		}
	}
	w.targetAway = false
	w.until("the record of the first lease is let go", func() bool { return len(w.move().Finalizers) == 0 })
}

// A pod may move a third time before who holds its first address has heard of the second: until that says where it
// sends to now, all places where the pod has been stay.
func TestThirdMoveBeforeTheTurn(t *testing.T) {
	w := movesOn(t, "lease", fault{})
	w.says("move", func(c *v1alpha1.ConnectionsStatus) { c.Until.Time = c.Until.Add(time.Hour) })
	w.holderAway, w.later = true, 2
	w.until("the second move is complete", func() bool { return v1alpha1.Finished(w.record("move-2")) })
	third := wish()
	third.Name, third.UID, third.Spec.PodName = "move-3", "uid-third-move", w.record("move-2").Status.Target.PodName
	w.must(w.api.Create(context.Background(), third))
	w.until("the third move is complete", func() bool { return v1alpha1.Finished(w.record("move-3")) })
	if c := w.record("move-3").Status.Connections; c.State != v1alpha1.ConnectionsKept || len(c.Earlier) != 2 {
		t.Fatalf("by the third move go along %+v", c)
	}
	w.says("move-3", func(c *v1alpha1.ConnectionsStatus) {
		c.LeaseEnded, c.TargetLeft, c.LeaseReason = true, true, v1alpha1.ReasonLastConnection
		for i := range c.Earlier {
			if e := &c.Earlier[i]; e.UID == "uid-second" {
				e.Ended, e.TargetLeft, e.EndReason = true, true, v1alpha1.ReasonLastConnection
			}
		}
	})
	for range 20 {
		w.turn()
	}
	if w.pod(newName) == nil || w.pod(third.Spec.PodName) == nil {
		t.Fatalf("where the pod was is gone, and may be sent to: %v, %v", w.pod(newName) == nil, w.pod(third.Spec.PodName) == nil)
	}
	w.holderAway = false
	w.until("where the pod was is gone", func() bool { return w.pod(newName) == nil && w.pod(third.Spec.PodName) == nil })
	if m := w.move(); !leasing(m) || m.Status.Connections.TurnedTo != third.UID || w.pod(oldName) == nil {
		t.Errorf("the first lease: %+v", m.Status.Connections)
	}
}

// Who has had the pod cannot tell that nothing leaves from its first address any more: only where the pod is now
// can that be known.
func TestWhoHadThePodHasNotLeft(t *testing.T) {
	w := movesOn(t, "lease", fault{})
	w.targetAway = true
	w.until("the second move is complete", func() bool { return v1alpha1.Finished(w.record("move-2")) })
	w.turn()
	w.says("move", func(c *v1alpha1.ConnectionsStatus) {
		c.LeaseEnded, c.TargetLeft, c.LeaseReason = true, true, v1alpha1.ReasonTargetGone
	})
	for w.turn(); w.now.Before(w.move().Status.Connections.Until.Time); w.turn() {
		if w.pod(oldName) == nil {
			t.Fatal("what holds the first address is gone, and the pod may send from it")
		}
	}
	w.says("move-2", func(c *v1alpha1.ConnectionsStatus) { c.Earlier[0].Ended, c.Earlier[0].TargetLeft = true, true })
	w.until("what holds the first address is gone", func() bool { return w.pod(oldName) == nil })
}

// A set deletes the source as soon as it has the other pod: it gets that when all have heard that nothing is to be
// sent on to the source any more.
func TestSetWaitsForHolders(t *testing.T) {
	w := movesOn(t, "lease", fault{})
	w.notCarried = true
	w.until("the source of the second move is gone", func() bool { return w.pod(newName) == nil })
	w.now = w.now.Add(-time.Second) // when it was
	is := meta.FindStatusCondition(w.move().Status.Conditions, v1alpha1.ConditionAddressLeased)
	if leasing(w.move()) || w.now.Before(is.LastTransitionTime.Add(leaseMargin)) {
		t.Errorf("where the pod was is gone at %s, and may be sent to: %+v", w.now, is)
	}
}

// As long as a move has not come to its end it may ask who holds an address of before, or open it, whether the lease
// lives or not.
func TestClaimed(t *testing.T) {
	m := wish()
	m.UID = "uid-first"
	until := metav1.NewMicroTime(start)
	for name, c := range map[string]struct {
		is   func(*v1alpha1.PodMigration)
		want bool
	}{
		"undecided":                 {func(*v1alpha1.PodMigration) {}, true},
		"undecided, but closed":     {func(by *v1alpha1.PodMigration) { by.Status.Connections.State = v1alpha1.ConnectionsClosed }, false},
		"aborted":                   {func(by *v1alpha1.PodMigration) { by.Status.Decision = v1alpha1.Abort }, false},
		"committed":                 {func(by *v1alpha1.PodMigration) { by.Status.Decision = v1alpha1.Commit }, true},
		"returned":                  {func(by *v1alpha1.PodMigration) { by.Status.Decision, by.Status.Returned = v1alpha1.Commit, true }, false},
		"lost":                      {func(by *v1alpha1.PodMigration) { by.Status.Decision, by.Status.Lost = v1alpha1.Commit, true }, false},
		"resumed, its time unknown": {func(by *v1alpha1.PodMigration) { by.Status.Decision, by.Status.Target.Resumed = v1alpha1.Commit, true }, true},
		"resumed": {func(by *v1alpha1.PodMigration) {
			by.Status.Decision, by.Status.Target.Resumed, by.Status.Connections.Until = v1alpha1.Commit, true, &until
		}, false},
		"ended without": {func(by *v1alpha1.PodMigration) {
			by.Status.Decision = v1alpha1.Commit
			setCondition(by, start, v1alpha1.ConditionComplete, true, "BothGone", "")
		}, false},
	} {
		by := wish()
		by.UID = "uid-next"
		by.Status.Connections = &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsKept, Earlier: []v1alpha1.EarlierLease{{UID: "uid-first"}}}
		c.is(by)
		if got := claimed(m, []v1alpha1.PodMigration{*m, *by}); got != c.want {
			t.Errorf("by a move that is %s: %v, want %v", name, got, c.want)
		}
		if claimed(by, []v1alpha1.PodMigration{*m, *by}) {
			t.Errorf("a move that is %s claims its own address", name)
		}
	}
}

// Between the commit of a move that takes an address along and its end nobody tells by the time, or by where the pod
// was, that the lease of that address is over; who holds it can.
func TestLeaseWhileUnderWay(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*world)
		over    bool
	}{
		"nothing but that its time is over": {func(*world) {}, false},
		"where the pod was is booted":       {reboots("n2"), false},
		"what holds it has ended":           {evictedByKubelet, true},
		"what holds it is deleted":          {deletes(oldName), true},
	} {
		w := movesOn(t, "lease", fault{})
		second := func() *v1alpha1.PodMigration { return w.record("move-2") }
		w.slow = 60
		w.until(name+": the second move is committed", func() bool { return committed(second()) })
		until := w.move().Status.Connections.Until.Time
		c.happens(w)
		for w.turn(); !resumed(second()); w.turn() {
			if result, err := w.r.Reconcile(context.Background(), w.request()); err != nil || leasing(w.move()) && result.RequeueAfter <= 0 {
				t.Fatalf("%s: the lease is looked at after %v: %v", name, result.RequeueAfter, err)
			}
		}
		if !w.now.After(until) {
			t.Fatalf("%s: the pod was not under way for long enough: it is %s, of a lease until %s", name, w.now, until)
		}
		w.until(name+": the second move is complete", func() bool { return v1alpha1.Finished(second()) })
		m := w.move()
		if leasing(m) == c.over || !c.over && !m.Status.Connections.Until.After(w.now) {
			t.Errorf("%s: the first lease is over: %v, %+v", name, !leasing(m), m.Status.Connections)
		}
	}
}

// What holds an address stays while a move may open it, though the lease has ended meanwhile, and then until the pod has
// left it there.
func TestHolderStaysWhileUnderWay(t *testing.T) {
	w := movesOn(t, "lease", fault{})
	second := func() *v1alpha1.PodMigration { return w.record("move-2") }
	w.slow, w.targetAway = 60, true
	w.until("the second move is committed", func() bool { return committed(second()) })
	w.says("move", func(c *v1alpha1.ConnectionsStatus) {
		c.LeaseEnded, c.TargetLeft, c.LeaseReason = true, true, v1alpha1.ReasonLastConnection
	})
	for w.turn(); !v1alpha1.Finished(second()); w.turn() {
		if w.pod(oldName) == nil {
			t.Fatalf("what holds the first address is gone, and the pod may have it: resumed %v", resumed(second()))
		}
	}
	w.targetAway = false
	w.until("what holds the first address is gone", func() bool { return w.pod(oldName) == nil })
}

// The first address is kept for its own time, which does not run while the pod moves; that of the second
// move is another.
func TestTimeOfAnEarlierAddress(t *testing.T) {
	w := movesOn(t, "lease", fault{})
	w.until("the second move is accepted", func() bool { return accepted(w.record("move-2")) })
	w.says("move-2", func(c *v1alpha1.ConnectionsStatus) { c.KeepFor.Duration += 500 * time.Nanosecond }) // which times in records are not
	w.until("the second move is complete", func() bool { return v1alpha1.Finished(w.record("move-2")) })
	w.turn()
	s := w.record("move-2").Status.Connections
	left := s.Earlier[0].KeepFor.Duration
	if left <= 0 || left >= s.KeepFor.Duration {
		t.Errorf("of %v there are %v left", s.KeepFor.Duration, left)
	}
	if got, want := w.move().Status.Connections.Until.Time, s.Until.Add(left-s.KeepFor.Duration).Truncate(time.Microsecond); !got.Equal(want) {
		t.Errorf("the first address is kept until %v, want %v", got, want)
	}
	w.until("the first lease is over", func() bool { return !leasing(w.move()) })
	if m := w.move(); m.Status.Connections.LeaseReason != v1alpha1.ReasonLeaseOver || !leasing(w.record("move-2")) {
		t.Errorf("the first lease has ended for %s, the second lives: %v", m.Status.Connections.LeaseReason, leasing(w.record("move-2")))
	}
}

// An address that has too little time left ends before the move is accepted, and the move waits for who has it to
// leave it.
func TestAddressThatWouldNotOutlastItsMove(t *testing.T) {
	for left, along := range map[time.Duration]int{shortest - time.Second: 0, shortest + time.Second: 1} {
		w := movesOnWith(t, "lease", fault{}, left)
		w.until("the second move is accepted", func() bool { return accepted(w.record("move-2")) })
		if all := w.record("move-2").Status.Connections.Earlier; len(all) != along {
			t.Errorf("with %s left: along go %+v", left, all)
		}
		if c := w.move().Status.Connections; c.LeaseEnded != (along == 0) || c.LeaseEnded && (!c.TargetLeft || c.LeaseReason != v1alpha1.ReasonLeaseOver) {
			t.Errorf("with %s left: the first lease: %+v", left, c)
		}
	}
}

// With the pod, and with the record by which it has its addresses, all their leases end.
func TestAllLeasesEndWithThePod(t *testing.T) {
	for name, c := range map[string]struct {
		ends   func(*world)
		reason string
	}{
		"the pod is deleted": {func(w *world) { deletes(w.record("move-2").Status.Target.PodName)(w) }, ReasonReplacementGone},
		"the second record is deleted": {func(w *world) {
			w.must(w.api.Delete(context.Background(), w.record("move-2")))
		}, ReasonDeleted},
	} {
		w := movesOn(t, "lease", fault{})
		w.until("the second move is complete", func() bool { return v1alpha1.Finished(w.record("move-2")) })
		w.turn()
		c.ends(w)
		w.until(name+": the first lease has ended", func() bool { return !leasing(w.move()) })
		if got := w.move().Status.Connections.LeaseReason; got != c.reason {
			t.Errorf("%s: the first lease has ended for %s, want %s", name, got, c.reason)
		}
		w.until(name+": both holders are gone", func() bool { return w.pod(oldName) == nil && w.pod(newName) == nil })
	}
}

// What becomes of the pod, and what its agent says in its newest record, wakes all its leases: none waits until it
// is looked at again by itself.
func TestAllLeasesAreWoken(t *testing.T) {
	ctx := context.Background()
	for name, happens := range map[string]func(*world) []ctrl.Request{
		"the pod is being deleted": func(w *world) []ctrl.Request {
			p := w.pod(w.record("move-2").Status.Target.PodName)
			p.Finalizers = append(p.Finalizers, grace)
			w.must(w.api.Update(ctx, p))
			w.must(w.api.Delete(ctx, p))
			return involved(w.api)(ctx, w.pod(p.Name))
		},
		"its agent says that the first has ended": func(w *world) []ctrl.Request {
			w.says("move-2", func(c *v1alpha1.ConnectionsStatus) { c.Earlier[0].Ended = true })
			return alongWith(ctx, w.record("move-2"))
		},
	} {
		w := movesOn(t, "lease", fault{})
		w.until("the second move is complete", func() bool { return v1alpha1.Finished(w.record("move-2")) })
		w.turn()
		w.says("move-2", func(c *v1alpha1.ConnectionsStatus) { c.LeaseEnded, c.TargetLeft = true, true })
		w.turn()
		if !leasing(w.move()) {
			t.Fatalf("%s: the first lease has ended before: %+v", name, w.move().Status.Connections)
		}
		for _, woken := range happens(w) {
			if _, err := w.r.Reconcile(ctx, woken); err != nil {
				t.Fatal(err)
			}
		}
		if leasing(w.move()) {
			t.Errorf("%s: the first lease waits until it is looked at again", name)
		}
	}
}

// More addresses than a sandbox can be the end of are not taken along.
func TestTooManyAddresses(t *testing.T) {
	f := keeping()
	f.CarryEarlier = true
	for i := range mostEarlier + 1 {
		m := wish()
		m.UID, m.Name = types.UID(fmt.Sprintf("uid-%d", i)), fmt.Sprintf("move-%d", i)
		m.Status.Epoch, m.Status.Source.Node, m.Status.Target.PodUID, m.Status.Target.Resumed = int64(i+1), "n9", f.Pod.UID, true
		m.Status.Connections = &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsKept, OldAddresses: []string{fmt.Sprintf("10.0.9.%d", i)}, KeepFor: metav1.Duration{Duration: time.Minute}}
		if why := unleasable(wish(), f); why != nil {
			t.Errorf("with %d: %+v", i, why)
		}
		if got := earlier(f); len(got) != i {
			t.Errorf("of %d there go along %+v", i, got)
		}
		f.Others = append(f.Others, *m)
	}
	if why := unleasable(wish(), f); why == nil || why.Reason != ReasonLeaseHeld {
		t.Errorf("with %d: %+v", len(f.Others), why)
	}
}
