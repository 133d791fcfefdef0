package checkpoint

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

// enter starts a program in a container that runs, as "kubectl exec" does; what it gives can
// only be read, and tells its pid.
func (c *container) enter(args ...string) *container {
	c.t.Helper()
	guest := &container{t: c.t, id: c.id + ", by exec,", bundle: filepath.Join(c.bundle, "exec"), lines: make(chan string, 10000)}
	run(c.t, "mkdir", guest.bundle)
	cmd := c.runtime(append([]string{"exec", "--env", "HEAP_MIB=1", "--pid-file", guest.bundle + "/init.pid", c.id}, args...)...)
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
			last, guest := c.next(), c.enter("/counter")
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

// TestEndOfALateThread: CRIU detaches from what exec brought in in the order in which it saw
// the threads stop. Of a process that was killed it waits for each, and for the first thread
// for ever if it still traces another one: End must not wait for that CRIU.
func TestEndOfALateThread(t *testing.T) {
	a := startAgent(t)
	c := newContainer(t, "src", nil, func(rootfs string, _ map[string]any) { run(t, "cp", "/drover/odd", rootfs+"/odd") })
	c.run()
	last, guest := c.next(), c.enter("/odd", "thread-vfork")
	select {
	case line := <-guest.lines:
		if line != "ready thread-vfork" {
			t.Fatal(line)
		}
	case <-time.After(patience):
		t.Fatal("what exec brought in says nothing")
	}
	until(t, "its pid, which runc writes when it runs", func() bool {
		_, err := os.Stat(guest.bundle + "/init.pid")
		return err == nil
	})
	// Outside of the group CRIU does not stop the child, so that the thread goes on waiting.
	var child process.Process
	until(t, "its child", func() bool {
		all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", guest.pid()))
		for _, path := range all {
			data, _ := os.ReadFile(path)
			if p, err := process.Of(atoi(strings.TrimSpace(string(data)))); err == nil {
				child = p
				return true
			}
		}
		return false
	})
	t.Cleanup(func() { child.Kill() })
	apart := c.group.String() + "-apart"
	run(t, "mkdir", apart)
	if err := os.WriteFile(apart+"/cgroup.procs", []byte(itoa(child.PID)), 0); err != nil {
		t.Fatal(err)
	}
	m := move(c, nil)
	dumped := make(chan error, 1)
	go func() {
		_, err := a.dumps.Dump(context.Background(), m)
		dumped <- err
	}()
	logs := filepath.Join(layout.Default.Dumps(), "*", "parts", "*", "work", "dump.log")
	until(t, "CRIU having seen the first thread stop", func() bool {
		found, _ := filepath.Glob(logs)
		for _, path := range found {
			if data, _ := os.ReadFile(path); strings.Contains(string(data), fmt.Sprintf("Unexpected process %d in the freezer cgroup", guest.pid())) {
				return true
			}
		}
		return false
	})
	if err := child.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-dumped; err != nil {
		t.Fatal(err)
	}
	ended(t, a, c, m, c.mustRest(last))
}

// until polls what nothing tells of.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("there is no sign of %s", what)
		}
	}
}
