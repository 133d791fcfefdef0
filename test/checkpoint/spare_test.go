package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

// spares are the processes that have entered the node and run nothing yet.
func spares(t *testing.T) []process.Process {
	t.Helper()
	var all []process.Process
	for _, p := range find("drover-runc") {
		line, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID), "cmdline"))
		below, err := p.Below()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(line), hosted.Verb) && len(below) == 0 {
			all = append(all, p)
		}
	}
	return all
}

// spare waits for the one that is kept ready while a create waits.
func spare(t *testing.T) process.Process {
	t.Helper()
	until(t, "a process that is ready to load memory", func() bool { return len(spares(t)) > 0 })
	all := spares(t)
	if len(all) != 1 {
		t.Fatalf("%d processes are kept ready, want one", len(all))
	}
	return all[0]
}

// What loads a copy's memory is ready before the images are, and whatever becomes of it the copy is
// restored. Nothing of it is left when the create or the agent has gone.
func TestSpare(t *testing.T) {
	for name, killed := range map[string]bool{"used": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			lazily(t)
			t.Setenv("HEAP_MIB", "64")
			at := begin(t)
			ready := spare(t)
			if killed {
				if err := ready.Kill(); err != nil {
					t.Fatal(err)
				}
				until(t, "the end of the process that was ready", func() bool { return !ready.Alive() })
			}
			if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
				t.Fatal(err)
			}
			l := stopLoader(t, at.target)
			at.a.expect("held " + at.target.id)
			var keeper process.Process
			if _, err := layout.ReadNote(filepath.Join(layout.Default.Loader(at.target.id), "pid"), &keeper); err != nil {
				t.Fatal(err)
			}
			if (keeper == ready) == killed {
				t.Errorf("%+v looks after the daemon, %+v was ready", keeper, ready)
			}
			at.let(t)
			l.goOn(t)
			at.mustBeLoaded(t)
			if left := spares(t); len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
	for name, goes := range map[string]func(*testing.T, *attempt){
		"create-goes": func(t *testing.T, at *attempt) {
			if err := at.create.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-at.created
		},
		"agent-goes": func(t *testing.T, at *attempt) { at.a.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			lazily(t)
			at := begin(t)
			ready := spare(t)
			goes(t, at)
			until(t, "the end of the process that was ready", func() bool { return !ready.Alive() })
			if name == "agent-goes" {
				at.a = startAgent(t)
				at.a.expect("waits " + at.target.id)
				spare(t)
			}
			if err := at.a.copies.Refuse(within(t), at.m, at.target.id, "no more"); err != nil {
				t.Fatal(err)
			}
			until(t, "the end of all that was ready", func() bool { return len(spares(t)) == 0 })
			released(t, at.a, at.source, move(at.source, nil), at.last)
		})
	}
}
