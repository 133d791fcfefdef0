package migrate

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// takeBack is a user's word that the target is off, as "kubectl drover resolve --return"
// writes it.
func (c *cluster) takeBack() {
	c.mu.Lock()
	c.count++
	c.pm = c.pm.DeepCopy()
	c.pm.ResourceVersion = fmt.Sprint(c.count)
	c.pm.Status.Returned, c.pm.Status.Epoch = true, c.pm.Status.Epoch+1
	c.pm.Status.ReturnProof = "user jane says that node b is powered off"
	c.mu.Unlock()
	c.show()
}

// TestUsersWord: committed, and the target is not heard any more; nothing proves that it is
// dead, but a user says so. The source goes on. A target that was merely cut off, and had not
// let its copy run, kills it when it hears of that.
func TestUsersWord(t *testing.T) {
	for name, alive := range map[string]bool{"the target is off": false, "the target was cut off": true} {
		t.Run(name, func(t *testing.T) {
			want := returned
			want.Target.Starting, want.Target.Failed, want.Target.Cleaned = false, false, alive
			run(t, func(c *cluster) {
				c.at = func(verb string) {
					if verb == "commit" {
						c.at = nil
						c.nodes["b"].cut()
					}
				}
			}, func(c *cluster) {
				time.Sleep(time.Minute)
				synctest.Wait()
				if a := c.nodes["a"]; !a.source.Frozen || c.record().Returned {
					t.Error("the source did not wait for a proof or a word")
				}
				if !alive {
					c.nodes["b"].mu.Lock()
					c.nodes["b"].copy = Copy{}
					c.nodes["b"].mu.Unlock()
				}
				c.takeBack()
				time.Sleep(time.Minute)
				synctest.Wait()
				if a := c.nodes["a"]; a.source.Frozen || len(a.fences) != 0 {
					t.Error("the source does not go on after the user's word")
				}
				if alive {
					c.nodes["b"].start()
				}
			}, want, nil)
		})
	}
}
