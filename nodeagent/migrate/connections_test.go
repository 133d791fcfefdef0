package migrate

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
)

var (
	oldAddress = netip.MustParseAddr("10.0.0.2")
	newAddress = netip.MustParseAddr("10.0.1.2")
)

func (x *addresses) Find(m Move) (netip.Addr, error) {
	x.c.called(x.name + " find")
	if !slices.Equal(m.Keep.Old, []netip.Addr{oldAddress}) {
		x.c.t.Errorf("old addresses %v", m.Keep.Old)
	}
	return newAddress, x.findErr
}

func (x *addresses) Answer(ctx context.Context, m Move) error {
	if x.answerErr != nil {
		return x.answerErr
	}
	x.mu.Lock()
	x.answers["probe"] = m.Keep.New.String()
	x.mu.Unlock()
	<-ctx.Done()
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.answers, "probe")
	return nil
}

func (x *addresses) Probe(ctx context.Context, _ Move) error {
	a := x.c.nodes["a"]
	for ctx.Err() == nil {
		a.mu.Lock()
		answers := a.answers["probe"] == newAddress.String()
		a.mu.Unlock()
		if answers && x.probeErr == nil {
			x.c.called(x.name + " probe")
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(context.Cause(ctx), x.probeErr)
}

func (x *addresses) Part(Move) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.c.called(x.name + " part")
	if x.source.Frozen || x.answers["probe"] != "" {
		x.c.t.Errorf("kept from the pod when frozen: %v, when the probe's answer is still there: %q", x.source.Frozen, x.answers["probe"])
	}
	x.net = "parting"
	return x.partErr
}

// Hold is called by the checkpointer.
func (x *addresses) Hold(Move) error {
	x.c.called(x.name + " hold")
	if !x.source.Frozen || x.net != "parting" {
		x.c.t.Errorf("held when frozen: %v, and the sandbox was %q", x.source.Frozen, x.net)
	}
	x.net = "held"
	return x.holdErr
}

func (x *addresses) Arrive(Move) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.c.called(x.name + " arrive")
	x.net = "arrived"
	return x.arriveErr
}

func (x *addresses) Open(_ context.Context, m Move) error {
	x.c.called(x.name + " open")
	if r := x.c.record(); !r.Target.Starting || r.Target.Resumed || m.Keep.For != time.Minute {
		x.c.t.Errorf("opened for %v, and the record says starting: %v, resumed: %v", m.Keep.For, r.Target.Starting, r.Target.Resumed)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.openErr == nil {
		x.net = "open"
	}
	return x.openErr
}

func (x *addresses) Forward(m Move) error {
	x.c.called(x.name + " forward")
	r := x.c.record()
	x.mu.Lock()
	defer x.mu.Unlock()
	if runs := x.source.Alive && !x.source.Frozen; runs || !r.Target.Resumed || r.Lost || x.net != "held" && x.net != "forwards" {
		x.c.t.Errorf("forwarded from %q, while the source runs: %v, resumed: %v, lost: %v", x.net, runs, r.Target.Resumed, r.Lost)
	}
	if x.forwardErrs > 0 {
		x.forwardErrs--
		return errors.New("bad luck")
	}
	x.net, x.sendsOn = "forwards", m.Keep.For
	return nil
}

func (x *addresses) Clear(_ Move, role Role) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if role == RoleSource && x.source.Frozen || role == RoleTarget && x.copy.Alive {
		x.c.t.Errorf("the sandbox of the %s is cleared while there is what must stay silent", role)
	}
	x.net = ""
	return nil
}

// keeping has the pod ask for its connections.
func keeping(c *cluster) {
	c.pm.Status.Connections = &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsProbing,
		KeepFor: metav1.Duration{Duration: time.Minute}, OldAddresses: []string{oldAddress.String()}}
}

// nets fails unless the sandboxes are as they should be.
func (c *cluster) nets(t *testing.T, a, b string) {
	t.Helper()
	if is := [2]string{c.nodes["a"].net, c.nodes["b"].net}; is != [2]string{a, b} {
		t.Errorf("the sandboxes are %q, want %q and %q", is, a, b)
	}
}

// along is the record of a pod that has moved with its connections.
func along() handoff.Record {
	r := moved
	r.Adopted = true
	return r
}

// What comes for the old address is sent on once the copy runs, and the source is not ended before
// drover-controller says so.
func TestConnectionsKept(t *testing.T) {
	run(t, keeping, func(c *cluster) {
		<-time.After(c.adopts - time.Second)
		synctest.Wait()
		c.nets(t, "forwards", "open")
		a := c.nodes["a"]
		if r := c.record(); !r.Target.Resumed || r.Source.Ended || !a.source.Alive || !a.source.Frozen {
			t.Errorf("the record is %+v, the source %+v; want it kept, frozen", r, a.source)
		}
		if held := a.driver.held(); held != 0 {
			t.Errorf("drover_held_containers: %v, and the pod runs", held)
		}
	}, along(), func(t *testing.T, c *cluster) {
		want := []string{"b find", "b probe", "b arrive", "a part", "a dump", "a hold", "b arrive", "b restore", "b open", "b thaw", "a forward", "a end"}
		if d := cmp.Diff(want, c.calls); d != "" {
			t.Errorf("what was done (-want +got):\n%s", d)
		}
		s := c.pm.Status.Connections
		if s.State != v1alpha1.ConnectionsKept || s.Reason != v1alpha1.ReasonProbed || s.NewAddress != newAddress.String() || s.LeaseEnded {
			t.Errorf("the record says %+v", s)
		}
		if !meta.IsStatusConditionTrue(c.pm.Status.Conditions, v1alpha1.ConditionConnectionsKept) {
			t.Errorf("conditions %v", c.pm.Status.Conditions)
		}
		c.nets(t, "forwards", "open")
	})
}

// A lease that ends before the owner has the replacement has the source ended without drover-controller.
func TestLeaseEndsEarly(t *testing.T) {
	run(t, func(c *cluster) { keeping(c); c.adopts = 0 }, func(c *cluster) {
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if r := c.record(); !r.Target.Resumed || r.Source.Ended {
			t.Errorf("the record is %+v, want a source that is kept", r)
		}
		c.change(func(s *v1alpha1.PodMigrationStatus) { s.Connections.LeaseEnded = true })
	}, moved, nil)
}

// What is not sent on now is sent on later.
func TestForwardAgain(t *testing.T) {
	run(t, func(c *cluster) { keeping(c); c.nodes["a"].forwardErrs, c.adopts = 2, 30*time.Second }, func(c *cluster) {
		time.Sleep(20 * time.Second)
		synctest.Wait()
		c.nets(t, "forwards", "open")
	}, along(), nil)
}

// Where they cannot be kept they are closed as ever, and the record says why; a pod that wants
// them kept is not moved then, and nothing of it is frozen or held.
func TestConnectionsClosed(t *testing.T) {
	bad := errors.New("bad luck")
	for name, c := range map[string]struct {
		setUp  func(*cluster)
		reason string
		says   string
	}{
		"nothing comes back":      {func(c *cluster) { c.nodes["b"].probeErr = bad }, v1alpha1.ReasonNotCarried, "not within 3s"},
		"the source cannot":       {func(c *cluster) { c.nodes["a"].answerErr = bad }, v1alpha1.ReasonUnable, "node a: bad luck"},
		"the target cannot":       {func(c *cluster) { c.nodes["b"].arriveErr = bad }, v1alpha1.ReasonUnable, "node b: bad luck"},
		"the sandbox has no such": {func(c *cluster) { c.nodes["b"].findErr = bad }, v1alpha1.ReasonUnable, "find the new sandbox's address: bad luck"},
		"the controller says so":  {func(c *cluster) { closeThem(c) }, v1alpha1.ReasonNotLeasable, "no image"},
		"the target's agent is older": {func(c *cluster) {
			c.pm.Status.Target.Waiting, c.pm.Status.Target.BootID = true, "boot-b"
			c.nodes["b"].findErr = bad // which it does not ask for
		}, v1alpha1.ReasonUnable, "the agent of node b"},
		"the write of it is lost": {func(c *cluster) { c.nodes["b"].probeErr = bad; c.loseAll(2) }, v1alpha1.ReasonNotCarried, ""},
		"the source cannot, and the target has found that it can": {func(c *cluster) {
			c.at = func(verb string) { // the first write after that it waits
				if w := c.record().Target.Waiting; w && verb == string(handoff.Wait) {
					c.at = nil
					c.mu.Lock()
					closeThem(c)
					c.pm.ResourceVersion += "0"
					c.mu.Unlock()
					c.show()
				}
			}
		}, v1alpha1.ReasonNotLeasable, "no image"},
	} {
		for _, must := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				want := moved
				if must {
					want = abortedEarly
				}
				run(t, func(cl *cluster) {
					keeping(cl)
					cl.pm.Status.Connections.Required = must
					c.setUp(cl)
				}, nil, want, func(t *testing.T, cl *cluster) {
					s := cl.pm.Status
					if s.Connections.State != v1alpha1.ConnectionsClosed || s.Connections.Reason != c.reason || !strings.Contains(s.Connections.Message, c.says) {
						t.Errorf("the record says %+v, want %s, %q", s.Connections, c.reason, c.says)
					}
					if slices.Contains(cl.calls, "a part") || must && slices.Contains(cl.calls, "a dump") {
						t.Errorf("done: %v", cl.calls)
					}
					if must && (s.DecisionReason != ReasonConnectionsNotKept || !strings.Contains(s.DecisionMessage, c.says)) {
						t.Errorf("aborted for %s: %s", s.DecisionReason, s.DecisionMessage)
					}
					cl.nets(t, "", "")
				})
			})
		}
	}
}

func closeThem(c *cluster) {
	s := c.pm.Status.Connections
	s.State, s.Reason, s.Message = v1alpha1.ConnectionsClosed, v1alpha1.ReasonNotLeasable, "there is no image to hold it"
}

// loseAll loses the answers to so many writes that are no change of the machines', of which the
// target's that it waits is the first.
func (c *cluster) loseAll(n int) {
	c.at = func(verb string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if verb == string(handoff.Wait) && n > 0 {
			n--
			c.lose = handoff.Wait
		}
	}
}

// Wherever a move ends that does not take place, both sandboxes are as they were, and what was done
// is undone in that order: first the copy is dead, or the source mended and thawed, then its hold goes.
func TestConnectionsAborts(t *testing.T) {
	bad := errors.New("bad luck")
	for name, c := range map[string]struct {
		setUp, meanwhile func(*cluster)
		want             handoff.Record
		reason           string
	}{
		"what comes cannot be kept":      {setUp: func(c *cluster) { c.nodes["a"].partErr = bad }, want: abortedEarly, reason: "DumpFailed"},
		"the hold fails":                 {setUp: func(c *cluster) { c.nodes["a"].holdErr = bad }, want: abortedEarly, reason: "DumpFailed"},
		"the dump fails":                 {setUp: func(c *cluster) { c.nodes["a"].dumpErr = bad }, want: abortedEarly, reason: "DumpFailed"},
		"the send fails":                 {setUp: func(c *cluster) { c.nodes["a"].sendErr = bad }, want: abortedEarly, reason: "SendFailed"},
		"the restore fails":              {setUp: func(c *cluster) { c.nodes["b"].restoreErr = bad }, want: abortedLate},
		"it is not wanted any more":      {setUp: func(c *cluster) { c.unwanted = "pod web is being deleted" }, want: abortedLate, reason: "Unwanted"},
		"while it is probed":             {setUp: func(c *cluster) { c.nodes["b"].probeErr = bad }, meanwhile: func(c *cluster) { time.Sleep(time.Second); c.abort() }, want: abortedEarly},
		"while it is dumped":             {setUp: func(c *cluster) { c.nodes["a"].blockDump = true }, meanwhile: func(c *cluster) { time.Sleep(time.Second); c.abort() }, want: abortedEarly},
		"while it is restored":           {setUp: func(c *cluster) { c.nodes["b"].blockRestore = true }, meanwhile: func(c *cluster) { time.Sleep(time.Second); c.abort() }, want: abortedLate},
		"the create is gone":             {setUp: func(c *cluster) { c.nodes["a"].blockDump = true }, meanwhile: func(c *cluster) { time.Sleep(time.Second); c.nodes["b"].endCreate("c1") }, want: abortedEarly, reason: "WaiterGone"},
		"the target's end cannot open":   {setUp: func(c *cluster) { c.nodes["b"].openErr = bad }, want: returned},
		"the copy is dead at the commit": {setUp: dieAtCommit, want: func() handoff.Record { r := returned; r.Target.Starting = false; return r }()},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(cl *cluster) { keeping(cl); c.setUp(cl) }, c.meanwhile, c.want, func(t *testing.T, cl *cluster) {
				if got := cl.pm.Status.DecisionReason; c.reason != "" && got != c.reason {
					t.Errorf("reason %q, want %q", got, c.reason)
				}
				cl.nets(t, "", "")
				if slices.Contains(cl.calls, "a forward") {
					t.Errorf("done: %v", cl.calls)
				}
			})
		})
	}
}

func dieAtCommit(c *cluster) {
	c.at = func(verb string) {
		if verb == string(handoff.Commit) {
			b := c.nodes["b"]
			b.mu.Lock()
			b.copy.Alive, b.copy.Frozen, b.copy.Held = false, false, false
			b.mu.Unlock()
		}
	}
}

// A pod that may have run goes on, whatever becomes of its address.
func TestConnectionsLostAtResume(t *testing.T) {
	run(t, func(c *cluster) { keeping(c); two(c) }, func(c *cluster) {
		b := c.nodes["b"]
		time.Sleep(10 * time.Second)
		synctest.Wait()
		c.at = func(verb string) {
			if verb == string(handoff.Start) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.copy.Passed[0].Frozen, b.openErr = false, errors.New("bad luck")
			}
		}
		b.createOf("proxy", "c2")
	}, along(), func(t *testing.T, c *cluster) { c.nets(t, "forwards", "arrived") })
}

// A source that is given up with its target sends nothing on: the other end may be cut off, and no
// more than that.
func TestConnectionsLost(t *testing.T) {
	want := moved
	want.Target.Resumed, want.Lost = false, true
	run(t, func(c *cluster) {
		keeping(c)
		c.at = func(verb string) {
			if verb != string(handoff.Resume) {
				return
			}
			c.at = nil
			b := c.nodes["b"]
			b.cut()
			c.mu.Lock()
			c.drop = handoff.Resume
			delete(c.boot, "b")
			c.mu.Unlock()
			b.mu.Lock()
			b.copy = Copy{}
			b.mu.Unlock()
		}
	}, nil, want, func(t *testing.T, c *cluster) { c.nets(t, "held", "open") })
}

// Whichever agent dies when, the sandboxes are as the record has it, but for what who looks after
// leases does again: a source that ended without its agent's Forward.
func TestConnectionsRestarts(t *testing.T) {
	for _, v := range []handoff.Verb{handoff.Wait, handoff.Offer, handoff.Commit, handoff.Start, handoff.Resume, handoff.End} {
		for _, name := range []string{"a", "b"} {
			for _, nth := range []int{1, 2} { // the second that waits is the verdict
				if nth == 2 && v != handoff.Wait {
					continue
				}
				t.Run(name+" at "+string(v), func(t *testing.T) { restartedAt(t, v, name, nth) })
			}
		}
	}
}

func restartedAt(t *testing.T, v handoff.Verb, name string, nth int) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		keeping(c)
		restart := make(chan struct{}, 1)
		c.at = func(verb string) {
			if verb == string(v) {
				if nth--; nth == 0 {
					restart <- struct{}{}
				}
			}
		}
		a, b := c.nodes["a"], c.nodes["b"]
		a.start()
		b.start()
		b.create("c1")
		<-restart
		n := c.nodes[name]
		n.stop()
		n.start()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		r := c.record()
		switch {
		case r.Source.Ended && a.net != "":
			c.nets(t, a.net, "open")
		case r.Source.Released && r.Target.Cleaned:
			c.nets(t, "", "")
		default:
			t.Errorf("not at an end: %+v, the source's sandbox %q", r, a.net)
		}
		c.count1(t)
		a.stop()
		b.stop()
	})
}

// A source whose agent hears late of the copy sends nothing on for a lease that is over, and for no longer than
// one lives.
func TestSendsOnLate(t *testing.T) {
	for name, late := range map[string]struct {
		lease func(*v1alpha1.ConnectionsStatus)
		net   string
		sends time.Duration
	}{
		"it has just begun": {func(*v1alpha1.ConnectionsStatus) {}, "forwards", time.Minute},
		"a part is left": {func(c *v1alpha1.ConnectionsStatus) {
			c.Until = &metav1.MicroTime{Time: time.Now().Add(v1alpha1.LeaseMargin + 20*time.Second)}
		}, "forwards", 20 * time.Second},
		"its time is over": {func(c *v1alpha1.ConnectionsStatus) { c.Until = &metav1.MicroTime{Time: time.Now()} }, "held", 0},
		"it has ended":     {func(c *v1alpha1.ConnectionsStatus) { c.LeaseEnded = true }, "held", 0},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(c *cluster) {
				keeping(c)
				c.at = func(verb string) {
					if verb == string(handoff.Resume) {
						c.nodes["a"].stop() // one that is still ending may hear of it yet, and send on
					}
				}
			}, func(c *cluster) {
				time.Sleep(30 * time.Second)
				synctest.Wait()
				c.change(func(s *v1alpha1.PodMigrationStatus) { late.lease(s.Connections) })
				c.nodes["a"].start()
			}, along(), func(t *testing.T, c *cluster) {
				c.nets(t, late.net, "open")
				if got := c.nodes["a"].sendsOn; got != late.sends {
					t.Errorf("sent on for %v, want %v", got, late.sends)
				}
			})
		})
	}
}
