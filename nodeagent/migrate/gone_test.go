package migrate

import (
	"testing"
	"testing/synctest"
	"time"
)

// Once its record is gone nobody works on a move any more, and what is held stays held: told by
// the watch, or found by an agent that heard of the record before it went.
func TestRecordGone(t *testing.T) {
	for name, told := range map[string]bool{"told by the watch": true, "found at the start": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				a := c.nodes["a"]
				c.pm.Status.Target.Waiting, c.pm.Status.Source.Offered = true, true
				a.source.Frozen, c.gone = true, !told
				a.start()
				synctest.Wait()
				if workers := len(a.driver.workers); told != (workers == 1) {
					t.Fatalf("%d workers at the start", workers)
				}
				if told {
					c.mu.Lock()
					c.gone = true
					c.mu.Unlock()
					a.driver.RecordGone("another")
					a.driver.RecordGone(string(c.pm.UID))
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if n := len(a.driver.workers); n != 0 || a.driver.held() != 0 {
					t.Errorf("%d workers, %v held", n, a.driver.held())
				}
				if !a.source.Alive || !a.source.Frozen {
					t.Errorf("the source was touched: %+v", a.source)
				}
				a.stop()
			})
		})
	}
}

// What is under way ends with the record: a dump whose memory is still read ahead would freeze the
// pod for nobody, and images would be sent for as long as the agent lives.
func TestRecordGoneMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		a := c.nodes["a"]
		c.pm.Status.Target.Waiting = true
		a.blockDump = true
		a.start()
		synctest.Wait()
		ended := func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.dumpCut
		}
		if ended() || len(a.driver.workers) != 1 {
			t.Fatalf("%d workers at the start", len(a.driver.workers))
		}
		c.mu.Lock()
		c.gone = true
		c.mu.Unlock()
		a.driver.RecordGone(string(c.pm.UID))
		synctest.Wait()
		if !ended() {
			t.Error("the dump goes on")
		}
		a.stop()
	})
}
