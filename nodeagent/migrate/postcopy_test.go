package migrate

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-project/drover/internal/handoff"
)

// loadedLate is a good move by post-copy.
var loadedLate = handoff.Record{Epoch: 2, Decision: handoff.Committed, PostCopy: true,
	Source: handoff.SourceRecord{Offered: true, Ended: true}, Target: handoff.TargetRecord{Waiting: true, Starting: true, Resumed: true, Loaded: true}}

// byPostCopy has the move be one whose copy, on node b, lacks memory; come has it come.
func byPostCopy(c *cluster) (come func()) {
	b := c.nodes["b"]
	c.pm.Spec.PostCopy = true
	loading := make(chan struct{})
	b.loading = loading
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		close(loading)
		b.loading = nil
	}
}

// mustLoad fails unless the copy runs, lacks memory, and the source is held for it.
func (c *cluster) mustLoad() {
	synctest.Wait()
	a := c.nodes["a"]
	a.mu.Lock()
	held := a.source.Alive && a.source.Frozen
	a.mu.Unlock()
	if r := c.record(); !r.Target.Resumed || !r.Needed() || r.Source.Ended || !held {
		c.t.Errorf("the record is %+v, the source held: %t; want a copy that runs, and that it is held for", r, held)
	}
	if n := a.driver.held(); n != 0 {
		c.t.Errorf("%g pods are said to stand still", n)
	}
	if c.nodes["b"].arrivals[targetPod] {
		c.t.Error("the pod has arrived before all of its memory has")
	}
}

// TestPostCopy: the source is held until the copy, which runs, has all of its memory, whichever agent is
// started anew meanwhile.
func TestPostCopy(t *testing.T) {
	for _, restarted := range []string{"", "a", "b"} {
		t.Run("restarted-"+restarted, func(t *testing.T) {
			var come func()
			run(t, func(c *cluster) { come = byPostCopy(c) }, func(c *cluster) {
				time.Sleep(time.Minute)
				c.mustLoad()
				if restarted != "" {
					c.nodes[restarted].stop()
					c.nodes[restarted].start()
					time.Sleep(time.Minute)
					c.mustLoad()
				}
				come()
			}, loadedLate, func(t *testing.T, c *cluster) {
				if !c.nodes["b"].arrivals[targetPod] {
					t.Error("the pod has not arrived")
				}
			})
		})
	}
}

// whileLoading is a move by post-copy whose copy runs, and has yet to load its memory.
func whileLoading(t *testing.T) (c *cluster, a, b *node) {
	c = newCluster(t)
	byPostCopy(c)
	a, b = c.nodes["a"], c.nodes["b"]
	a.start()
	b.start()
	b.create("c1")
	time.Sleep(time.Minute) // the bubble's time
	c.mustLoad()
	return c, a, b
}

// TestPostCopySourceDies: what the copy lacks is lost with the source's processes, and so it is killed. Its
// container is made anew as after any crash.
func TestPostCopySourceDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a, b := whileLoading(t)
		a.mu.Lock()
		a.source.Alive, a.source.Frozen = false, false
		a.mu.Unlock()
		a.driver.ContainerEnded("c-source")
		time.Sleep(time.Minute)
		synctest.Wait()
		r := c.record()
		if !r.Source.Forfeited || !r.Target.Loaded || !r.Source.Ended {
			t.Errorf("the record is %+v", r)
		}
		if b.copy.Alive || !slices.Contains(c.calls, "b drop") {
			t.Errorf("the copy lives without its memory: %+v, %q", b.copy, c.calls)
		}
		b.create("c2")
		synctest.Wait()
		if b.answers["c2"] != "fresh" && !b.arrivals[targetPod] {
			t.Errorf("the container is not made anew: %q", b.answers)
		}
		a.stop()
		b.stop()
	})
}

// TestPostCopyTargetBoots: a target that was booted asks for nothing any more, and the source says so.
func TestPostCopyTargetBoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a, b := whileLoading(t)
		b.stop()
		b.mu.Lock()
		b.driver, b.copy, b.begun = nil, Copy{}, false
		b.mu.Unlock()
		time.Sleep(time.Minute)
		c.mustLoad() // nobody acts on silence
		c.mu.Lock()
		c.boot["b"] = "boot-b2"
		c.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if r := c.record(); !r.Target.Loaded || !r.Source.Ended || r.Returned {
			t.Errorf("the record is %+v", r)
		}
		a.stop()
	})
}
