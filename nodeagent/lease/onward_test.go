package lease

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/test/netspace"
)

// onward is the record of the pod's next move, with all addresses that it still has; its target waits.
func (w *world) onward() *v1alpha1.PodMigration {
	w.Helper()
	n := len(w.more) + 2
	place := w.sandbox(w.router, 3+n)
	pod := fmt.Sprintf("5f0c0000-0000-0000-0000-00000000000%d", 1+n)
	node := fmt.Sprintf("n%d", 1+n)
	w.container(node, pod, fmt.Sprintf("c-%d", n), place)
	before := w.records()[n-2]
	pm := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("move-%d", n), UID: types.UID(fmt.Sprintf("uid-%d", n)), ResourceVersion: "1"}}
	s := &pm.Status
	s.Epoch = before.Status.Epoch + 1
	s.Source = v1alpha1.SourceStatus{Node: before.Status.Target.Node, PodName: before.Status.Target.PodName, PodUID: before.Status.Target.PodUID}
	s.Target = v1alpha1.TargetStatus{Node: node, PodName: pm.Name, PodUID: types.UID(pod)}
	s.Connections = &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsProbing, KeepFor: metav1.Duration{Duration: time.Hour},
		OldAddresses: []string{w.places[len(w.places)-1].addr.String()}}
	for i, r := range w.records() {
		if leased(r) {
			s.Connections.Earlier = append(s.Connections.Earlier, v1alpha1.EarlierLease{UID: r.UID, Migration: r.Name, Node: r.Status.Source.Node,
				Addresses: []string{w.places[i].addr.String()}, KeepFor: metav1.Duration{Duration: time.Hour}})
		}
	}
	w.more, w.places = append(w.more, pm), append(w.places, place)
	a, err := w.target(pm).Find(migrate.MoveOf(pm))
	must(w.T, err)
	if a != place.addr {
		w.Errorf("the new address is %v, want %v", a, place.addr)
	}
	s.Connections.NewAddress, s.Target.Waiting = a.String(), true
	return pm
}

// asks is what both agents do until it is known whether the network carries all.
func (w *world) asks(pm *v1alpha1.PodMigration) {
	w.Helper()
	m := migrate.MoveOf(pm)
	ctx, done := context.WithTimeout(w.Context(), patience)
	defer done()
	answers, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.source(pm).Answer(answers, m) }()
	w.look()
	must(w.T, w.target(pm).Probe(ctx, m))
	must(w.T, w.target(pm).Arrive(m))
	stop()
	must(w.T, <-ended)
	pm.Status.Connections.State = v1alpha1.ConnectionsKept
	w.look()
	if len(w.watch.answers) > 0 {
		w.Error("probes are answered after all is known")
	}
}

// waits is somebody who connects to an address of the pod, and what becomes of it.
func (w *world) waits(a netip.Addr) <-chan error {
	w.Helper()
	done := make(chan error, 1)
	go func() {
		c, err := w.dial(a)
		if err == nil {
			defer c.Close()
			_, err = io.ReadFull(c, make([]byte, 2))
		}
		done <- err
	}()
	return done
}

// serve greets who connects in a sandbox.
func (w *world) serve(s sandbox) {
	w.Helper()
	var l *net.TCPListener
	must(w.T, netspace.In(s.ns, func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		return err
	}))
	w.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hi"))
			c.Close()
		}
	}()
}

// resumes is the rest of a move whose source is held.
func (w *world) resumes(pm *v1alpha1.PodMigration, restart func()) {
	w.Helper()
	m := migrate.MoveOf(pm)
	must(w.T, w.target(pm).Arrive(m))
	must(w.T, w.target(pm).Open(w.Context(), m))
	pm.Status.Decision, pm.Status.Target.Starting, pm.Status.Target.Resumed = v1alpha1.Commit, true, true
	restart()
	w.look()
	w.more[len(w.more)-1].Status.Source.Ended = true
	worker := w.source(pm)
	restart()
	if worker == w.source(pm) { // with a new agent it is the watch that does it
		must(w.T, worker.Forward(m))
	}
	w.look()
}

// A pod takes along the addresses of all moves before: who connects by any of them while it is held waits,
// and comes to where it is then, straight from where the address is held; also where agents die between any
// two steps.
func TestMovesOn(t *testing.T) {
	for name, restart := range map[string]func(*world){"the same agents": func(*world) {}, "new agents after each step": (*world).newAgent} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, "n1", "n2")
			restart := func() { restart(w) }
			w.moved(true)
			w.look()
			for range address.Most - 1 {
				pm := w.onward()
				restart()
				w.asks(pm)
				restart()
				must(t, w.source(pm).Hold(migrate.MoveOf(pm)))
				pm.Status.Source.Offered = true
				w.look()
				var waiting []<-chan error
				for _, p := range w.places[:len(w.places)-1] {
					waiting = append(waiting, w.waits(p.addr))
				}
				w.serve(w.places[len(w.places)-1])
				restart()
				w.resumes(w.more[len(w.more)-1], restart)
				for i, done := range waiting {
					if err := <-done; err != nil {
						t.Errorf("move %d, to address %d: %v", len(w.more)+1, i+1, err)
					}
				}
				newest := w.more[len(w.more)-1]
				for i, r := range w.records()[:len(w.more)] {
					if r.Status.Connections.TurnedTo != newest.UID || r.Status.Connections.LeaseEnded {
						t.Errorf("move %d: of address %d the record says %+v", len(w.more)+1, i+1, r.Status.Connections)
					}
					if l, err := address.Left(w.places[i].path()); err != nil || l.New != w.places[len(w.places)-1].addr {
						t.Errorf("move %d: address %d leads by %v (%v)", len(w.more)+1, i+1, l, err)
					}
				}
			}
		})
	}
}

// Given up in whichever step, the pod is reached by all addresses where it was, and nothing is left.
func TestMoveOnGivenUp(t *testing.T) {
	for name, steps := range map[string]int{"when probed": 0, "when held": 1, "when what comes is kept": 2} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, "n1", "n2")
			w.moved(true)
			pm := w.onward()
			w.asks(pm)
			if steps > 0 {
				must(t, w.source(pm).Hold(migrate.MoveOf(pm)))
			}
			if steps > 1 {
				pm.Status.Source.Offered = true
				w.look()
				if len(w.watch.keeps) != 1 {
					t.Errorf("kept for %v", w.watch.keeps)
				}
			}
			pm.Status.Decision = v1alpha1.Abort
			must(t, w.target(pm).Clear(migrate.MoveOf(pm), migrate.RoleTarget))
			must(t, w.source(pm).Clear(migrate.MoveOf(pm), migrate.RoleSource))
			pm.Status.Source.Released, pm.Status.Target.Cleaned = true, true
			for range 2 {
				w.look()
			}
			if len(w.watch.keeps)+len(w.watch.answers)+len(w.ends.kept) > 0 {
				t.Errorf("kept for %v, answers %v", w.watch.keeps, w.watch.answers)
			}
			w.notes(2)
			w.is(true, true)
			if all, err := address.Arrived(w.places[2].path()); err != nil || len(all) > 0 {
				t.Errorf("where it was to go it has %v, %v", all, err)
			}
			w.connect()
			w.connectTo(w.fresh.addr, w.fresh)
			w.ended("")
		})
	}
}

// aboutToMoveOn is a pod that has moved once, and is held to move on.
func aboutToMoveOn(t *testing.T) (*world, *v1alpha1.PodMigration) {
	w := newWorldOf(t, "n1", "n2")
	w.moved(true)
	w.look()
	pm := w.onward()
	w.asks(pm)
	must(t, w.source(pm).Hold(migrate.MoveOf(pm)))
	pm.Status.Source.Offered = true
	return w, pm
}

// onTheThird is a pod that has moved twice, with a connection by its first address.
func onTheThird(t *testing.T) (_ *world, client, server *net.TCPConn) {
	w, pm := aboutToMoveOn(t)
	w.resumes(pm, func() {})
	client, server = w.connectTo(w.left.addr, w.places[2])
	w.look()
	return w, client, server
}

// says fails unless the record of the second move says that of the lease of the pod's first address.
func (w *world) says(ended, left bool, reason string) {
	w.Helper()
	e := w.more[0].Status.Connections.Earlier[0]
	if e.Ended != ended || e.TargetLeft != left || e.EndReason != reason {
		w.Errorf("of the first address the second record says %+v, want ended: %v, left: %v, reason %q", e, ended, left, reason)
	}
}

// An address that nothing uses after the pod has moved on is soon given back; one that something uses
// stays, and ends as that does. Where the pod was nobody judges any more.
func TestEachAddressEndsForItself(t *testing.T) {
	w, client, server := onTheThird(t)
	w.now = w.now.Add(brief)
	w.look()
	if c := w.more[0].Status.Connections; c.LeaseEnded {
		t.Errorf("before its owner has the pod: %+v", c)
	}
	w.more[0].Status.HandedOver = true
	w.look()
	if c := w.more[0].Status.Connections; !c.LeaseEnded || c.LeaseReason != v1alpha1.ReasonLastConnection || !c.TargetLeft {
		t.Errorf("of the second address its record says %+v", c)
	}
	for range 3 {
		w.now = w.now.Add(quiet)
		w.look()
	}
	w.says(false, false, "")
	w.ended("")
	client.Close()
	server.Close()
	w.until("a closed connection counts", func() bool {
		u, err := address.Used(w.places[2].path(), leases(migrate.MoveOf(w.more[0]))[1], 0)
		must(t, err)
		return len(u.Connections) == 0
	})
	w.look()
	w.now = w.now.Add(brief)
	w.look()
	w.says(true, true, v1alpha1.ReasonLastConnection)
	w.ended("") // drover-controller writes it there
	if all, err := address.Arrived(w.places[2].path()); err != nil || len(all) > 0 {
		t.Errorf("the newest sandbox still has %v, %v", all, err)
	}
	w.pm.Status.Connections.LeaseEnded = true
	w.look()
	if c := w.pm.Status.Connections; c.TargetLeft {
		t.Error("where the pod was before says that it has left for where it is now")
	}
}

// A lease that ends where it was made is left where the pod is now.
func TestEarlierLeaseEndsElsewhere(t *testing.T) {
	w, _, _ := onTheThird(t)
	w.pm.Status.Connections.LeaseEnded = true
	w.look()
	w.says(true, true, "")
	if all, err := address.Arrived(w.places[2].path()); err != nil || len(all) != 1 || all[0].Old[0] != w.fresh.addr {
		t.Errorf("the newest sandbox has %v, %v; want the second address alone", all, err)
	}
	w.look()
	if l, err := address.Left(w.left.path()); err != nil || !slices.Equal(l.Old, []netip.Addr{w.left.addr}) {
		t.Errorf("the first sandbox is not held: %v, %v", l, err)
	}
}
