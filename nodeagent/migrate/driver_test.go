package migrate

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/movable"
)

// run lets a move take its course in a bubble of its own time, and looks at how it ended.
func run(t *testing.T, setUp func(*cluster), meanwhile func(*cluster), want handoff.Record, check func(*testing.T, *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		if setUp != nil {
			setUp(c)
		}
		a, b := c.nodes["a"], c.nodes["b"]
		a.start()
		b.start()
		b.create("c1")
		if meanwhile != nil {
			meanwhile(c)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		got := c.record()
		if got.Decision == handoff.Aborted {
			got.Source.Offered = want.Source.Offered // an abort may win or lose that race
		}
		got.Version, got.Target.Deadline, got.ID, got.Containers = "", time.Time{}, "", 0
		got.Source.Keep = want.Source.Keep // the record's object says it
		got.Source.Node, got.Source.PodUID, got.Target.Node, got.Target.PodUID, got.Target.BootID = "", "", "", "", ""
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("the record (-want +got):\n%s", d)
		}
		c.count1(t)
		if check != nil {
			check(t, c)
		}
		a.stop()
		b.stop()
	})
}

// count1: one copy runs, and one only.
func (c *cluster) count1(t *testing.T) {
	a, b := c.nodes["a"], c.nodes["b"]
	here := a.source.Alive && !a.source.Frozen
	there := b.copy.Alive && !b.copy.Frozen
	if c.record().Lost {
		if here || there {
			t.Errorf("source runs: %v, copy runs: %v; want none of them", here, there)
		}
		return
	}
	if here == there {
		t.Errorf("source runs: %v, copy runs: %v; want one of them", here, there)
	}
}

// A watch that is silent costs what is held no more than seconds: client-go's comes back up to
// a minute after the API server does.
func TestWatchIsSilent(t *testing.T) {
	run(t, func(c *cluster) { c.deaf = handoff.Offer }, nil, moved, func(t *testing.T, c *cluster) {
		if f := c.pm.Status.FrozenTime; f == nil || f.Duration > 15*time.Second {
			t.Errorf("the source was frozen for %v", f)
		}
	})
}

var (
	moved = handoff.Record{Epoch: 2, Decision: handoff.Committed,
		Source: handoff.SourceRecord{Offered: true, Ended: true}, Target: handoff.TargetRecord{Waiting: true, Starting: true, Resumed: true}}
	abortedEarly = handoff.Record{Epoch: 2, Decision: handoff.Aborted,
		Source: handoff.SourceRecord{Released: true}, Target: handoff.TargetRecord{Waiting: true, Cleaned: true}}
	abortedBeforeWaiting = handoff.Record{Epoch: 2, Decision: handoff.Aborted,
		Source: handoff.SourceRecord{Released: true}, Target: handoff.TargetRecord{Cleaned: true}}
	abortedLate = handoff.Record{Epoch: 2, Decision: handoff.Aborted,
		Source: handoff.SourceRecord{Offered: true, Released: true}, Target: handoff.TargetRecord{Waiting: true, Cleaned: true}}
	returned = handoff.Record{Epoch: 3, Decision: handoff.Committed, Returned: true,
		Source: handoff.SourceRecord{Offered: true, Released: true}, Target: handoff.TargetRecord{Waiting: true, Starting: true, Failed: true, Cleaned: true}}
)

// What is heard of a move while its worker leaves is not lost: here the source takes the pod back while the target, which
// has said that its copy is dead and has nothing to do until then, throws the images away.
func TestHeardWhileLeaving(t *testing.T) {
	want := returned
	want.Target.Starting = false
	run(t, func(c *cluster) {
		dieAtCommit(c)
		c.nodes["b"].discards = func() { time.Sleep(10 * time.Second) }
	}, nil, want, func(t *testing.T, c *cluster) {
		if len(c.ends) != 2 || c.ends[0].Outcome != Returned || c.ends[1].Outcome != Returned {
			t.Errorf("the move is told to have ended so: %+v; want Returned, once by each node", c.ends)
		}
	})
}

// How far a transfer is gets written while it lasts, and what it took in the end. It is in
// nobody's way: not if others write meanwhile, not if it is not known whether it was stored.
func TestProgressIsWritten(t *testing.T) {
	for name, unknown := range map[string]bool{"well": false, "unknown": true} {
		t.Run(name, func(t *testing.T) {
			var waits atomic.Int32 // a write of progress looks like the target's that it waits
			run(t, func(c *cluster) {
				c.nodes["a"].slowSend = 5500 * time.Millisecond
				c.at = func(verb string) {
					if verb == string(handoff.Wait) && waits.Add(1) > 1 && unknown {
						c.mu.Lock()
						c.lose = handoff.Wait
						c.mu.Unlock()
					}
				}
			}, nil, moved, func(t *testing.T, c *cluster) {
				// One that waits, and one of progress each second.
				if n := waits.Load(); n < 4 || n > 1+5 {
					t.Errorf("%d writes, want one a second", n)
				}
				if tr := c.pm.Status.Transfer; tr == nil || tr.SentBytes != 4096 || tr.WireBytes != 99 || tr.Rounds != 3 || tr.TimeLeft != nil {
					t.Errorf("in the end: %+v", tr)
				}
			})
		})
	}
}

func TestMove(t *testing.T) {
	run(t, nil, nil, moved, func(t *testing.T, c *cluster) {
		var steps []string
		for _, e := range c.pm.Status.Timeline {
			steps = append(steps, e.Step+" "+e.By)
		}
		want := []string{"CreateWaiting b", "Frozen a", "Dumped a", "Sent a", "Restored b", "Committed b", "Resumed b", "SourceEnded a"}
		if d := cmp.Diff(want, steps); d != "" {
			t.Errorf("timeline (-want +got):\n%s", d)
		}
		if cond := meta.FindStatusCondition(c.pm.Status.Conditions, v1alpha1.ConditionMovable); cond == nil || cond.Status != "True" {
			t.Errorf("condition %+v, want that nothing speaks against it", cond)
		}
		if s := c.pm.Status; s.Bytes != 4096 || s.DecisionBy != "target b" || s.Phase != "Committed" {
			t.Errorf("bytes %d, decided by %q, phase %q", s.Bytes, s.DecisionBy, s.Phase)
		}
		if n := len(c.ends); n != 2 {
			t.Errorf("%d ends were told, want 2: %v", n, c.ends)
		}
		if !c.nodes["b"].arrivals[targetPod] || len(c.nodes["a"].fences) != 1 || c.nodes["b"].images {
			t.Error("want the arrival noted, the source fenced, the images removed")
		}
		if got := testutil.ToFloat64(c.nodes["a"].driver.metrics.moves.WithLabelValues("source", "moved")); got != 1 {
			t.Errorf("drover_migrations_total: %v, want 1", got)
		}
	})
}

func TestAborts(t *testing.T) {
	bad := errors.New("bad luck")
	for name, c := range map[string]struct {
		setUp, meanwhile func(*cluster)
		want             handoff.Record
		reason           string
	}{
		"dump fails": {setUp: func(c *cluster) { c.nodes["a"].dumpErr = bad }, want: abortedEarly, reason: "DumpFailed"},
		"a process that cannot be dumped": {
			setUp: func(c *cluster) { c.leaves = []movable.Finding{movable.Found("MPTCPSocket", "descriptor 3 is one")} },
			want:  abortedEarly, reason: "MPTCPSocket"},
		"a processor that lacks something": {
			setUp:  func(c *cluster) { c.comes = []movable.Finding{movable.Found("CPUFeatures", "it lacks avx2")} },
			want:   abortedBeforeWaiting,
			reason: "CPUFeatures"},
		"send fails":    {setUp: func(c *cluster) { c.nodes["a"].sendErr = bad }, want: abortedEarly, reason: "SendFailed"},
		"restore fails": {setUp: func(c *cluster) { c.nodes["b"].restoreErr = bad }, want: abortedLate, reason: "RestoreFailed"},
		"unwanted":      {setUp: func(c *cluster) { c.unwanted = "pod web is being deleted" }, want: abortedLate, reason: "Unwanted"},
		"dump hangs, controller aborts": {
			setUp:     func(c *cluster) { c.nodes["a"].blockDump = true },
			meanwhile: func(c *cluster) { time.Sleep(time.Second); c.abort() }, want: abortedEarly},
		"restore takes long, controller aborts": {
			setUp:     func(c *cluster) { c.nodes["b"].blockRestore = true },
			meanwhile: func(c *cluster) { time.Sleep(time.Second); c.abort() }, want: abortedLate},
		"create vanishes": {
			setUp:     func(c *cluster) { c.nodes["a"].blockDump = true },
			meanwhile: func(c *cluster) { time.Sleep(time.Second); c.nodes["b"].endCreate("c1") }, want: abortedEarly, reason: "WaiterGone"},
		"nothing comes in time": {setUp: func(c *cluster) { c.nodes["a"].blockDump = true }, want: abortedEarly, reason: "Late"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, c.setUp, c.meanwhile, c.want, func(t *testing.T, cl *cluster) {
				if got := cl.pm.Status.DecisionReason; c.reason != "" && got != c.reason && !(c.reason == "RestoreFailed" && got == "HookGone") {
					t.Errorf("reason %q, want %q", got, c.reason)
				}
				if len(cl.nodes["a"].fences) != 0 {
					t.Error("the fence is still there")
				}
				if len(cl.leaves)+len(cl.comes) > 0 {
					cond := meta.FindStatusCondition(cl.pm.Status.Conditions, v1alpha1.ConditionMovable)
					if cond == nil || cond.Status != "False" || cond.Reason != c.reason || cond.Message != cl.pm.Status.DecisionMessage {
						t.Errorf("condition %+v, decision %q", cond, cl.pm.Status.DecisionMessage)
					}
				}
			})
		})
	}
}

// TestLostAnswers loses the answer to each write in turn, and then each write itself.
func TestLostAnswers(t *testing.T) {
	for _, v := range []handoff.Verb{handoff.Wait, handoff.Offer, handoff.Commit, handoff.Resume, handoff.End} {
		t.Run("answer to "+string(v), func(t *testing.T) {
			run(t, func(c *cluster) { c.lose = v }, nil, moved, nil)
		})
		t.Run(string(v), func(t *testing.T) {
			run(t, func(c *cluster) { c.drop = v }, nil, moved, nil)
		})
	}
}

// A write that is refused for another reason than a newer version is tried again by and by:
// reading again at once finds nothing new, and would go on for as long as the reason does.
func TestForbidden(t *testing.T) {
	run(t, func(c *cluster) { c.forbid, c.until = handoff.Offer, time.Now().Add(30*time.Second) }, nil, moved, func(t *testing.T, c *cluster) {
		if c.refused < 2 || c.refused > 31 {
			t.Errorf("%d writes in 30 s of being refused, want about one a second", c.refused)
		}
	})
}

// TestAway: the API server is away when it matters most; both stay held until it is back.
func TestAway(t *testing.T) {
	run(t, func(c *cluster) {
		c.at = func(verb string) {
			if verb == "commit" {
				c.mu.Lock()
				c.away, c.at = true, nil
				c.mu.Unlock()
			}
		}
	}, func(c *cluster) {
		time.Sleep(30 * time.Second)
		synctest.Wait()
		a, b := c.nodes["a"], c.nodes["b"]
		if !a.source.Frozen || !b.copy.Frozen {
			t.Error("not held while the API server is away")
		}
		if got := a.driver.held() + b.driver.held(); got != 2 {
			t.Errorf("drover_held_containers: %v, want 2", got)
		}
		// Time stands still but for the sleep: both are held from its beginning.
		for _, n := range c.nodes {
			if got := n.driver.holdings.longest(); got != 30*time.Second {
				t.Errorf("node %s: held for %s, want 30s", n.name, got)
			}
			if got := n.driver.holdings.total(); got != 30*time.Second {
				t.Errorf("node %s: held for %s in all, want 30s", n.name, got)
			}
		}
		for _, f := range append(a.driver.Look(t.Context(), c.pm), b.driver.Look(t.Context(), c.pm)...) {
			if !f.Driven || !f.Alive || !f.Frozen || f.HeldSince.IsZero() || f.Problem != "" || (f.Fence == 2) != (f.Role == RoleSource) {
				t.Errorf("found %+v", f)
			}
		}
		c.mu.Lock()
		c.away = false
		c.mu.Unlock()
	}, moved, func(t *testing.T, c *cluster) {
		for _, n := range c.nodes {
			if got := n.driver.holdings.longest(); got != 0 {
				t.Errorf("node %s: held for %s after the move", n.name, got)
			}
			if got := n.driver.holdings.total(); got < 30*time.Second || got > time.Minute {
				t.Errorf("node %s: held for %s in all", n.name, got)
			}
		}
	})
}

// TestRestarts restarts both agents at every write, before it is stored.
func TestRestarts(t *testing.T) {
	for _, v := range []handoff.Verb{handoff.Wait, handoff.Offer, handoff.Commit, handoff.Resume, handoff.End} {
		for _, name := range []string{"a", "b"} {
			t.Run(name+" at "+string(v), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster(t)
					restart := make(chan struct{}, 1)
					c.at = func(verb string) {
						if verb == string(v) {
							c.mu.Lock()
							c.at = nil
							c.mu.Unlock()
							restart <- struct{}{}
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
					t.Logf("%+v", r)
					done := r.Source.Ended || r.Source.Released && r.Target.Cleaned
					if !done {
						t.Errorf("not at an end: %+v", r)
					}
					c.count1(t)
					a.stop()
					b.stop()
				})
			})
		}
	}
}

// TestFailedTarget: the commit stands, but the copy is gone: the source takes the pod back.
func TestFailedTarget(t *testing.T) {
	run(t, func(c *cluster) {
		c.at = func(verb string) {
			if verb == "commit" {
				c.mu.Lock()
				c.at = nil
				c.mu.Unlock()
				b := c.nodes["b"]
				b.mu.Lock()
				b.copy.Held = false // CRIU died, and nobody has told yet
				b.mu.Unlock()
			}
		}
	}, nil, returned, func(t *testing.T, c *cluster) {
		if c.nodes["b"].fences[targetPod].PodUID == "" || len(c.nodes["a"].fences) != 0 {
			t.Error("want the replacement fenced, and the source not")
		}
	})
}

// TestDeadTarget: the target's node was booted after the commit.
func TestDeadTarget(t *testing.T) {
	want := returned
	want.Target.Starting, want.Target.Failed, want.Target.Cleaned = false, false, false
	run(t, func(c *cluster) {
		c.at = func(verb string) {
			if verb == "commit" {
				c.at = nil
				b := c.nodes["b"]
				b.cut()
				c.mu.Lock()
				c.boot["b"] = "boot-b2"
				c.mu.Unlock()
				b.mu.Lock()
				b.copy = Copy{}
				b.mu.Unlock()
			}
		}
	}, nil, want, func(t *testing.T, c *cluster) {
		if c.pm.Status.ReturnProof == "" {
			t.Error("no proof in the record")
		}
	})
}

// two makes the pod one of two containers.
func two(c *cluster) {
	c.pm.Status.Source.Containers = append(c.pm.Status.Source.Containers, v1alpha1.MovingContainer{Name: "proxy", ID: "c-proxy"})
}

// TestTwoContainers: the first create returns with its copy held, and kubelet asks for the
// second container only then. An agent that restarts between the two finds the first.
func TestTwoContainers(t *testing.T) {
	for _, restart := range []bool{false, true} {
		run(t, two, func(c *cluster) {
			b := c.nodes["b"]
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if len(b.copy.Creates) != 0 || len(b.copy.Passed) != 1 || c.record().Decision != handoff.Undecided {
				t.Fatalf("found %+v, decision %q; want the first create to have returned before any decision", b.copy, c.record().Decision)
			}
			if restart {
				b.stop()
				b.start()
			}
			b.createOf("proxy", "c2")
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(b.copy.Passed) != 1 || b.copy.Passed[0].Frozen {
				t.Errorf("found %+v; want both copies thawed", b.copy)
			}
		}, moved, nil)
	}
}

// TestThawedCopy: somebody thaws a copy that was passed. Before the commit the move is given up;
// once it is starting the copy counts as one that ran, so that the source does not go on.
func TestThawedCopy(t *testing.T) {
	for before, want := range map[handoff.Verb]handoff.Record{handoff.Commit: abortedLate, handoff.Start: moved} {
		t.Run(string(before), func(t *testing.T) {
			run(t, two, func(c *cluster) {
				b := c.nodes["b"]
				time.Sleep(10 * time.Second)
				synctest.Wait()
				thaw := func() {
					b.mu.Lock()
					defer b.mu.Unlock()
					b.copy.Passed[0].Frozen = false
				}
				if before == handoff.Commit {
					thaw()
				} else {
					c.at = func(verb string) {
						if verb == string(before) {
							thaw()
						}
					}
				}
				b.createOf("proxy", "c2")
			}, want, func(t *testing.T, c *cluster) {
				if got := c.pm.Status.DecisionReason; want.Decision == handoff.Aborted && got != "CopyDied" {
					t.Errorf("reason %q, want CopyDied", got)
				}
			})
		})
	}
}

// TestLookFindsNothing: a copy that is not there is none, and not one that has ended.
func TestLookFindsNothing(t *testing.T) {
	c := newCluster(t)
	b := c.nodes["b"]
	b.copy.Passed = []handoff.Copy{{ID: "c1", Alive: true, Frozen: true}}
	w := &worker{d: New(Config{Node: "b"}, Ports{Runtime: (*copies)(b)})}
	want := handoff.Event{Kind: handoff.Looked, Copies: b.copy.Passed}
	if d := cmp.Diff(want, w.lookAgain(t.Context()).event); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestHeldByAnotherMove: a pod that a move holds whose record is gone does not leave, and its fence
// stays: the move's copy may run elsewhere.
func TestHeldByAnotherMove(t *testing.T) {
	other := fence.Fence{PodUID: sourcePod, Epoch: 9, Migration: "another/move"}
	run(t, func(c *cluster) { c.nodes["a"].fences[sourcePod] = other }, nil, abortedEarly, func(t *testing.T, c *cluster) {
		if got := c.nodes["a"].fences[sourcePod]; got != other {
			t.Errorf("the fence is %+v, want %+v", got, other)
		}
		if got := c.pm.Status.DecisionReason; got != "FenceFailed" {
			t.Errorf("reason %q, want FenceFailed", got)
		}
	})
}

// TestPassHangs: an abort is acted on while a pass waits for a runtime that hangs.
func TestPassHangs(t *testing.T) {
	run(t, func(c *cluster) { two(c); c.nodes["b"].blockPass = true }, func(c *cluster) {
		time.Sleep(10 * time.Second)
		c.abort()
	}, abortedLate, nil)
}

// TestPassedCopyRestarts: kubelet makes a container anew whose copy is held: the move is given up.
func TestPassedCopyRestarts(t *testing.T) {
	run(t, two, func(c *cluster) {
		time.Sleep(10 * time.Second)
		synctest.Wait()
		c.nodes["b"].createOf("web", "c2")
	}, abortedLate, func(t *testing.T, c *cluster) {
		if got := c.nodes["b"].answers["c2"]; got != "refuse" {
			t.Errorf("the second create of the first container was answered %q, want refuse", got)
		}
	})
}

// TestPowerLoss: the target loses power after the copy ran and before it has said so. It boots
// again, or it is gone for good.
func TestPowerLoss(t *testing.T) {
	down := func(c *cluster) {
		c.at = func(verb string) {
			if verb != string(handoff.Resume) {
				return
			}
			c.at = nil
			b := c.nodes["b"]
			b.cut()
			c.mu.Lock()
			c.drop = handoff.Resume // the write is lost with the node
			delete(c.boot, "b")
			c.mu.Unlock()
			b.mu.Lock()
			b.copy, b.begun, b.boot = Copy{}, false, "boot-b2"
			b.mu.Unlock()
		}
	}
	t.Run("boots", func(t *testing.T) {
		run(t, down, func(c *cluster) {
			synctest.Wait()
			c.mu.Lock()
			c.boot["b"] = "boot-b2"
			c.mu.Unlock()
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if r := c.record(); r.Returned || r.Lost || r.Source.Ended {
				t.Errorf("acted before the target has said what became of the copy: %+v", r)
			}
			b := c.nodes["b"]
			b.start()
			b.create("c2")
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := b.answers["c2"]; got != "fresh" {
				t.Errorf("the create after the boot was answered %q, want fresh", got)
			}
			b.copy = Copy{ID: "c2", Alive: true}
		}, moved, nil)
	})
	t.Run("gone", func(t *testing.T) {
		want := moved
		want.Target.Resumed, want.Lost = false, true
		run(t, down, nil, want, func(t *testing.T, c *cluster) {
			if c.pm.Status.LostMessage == "" {
				t.Error("the record does not say what is lost")
			}
		})
	})
}

// TestCrashAfterMove: a create of a pod that has arrived starts anew, also if the note of
// its arrival is missing.
func TestCrashAfterMove(t *testing.T) {
	run(t, nil, func(c *cluster) {
		time.Sleep(time.Minute)
		synctest.Wait()
		b := c.nodes["b"]
		b.driver.ContainerEnded("c1")
		b.create("c2")
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.answers["c2"]; got != "fresh" {
			t.Errorf("the second create was answered %q, want fresh", got)
		}
		b.copy = Copy{ID: "c2", Alive: true}
	}, moved, nil)
}

// TestRefusedAfterAbort: kubelet asks again after an abort.
func TestRefusedAfterAbort(t *testing.T) {
	run(t, func(c *cluster) { c.nodes["a"].dumpErr = errors.New("bad luck") }, func(c *cluster) {
		time.Sleep(time.Minute)
		synctest.Wait()
		b := c.nodes["b"]
		b.create("c2")
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.answers["c2"]; got != "refuse" {
			t.Errorf("the second create was answered %q, want refuse", got)
		}
	}, abortedEarly, nil)
}

// abreast is an API server that answers who asks for the record and who asks for the pods only once both
// have asked.
type abreast struct {
	*cluster
	record, pods chan struct{}
}

func (a abreast) Get(ctx context.Context, namespace, name string) (*v1alpha1.PodMigration, error) {
	close(a.record)
	<-a.pods
	return a.cluster.Get(ctx, namespace, name)
}

func (a abreast) Unwanted(ctx context.Context, m Move) (string, error) {
	close(a.pods)
	<-a.record
	return a.cluster.Unwanted(ctx, m)
}

// TestConfirmReadsAllAtOnce: while a pod stands frozen no answer is waited for before the next is
// asked for.
func TestConfirmReadsAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.unwanted = "pod web is being deleted"
		a := abreast{c, make(chan struct{}), make(chan struct{})}
		w := newWorker(New(Config{Node: "b"}, Ports{Records: a, Cluster: a, Log: slog.New(slog.DiscardHandler)}), MoveOf(c.pm), RoleTarget)
		e := w.reread(t.Context(), true).event
		if e.Outcome != handoff.OK || !e.Confirmed || e.Unwanted != c.unwanted || e.Record != RecordOf(c.pm) {
			t.Errorf("%+v", e)
		}
	})
}
