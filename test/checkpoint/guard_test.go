package checkpoint

import (
	"slices"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
)

// TestNobodyTouchesWhatIsHeld: kubelet kills a container that does not answer its liveness
// probe, and one that is held cannot. Neither may it run nor die of that.
func TestNobodyTouchesWhatIsHeld(t *testing.T) {
	a, c, m, _, last := dumped(t)
	f := fence.Fence{PodUID: c.podUID, Epoch: uint64(m.Epoch), Migration: "default/" + m.Name}
	if err := layout.Default.Fences().Write(f); err != nil {
		t.Fatal(err)
	}
	c.refuses(t, "moves its pod away")
	last = c.mustRest(last)
	if n := c.alive(); n == 0 {
		t.Fatal("the container was ended")
	}
	// These are runc's to answer: neither ends the hold.
	for _, call := range [][]string{{"update", "--cpu-share", "512", c.id}, {"pause", c.id}} {
		out, err := c.runtime(call...).CombinedOutput()
		t.Logf("%q: %v: %s", call, err, out)
		last = c.mustRest(last)
	}
	// A probe's command is refused by runc itself, which kubelet takes for no answer.
	out, err := c.runtime("exec", c.id, "/counter").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "paused") {
		t.Errorf("exec in a held container: %v: %s", err, out)
	}
	if err := layout.Default.Fences().Lift(c.podUID, uint64(m.Epoch)); err != nil {
		t.Fatal(err)
	}
	released(t, a, c, m, last)
	if out, err := c.runtime("kill", c.id, "KILL").CombinedOutput(); err != nil {
		t.Errorf("kill after the release: %v: %s", err, out)
	}
	a.expect("died " + c.id)
}

// refuses: none of the calls gets through that would let a held container run or die.
func (c *container) refuses(t *testing.T, why string) {
	t.Helper()
	for _, call := range [][]string{{"kill", c.id, "TERM"}, {"kill", c.id, "KILL"}, {"kill", "--all", c.id, "9"}, {"resume", c.id}} {
		if out, err := c.runtime(call...).CombinedOutput(); err == nil || !strings.Contains(string(out), why) {
			t.Errorf("%q: %v: %s; want a refusal that says %q", call, err, out, why)
		}
	}
}

// TestNobodyTouchesACopy: the same before a copy is let run. It runs afterwards.
func TestNobodyTouchesACopy(t *testing.T) {
	at := restored(t)
	at.target.refuses(t, "not let run yet")
	at.mustBeHeld(t)
	at.resume(t)
	if out, err := at.target.runtime("kill", at.target.id, "KILL").CombinedOutput(); err != nil {
		t.Errorf("kill of a copy that runs: %v: %s", err, out)
	}
	at.a.expect("died " + at.target.id)
}

// TestDeleteByForce: a runtime that has lost a held container deletes it by force. It dies
// where it stands.
func TestDeleteByForce(t *testing.T) {
	a, c, m, _, last := dumped(t)
	if err := layout.Default.Fences().Write(fence.Fence{PodUID: c.podUID, Epoch: uint64(m.Epoch), Migration: "default/" + m.Name}); err != nil {
		t.Fatal(err)
	}
	defer layout.Default.Fences().Lift(c.podUID, uint64(m.Epoch))
	out, err := c.runtime("delete", "--force", c.id).CombinedOutput()
	t.Logf("delete --force: %v: %s", err, out)
	if n := c.alive(); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	if now := c.drain(last); now != last {
		t.Errorf("the counter ran before its end: %d, then %d", last.n, now.n)
	}
	ended(t, a, c, m, last)
}

// TestEndOfAnOrphan: an agent that comes back to a source whose pod and record are gone ends it
// where it stands, with its dump, CRIU and all; and then kubelet gets at what is left, which it
// did not before.
func TestEndOfAnOrphan(t *testing.T) {
	a, c, m, _, last := dumped(t)
	if err := layout.Default.Fences().Write(fence.Fence{PodUID: c.podUID, Epoch: uint64(m.Epoch), Migration: "default/" + m.Name}); err != nil {
		t.Fatal(err)
	}
	defer layout.Default.Fences().Lift(c.podUID, uint64(m.Epoch))
	a = a.restart()
	c.refuses(t, "moves its pod away")
	if held, err := a.dumps.Pods(); err != nil || !slices.Contains(held, c.podUID) {
		t.Fatalf("held: %v, %v", held, err)
	}
	if err := a.dumps.EndPod(within(t), c.podUID); err != nil {
		t.Fatal(err)
	}
	if held, err := a.dumps.Pods(); err != nil || len(held) != 0 {
		t.Errorf("still held: %v, %v", held, err)
	}
	ended(t, a, c, m, last)
	if out, err := c.runtime("delete", c.id).CombinedOutput(); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
}
