package lease

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// ended fails unless the record says that the lease is over for that reason.
func (w *world) ended(reason string) {
	w.Helper()
	if c := w.pm.Status.Connections; c.LeaseEnded != (reason != "") || c.LeaseReason != reason {
		w.Errorf("ended: %v, %s (%s); want %q", c.LeaseEnded, c.LeaseReason, c.LeaseMessage, reason)
	}
}

// A lease ends when nothing has used the old address for a while, and not before; then the new
// sandbox is as it was, and the old one silent for as long as there is one.
func TestLastConnection(t *testing.T) {
	w := newWorld(t)
	w.moved(true)
	client, server := w.connect()
	for range 3 {
		w.look()
		w.now = w.now.Add(quiet)
	}
	w.ended("")
	client.Close()
	server.Close()
	// What was used until a moment ago is not quiet yet. The last look found it in use.
	w.now = w.now.Add(-quiet)
	w.until("a closed connection counts", func() bool {
		u, err := address.Used(w.fresh.path(), of(w.move()), 0)
		must(t, err)
		return len(u.Connections) == 0
	})
	w.look()
	w.ended("")
	// One that is there by chance, as a probe is, does not count.
	w.connect()
	w.now = w.now.Add(quiet)
	w.look()
	w.ended(v1alpha1.ReasonLastConnection)
	w.is(true, false)
	w.look()
	w.notes(1)
	if err := w.answers(); err == nil {
		t.Error("somebody answers at the old address")
	} else if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("who connects to the old address hears %v, want nothing", err)
	}
	w.left.end()
	w.look()
	w.notes(0)
}

// Its Services have a source that is kept for its address until they have the replacement, which may be long in
// getting ready: that no connection stays does not end the lease meanwhile.
func TestQuietWhileTheSourceIsKept(t *testing.T) {
	w := newWorld(t)
	w.moved(true)
	w.pm.Status.Source.Ended = false
	for range 3 {
		w.look()
		w.now = w.now.Add(quiet)
	}
	w.ended("")
	w.look()
	w.pm.Status.Adopted = true
	w.look()
	w.ended("")
	w.now = w.now.Add(quiet)
	w.look()
	w.ended(v1alpha1.ReasonLastConnection)
}

// until waits for what the kernel does in its own time.
func (w *world) until(otherwise string, is func() bool) {
	w.Helper()
	for begun := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > patience {
			w.Fatal(otherwise)
		}
	}
}

// The time is over: both ends hear of it. The agent may have been started anew since.
func TestTimeOver(t *testing.T) {
	w := newWorld(t)
	w.pm.Status.Connections.KeepFor.Duration = early
	w.moved(false)
	w.newAgent()
	w.pm.Status.Connections.KeepFor.Duration = time.Hour // so that it is open long enough to connect
	must(t, w.ends.Open(t.Context(), w.move()))
	must(t, w.watch.follow(t.Context())) // the worker that should have forwarded is dead
	client, server := w.connect()
	w.pm.Status.Connections.KeepFor.Duration = early
	must(t, w.ends.Open(t.Context(), w.move()))
	w.look()
	w.ended(v1alpha1.ReasonLeaseOver)
	if !strings.Contains(w.pm.Status.Connections.LeaseMessage, "1 connections") {
		t.Errorf("the record says %q", w.pm.Status.Connections.LeaseMessage)
	}
	for name, c := range map[string]interface {
		SetReadDeadline(time.Time) error
		Read([]byte) (int, error)
	}{"client": client, "server": server} {
		must(t, c.SetReadDeadline(time.Now().Add(patience)))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("the %s hears %v", name, err)
		}
	}
	w.is(true, false)
}

// The old sandbox is gone, or another has its place: the lease is over, and the other end left.
func TestSourceChanges(t *testing.T) {
	for name, change := range map[string]func(*world){
		"its first process is dead": func(w *world) { w.left.end() },
		"the tunnel is gone":        func(w *world) { must(t, address.ClearLeft(w.left.path())) },
		"the node was booted":       func(w *world) { must(t, os.RemoveAll(w.ends.dir())) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.moved(true)
			w.look()
			w.ended("")
			change(w)
			w.look()
			w.ended(v1alpha1.ReasonSourceChanged)
			if name == "the node was booted" {
				return // of both, here
			}
			w.look()
			if all, err := address.Arrived(w.fresh.path()); err != nil || len(all) > 0 {
				t.Errorf("the new sandbox is an end of the tunnels %v: %v; want it left", all, err)
			}
		})
	}
}

// The target says that it has left when it has, and not before: whoever ends the lease, and whatever
// the agent that hears of it knows.
func TestTargetLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		ends func(*world)
		left bool
	}{
		"nobody has ended it": {func(*world) {}, false},
		"the controller has":  {func(w *world) { w.pm.Status.Connections.LeaseEnded = true }, true},
		"the controller has, and the sandbox is gone": {func(w *world) {
			w.pm.Status.Connections.LeaseEnded = true
			w.fresh.end()
		}, true},
		"the controller has, and an agent that knows nothing hears of it": {func(w *world) {
			w.newAgent()
			w.pm.Status.Connections.LeaseEnded = true
		}, true},
		"the target has": {func(w *world) { w.now = w.now.Add(quiet) }, true},
		"the source has": {func(w *world) { must(t, address.ClearLeft(w.left.path())) }, true},
		"the sandbox cannot be looked into": {func(w *world) {
			w.pm.Status.Connections.LeaseEnded = true
			path, err := w.ends.file(string(w.pm.UID), migrate.RoleTarget)
			must(t, err)
			must(t, os.WriteFile(path, []byte("{"), 0o600))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.moved(true)
			w.look()
			c.ends(w)
			for range 2 {
				_ = w.watch.look(t.Context())
			}
			if got := w.pm.Status.Connections.TargetLeft; got != c.left {
				t.Errorf("the record says that the target has left: %v, want %v", got, c.left)
			}
			if all, err := address.Arrived(w.fresh.path()); c.left && name != "the controller has, and the sandbox is gone" && (err != nil || len(all) > 0) {
				t.Errorf("the record says so, and the new sandbox is an end of the tunnels %v: %v", all, err)
			}
		})
	}
}

func TestTargetGone(t *testing.T) {
	w := newWorld(t)
	w.moved(true)
	w.fresh.end()
	w.look()
	w.ended(v1alpha1.ReasonTargetGone)
	w.look()
	w.notes(1)
}

// What is made in sandboxes is taken away when neither a move nor a lease names it; an agent that
// comes back takes away what one before it made.
func TestSweep(t *testing.T) {
	moved := func(w *world) { w.moved(true) }
	held := func(w *world) { w.probed(); must(t, w.ends.Hold(w.move())) }
	fenced := func(w *world) {
		must(t, w.ends.layout.Fences().Write(fence.Fence{PodUID: sourcePod, Epoch: 2, Migration: "default/move"}))
	}
	for name, c := range map[string]struct {
		made        func(*world)
		then        func(*world)
		left, fresh bool
		notes       int
	}{
		"nothing has happened":                      {held, func(*world) {}, true, true, 2},
		"the lease lives":                           {moved, func(*world) {}, true, true, 2},
		"aborted, and neither side has done so yet": {held, func(w *world) { w.pm.Status.Decision = v1alpha1.Abort }, true, true, 2},
		"aborted, and both have":                    {held, func(w *world) { w.undone() }, false, false, 0},
		"returned":                                  {held, func(w *world) { w.undone(); w.pm.Status.Decision, w.pm.Status.Returned = v1alpha1.Commit, true }, false, false, 0},
		"closed, by the other end":                  {func(w *world) { w.probed() }, func(w *world) { w.pm.Status.Connections.State = v1alpha1.ConnectionsClosed }, false, false, 0},
		"lost": {held, func(w *world) {
			s := &w.pm.Status
			s.Decision, s.Target.Starting, s.Lost, s.Source.Ended, s.Target.Cleaned = v1alpha1.Commit, true, true, true, true
		}, true, false, 1},
		"the record is gone, nothing was frozen":       {held, func(w *world) { w.gone = true }, false, false, 0},
		"the record is gone, the pod is fenced":        {held, func(w *world) { fenced(w); w.gone = true }, true, false, 1},
		"the record of a lease is gone":                {moved, func(w *world) { fenced(w); w.gone = true }, true, false, 1},
		"another record has its name":                  {moved, func(w *world) { fenced(w); w.pm.UID = "uid-2"; w.pm.Status.Connections = nil }, true, false, 1},
		"the lease was ended by the other end's agent": {moved, func(w *world) { w.pm.Status.Connections.LeaseEnded = true }, true, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.made(w)
			w.newAgent()
			c.then(w)
			for range 2 {
				w.look()
				w.is(c.left, c.fresh)
				w.notes(c.notes)
			}
			if !c.left {
				// As before, it has its address, and is heard.
				if err := w.answers(); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("who connects to the old address hears %v, want that it is refused", err)
				}
			}
		})
	}
}

func (w *world) undone() {
	s := &w.pm.Status
	s.Decision, s.Source.Released, s.Target.Cleaned = v1alpha1.Abort, true, true
}

// The fence lets the holder's image through when the source has ended, and not before.
func TestHolderBehindTheFence(t *testing.T) {
	w := newWorld(t)
	w.moved(true)
	want := fence.Fence{PodUID: sourcePod, Epoch: 2, Migration: "default/move", Holder: "pause@sha256:x"}
	before := want
	before.Holder = ""
	must(t, w.ends.layout.Fences().Write(before))
	w.pm.Status.Connections.HolderImage = want.Holder
	for _, ended := range []bool{false, true} {
		w.pm.Status.Source.Ended = ended
		w.look()
		got, err := w.ends.layout.Fences().Check(sourcePod)
		must(t, err)
		if wants := map[bool]fence.Fence{false: before, true: want}[ended]; *got != wants {
			t.Errorf("ended: %v; fence %+v, want %+v", ended, *got, wants)
		}
	}
}

// A pod is found by what the runtime made, and by nothing that has another's number.
func TestSandboxOf(t *testing.T) {
	w := newWorld(t)
	w.container("n", targetPod, "a-before", sandbox{first: w.client.first}) // of a sandbox that was made anew
	w.client.end()
	if a, err := w.ends.Find(w.move()); err != nil || a != w.fresh.addr {
		t.Errorf("found %v, %v; want %v", a, err, w.fresh.addr)
	}
	w.pm.Status.Connections.OldAddresses = []string{"fd00::1"}
	if _, err := w.ends.Find(w.move()); err == nil || !strings.Contains(err.Error(), "family") {
		t.Errorf("of another family: %v", err)
	}
	m := w.move()
	m.Target.UID = "another"
	if _, err := w.ends.Find(m); !errors.Is(err, errGone) {
		t.Errorf("of another pod: %v", err)
	}
	n, _, err := w.ends.sandboxOf(w.move(), migrate.RoleSource)
	must(t, err)
	n.Holder = process.Process{PID: n.Holder.PID, Start: n.Holder.Start + 1}
	if _, err := n.find("/"); !errors.Is(err, errGone) {
		t.Errorf("a process that has its number: %v", err)
	}
}

// Nobody answers for another move.
func TestNonces(t *testing.T) {
	w := newWorld(t)
	w.pm.Status.Connections.NewAddress = w.fresh.addr.String()
	other := w.move()
	other.Epoch++
	if a, b := nonce(w.move(), of(w.move())), nonce(other, of(other)); slices.Equal(a[:], b[:]) {
		t.Error("two moves have one nonce")
	}
	ctx, done := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.ends.Answer(ctx, w.move()) }()
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := w.ends.Probe(short, other); err == nil {
		t.Error("another move's probe is answered")
	}
	done()
	must(t, <-ended)
}

// A sandbox is one tunnel's end: while a pod still uses the address of an earlier move, a next move
// takes neither that nor the present one along, and does not touch them.
func TestSecondMove(t *testing.T) {
	w := newWorld(t)
	w.moved(true)
	second := w.move()
	second.UID, second.Source, second.Target = "uid-2", second.Target, migrate.Pod{UID: "another"}
	second.Keep = migrate.Keep{Old: []netip.Addr{w.fresh.addr}, New: w.client.addr, For: time.Hour}
	ctx, done := context.WithTimeout(t.Context(), patience)
	defer done()
	for name, err := range map[string]error{"answer": w.ends.Answer(ctx, second), "hold": w.ends.Hold(second)} {
		if err == nil || !strings.Contains(err.Error(), "earlier move") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.is(true, true)
	w.notes(2)
	w.connect()
	// When the lease is over, it does.
	must(t, address.Leave(w.fresh.path(), of(w.move())))
	must(t, w.ends.Hold(second))
}

// A sandbox is looked for where the node has it, not the agent, also by way of links that name it
// from the node's root; and it is gone only where its directory tells so.
func TestNodesPaths(t *testing.T) {
	w := newWorld(t)
	host := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(host, "run/netns"), 0o755))
	must(t, os.MkdirAll(filepath.Join(host, "var"), 0o755))
	must(t, os.Symlink("/run", filepath.Join(host, "var/run")))
	must(t, os.Symlink("/run", filepath.Join(host, "far")))
	must(t, os.Symlink(w.fresh.path(), filepath.Join(host, "link"))) // of the agent's, not of the node's
	must(t, os.WriteFile(filepath.Join(host, "run/netns/cni-1"), nil, 0o600))
	w.ends = New(w.ends.layout, host, w, w.ends.log)
	for network, want := range map[string]struct{ is, gone bool }{
		"/run/netns/cni-1":            {is: true},
		"/var/run/netns/cni-1":        {is: true},
		"/far/../run/netns/cni-1":     {is: true},
		"/../../var/run/netns/cni-1":  {is: true},
		"/var/run/netns/cni-2":        {gone: true},
		"/var/run/docker/netns/cni-1": {},
		"/var/lib/netns/cni-1":        {},
		"/link":                       {},
	} {
		n := note{UID: "uid-1", Role: migrate.RoleSource, PodUID: sourcePod, Network: network}
		_, err := n.find(host)
		if (err == nil) != want.is || errors.Is(err, errGone) != want.gone {
			t.Errorf("%s: %v, want there: %v, gone: %v", network, err, want.is, want.gone)
		}
		// What is not known to be gone is not forgotten.
		must(t, w.ends.begin(n))
		if err := w.ends.clear(n.UID, n.Role); (err == nil) != want.gone {
			t.Errorf("clear %s: %v", network, err)
		}
		must(t, w.ends.forget(n.UID, n.Role))
	}
}

// A source that has not ended when its lease has is held nevertheless, also if its worker, which had
// not heard of that, sends on later.
func TestSourceEndsAfterItsLease(t *testing.T) {
	w := newWorld(t)
	w.moved(false)
	must(t, w.ends.forget(w.move().UID, migrate.RoleTarget)) // its node is another, and deaf
	w.pm.Status.Target.Node = "elsewhere"
	w.pm.Status.Source.Ended, w.pm.Status.Connections.LeaseEnded = false, true
	w.look()
	must(t, w.ends.Forward(w.move()))
	if err := w.answers(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("nothing is sent on: %v", err)
	}
	w.look()
	if err := w.answers(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("who connects to the old address hears %v, want nothing", err)
	}
}
