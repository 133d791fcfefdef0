// Package runtimewrapper is drover-runc: an OCI runtime that stands in front of runc, in
// the manner of nvidia-container-runtime. Almost every call becomes runc by exec. It takes
// part in these:
//
//   - create refuses a fenced pod, but for a process that does nothing and keeps the pod's
//     address; takes away org.criu annotations, and turns the create of a replacement's container
//     into the restore of its checkpoint, after the node's agent has said so; without that it
//     fails: a replacement is never created cold. Only when its checkpoint was restored before and
//     the container crashed later, it starts fresh;
//   - start says yes to a container that was restored and so runs already;
//   - kill and resume are refused as long as a move holds the container frozen;
//   - delete clears away what a failed restore may have left, then has runc delete; a container
//     that is held and deleted by force is ended first, without a moment in which it runs;
//   - as drover-criu-hook it is CRIU's action script, which holds a dump or a restore until
//     the move is decided.
package runtimewrapper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/passthrough"
)

// patience is how long a create may wait for its checkpoint, counted from its start. The
// kubelet gives up after 120 s and creates another container.
const patience = 100 * time.Second

// Wrapper is one run of drover-runc.
type Wrapper struct {
	layout layout.Layout
	// runc is the real runtime's path.
	runc string
	// exec replaces this process; it returns only if it fails.
	exec func(path string, argv []string) error
	// group finds a control group by an OCI bundle's linux.cgroupsPath.
	group func(path string) (cgroup.Group, error)
	// now is the clock; began when this run began.
	now   func() time.Time
	began time.Time
}

// Main runs drover-runc with the program's arguments and returns its exit code; most calls
// end in runc's process instead.
func Main(argv []string) int {
	if filepath.Base(argv[0]) == layout.Hook {
		return hook(layout.Default)
	}
	if len(argv) > 1 {
		switch argv[1] {
		case layout.Hook:
			return hook(layout.Default)
		case hosted.Verb:
			return hosted.Main(argv[2:])
		case lazypages.Verb:
			return lazypages.Main(argv[2:])
		case InstallVerb:
			return install(argv[2:])
		}
	}
	w := &Wrapper{layout: layout.Default, group: ownGroup, now: time.Now, began: time.Now(), exec: func(path string, argv []string) error {
		return syscall.Exec(path, argv, os.Environ())
	}}
	in := parse(argv[1:])
	err := w.run(in, argv[1:])
	var runc runcFailed
	switch {
	case err == nil:
		return 0
	case errors.As(err, &runc):
		return runc.code
	}
	in.report(os.Stderr, w.now(), err)
	return 1
}

func (w *Wrapper) run(in invocation, args []string) (err error) {
	if w.runc, err = findRunc(os.Getenv("DROVER_RUNC")); err != nil {
		return err
	}
	switch {
	case in.id == "":
		return w.passOn(args)
	case in.verb == "create":
		return w.create(in, args)
	case in.verb == "start":
		return w.start(in, args)
	}
	// What is left is kill, resume and delete.
	if err := w.guard(in); err != nil {
		return err
	}
	if in.verb == "delete" {
		return w.delete(in, args)
	}
	return w.passOn(args)
}

// passOn becomes runc.
func (w *Wrapper) passOn(args []string) error {
	if err := w.exec(w.runc, append([]string{w.runc}, args...)); err != nil {
		return fmt.Errorf("run %s: %w", w.runc, err)
	}
	return nil
}

// runcFailed is the end of a runc that has told its caller itself why.
type runcFailed struct{ code int }

func (f runcFailed) Error() string { return fmt.Sprintf("runc ended with code %d", f.code) }

// findRunc returns the real runtime. A path that leads back to this program is refused.
func findRunc(wanted string) (string, error) {
	candidates := passthrough.Runc
	if wanted != "" {
		candidates = []string{wanted}
	}
	self, _ := os.Stat("/proc/self/exe")
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && !os.SameFile(info, self) && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	if wanted != "" {
		return "", fmt.Errorf("DROVER_RUNC=%s is not a runtime that can be run", wanted)
	}
	if path, err := exec.LookPath("runc"); err == nil {
		if info, err := os.Stat(path); err == nil && !os.SameFile(info, self) {
			return path, nil
		}
	}
	return "", fmt.Errorf("no runc found in %v or PATH; set DROVER_RUNC to its path", candidates)
}
