package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

// begun waits for the runc that has begun to restore a container whose images are still to come, and
// stands where it reads the first of them.
func begun(t *testing.T, c *container) process.Process {
	t.Helper()
	var found process.Process
	mounted := filepath.Join(runcRoot, c.id, "criu-root")
	until(t, "a restore that waits for its images", func() bool {
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		for _, p := range find("runc") {
			line, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID), "cmdline"))
			if strings.Contains(string(line), "restore\x00") && strings.HasSuffix(string(line), c.id+"\x00") && strings.Contains(string(mounts), mounted) {
				found = p
			}
		}
		return found.PID != 0
	})
	return found
}

// nothingBegun fails if anything of a restore is left that was begun without images.
func nothingBegun(t *testing.T, c *container) {
	t.Helper()
	for _, left := range []string{layout.Default.Staged(c.id), layout.Default.Work(c.id), filepath.Join(runcRoot, c.id)} {
		if _, err := os.Lstat(left); !os.IsNotExist(err) {
			t.Errorf("%s is left (%v)", left, err)
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), c.id+"/criu-root") {
		t.Errorf("a mount of runc's is left, or that is not known (%v)", err)
	}
}

// A restore that was begun goes on when the images are there. Whatever has become of it by then, the
// copy is restored.
func TestBegunBeforeTheImages(t *testing.T) {
	for name, before := range map[string]func(*testing.T, *attempt){
		"goes-on": func(*testing.T, *attempt) {},
		"killed": func(t *testing.T, at *attempt) {
			early := begun(t, at.target)
			if err := early.Kill(); err != nil {
				t.Fatal(err)
			}
			until(t, "its end", func() bool { return !early.Alive() })
		},
		"agent-returns": func(t *testing.T, at *attempt) {
			at.a = at.a.restart()
			at.a.expect("waits " + at.target.id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			at := begin(t)
			early := begun(t, at.target)
			before(t, at)
			if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
				t.Fatal(err)
			}
			at.a.expect("held " + at.target.id)
			at.mustBeHeld(t)
			if early.Alive() != (name != "killed") {
				t.Errorf("the runc that had begun lives: %v", early.Alive())
			}
			at.resume(t)
			if _, err := os.Lstat(layout.Default.Staged(at.target.id)); !os.IsNotExist(err) {
				t.Errorf("the images have their second names still (%v)", err)
			}
		})
	}
}

// Where no directory is prepared for it nothing is begun before the images are there.
func TestNothingIsBegunWithoutAPlace(t *testing.T) {
	a, source, m, d, last := dumped(t)
	if err := os.RemoveAll(layout.Default.Staged("")); err != nil {
		t.Fatal(err)
	}
	target := newContainer(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	at := &attempt{a: a, source: source, target: target, m: move(source, target), last: last, frozenAt: d.FrozenAt, images: d.Dir}
	at.wait(t)
	if err := a.copies.Restore(within(t), at.m, target.id, d.Dir); err != nil {
		t.Fatal(err)
	}
	a.expect("held " + target.id)
	at.resume(t)
}

// A create that is refused leaves nothing of what was begun, and one that was killed nothing that its
// delete does not remove. The container can be created anew.
func TestBegunInVain(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *attempt){
		"refused": func(t *testing.T, at *attempt) {
			if err := at.a.copies.Refuse(within(t), at.m, at.target.id, "no more"); err != nil {
				t.Fatal(err)
			}
			<-at.created
		},
		"killed": func(t *testing.T, at *attempt) {
			early := begun(t, at.target)
			if err := at.create.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-at.created
			until(t, "the end of the runc that had begun", func() bool { return !early.Alive() })
			if out, err := at.target.runtime("delete", "--force", at.target.id).CombinedOutput(); err != nil {
				t.Fatalf("delete: %v: %s", err, out)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			at := begin(t)
			begun(t, at.target)
			end(t, at)
			nothingBegun(t, at.target)
			at.a.expect("ended " + at.target.id)
			at.target.lines = make(chan string, 10000)
			at.wait(t)
			begun(t, at.target)
			if err := at.a.copies.Fresh(within(t), at.m, at.target.id); err != nil {
				t.Fatal(err)
			}
			if err := <-at.created; err != nil {
				t.Fatalf("create: %v: %s", err, at.target.log())
			}
			at.target.start()
			if first := at.target.next(); first.n != 0 {
				t.Errorf("it went on with %d", first.n)
			}
			released(t, at.a, at.source, move(at.source, nil), at.last)
		})
	}
}
