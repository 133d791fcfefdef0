package checkpoint

import (
	"bufio"
	"testing"
)

// enter starts a counter in a container that runs, as "kubectl exec" does; what it gives can
// only be read.
func (c *container) enter() *container {
	c.t.Helper()
	guest := &container{t: c.t, id: c.id + ", by exec,", lines: make(chan string, 10000)}
	cmd := c.runtime("exec", "--env", "HEAP_MIB=1", c.id, "/counter")
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			guest.lines <- s.Text()
		}
		close(guest.lines)
		cmd.Wait()
	}()
	return guest
}

// TestWhatExecBroughtIn: a process that was started in the container by exec is none of its
// first process's children, so it does not move; but it is held with the others, goes on with
// them and ends with them.
func TestWhatExecBroughtIn(t *testing.T) {
	for name, release := range map[string]bool{"release": true, "end": false} {
		t.Run(name, func(t *testing.T) {
			a := startAgent(t)
			c := newContainer(t, "src", nil)
			c.run()
			last, guest := c.next(), c.enter()
			its := guest.next()
			m := move(c, nil)
			if _, err := a.dumps.Dump(within(t), m); err != nil {
				t.Fatal(err)
			}
			last, its = c.mustRest(last), guest.mustRest(its)
			if !release {
				ended(t, a, c, m, last)
				if now := guest.drain(its); now != its {
					t.Errorf("what exec brought in ran before its end: %d, then %d", its.n, now.n)
				}
				return
			}
			released(t, a, c, m, last)
			if now := guest.next(); now.n != its.n+1 {
				t.Errorf("what exec brought in went on with %d after %d", now.n, its.n)
			}
		})
	}
}
