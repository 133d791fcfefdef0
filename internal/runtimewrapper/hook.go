package runtimewrapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/passthrough"
	"github.com/drover-project/drover/internal/process"
)

// preDump is the stage before CRIU looks at a container.
const preDump = "pre-dump"

// hook is CRIU's action script (criu(8), --action-script). CRIU calls it at every stage and
// waits. At pre-dump of Drover's own images it stops the container. At post-dump and pre-resume
// it asks the agent, for as long as it takes: nobody acts on a timeout. Its exit code counts at
// the first two: failure at pre-dump ends the dump, at post-dump CRIU resumes what it dumped.
// CRIU 4.2 resumes after a failed pre-resume all the same, so by then the agent has killed the
// copy.
func hook(l layout.Layout) int {
	stage := os.Getenv("CRTOOLS_SCRIPT_ACTION")
	if !passthrough.HookMatters(stage) {
		return 0
	}
	if err := dieWithCRIU(); err != nil {
		return failed(stage, err)
	}
	if stage == preDump {
		if err := mustBeWhole(l); err != nil {
			return failed(stage, err)
		}
	}
	dir, own, err := images(l)
	switch {
	case err == nil && !own:
		// Decided here: the agent may be away, and another's dump never waits for it.
		return 0
	case stage == preDump:
		if err == nil {
			err = freeze(dir)
		}
		if err != nil {
			return failed(stage, err)
		}
		return 0
	case err != nil && stage == "post-dump":
		return failed(stage, err)
	}
	// At pre-resume also images that cannot be told are held: whoever returns lets the copy run.
	proceed, err := hold(l, stage, dir)
	if err != nil {
		return failed(stage, err)
	}
	if !proceed {
		return 1
	}
	return 0
}

// dieWithCRIU ties this process to CRIU, its parent: by the call's end the agent learns that
// CRIU has ended. What is held is held by the freezer all the same.
func dieWithCRIU() error {
	runtime.LockOSThread() // the signal is bound to the thread that asks for it
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask to die with CRIU: %w", err)
	}
	return nil
}

func failed(stage string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %s: %v\n", layout.Hook, stage, err)
	return 1
}

// images gives the directory of the images, and whether it is Drover's.
func images(l layout.Layout) (dir string, own bool, err error) {
	if dir, err = imageDir(); err != nil {
		return "", false, err
	}
	own, err = l.OwnImages(dir)
	return dir, own, err
}

// mustBeWhole refuses anybody's dump of a copy of which memory is still to be loaded, which CRIU would
// take for empty, and one that would leave memory to a page server. When this stage fails CRIU has not
// touched the processes.
func mustBeWhole(l layout.Layout) error {
	pid, err := strconv.Atoi(os.Getenv("CRTOOLS_INIT_PID"))
	if err != nil {
		return nil // no copy is known by it; the agent's own dumps wait before
	}
	loading, err := l.Loading(pid)
	if err == nil && loading {
		err = errors.New("the memory that the container was moved with is still being loaded; try again when that is done")
	}
	if err != nil {
		return err
	}
	lazily, err := l.DumpsLazily(pid)
	if err == nil && lazily {
		err = fmt.Errorf("CRIU's options for the container still have %s of its restore; remove that line from the file in %s", layout.Lazily, filepath.Dir(l.CriuConfig("")))
	}
	return err
}

func hold(l layout.Layout, stage, dir string) (bool, error) {
	pid, err := strconv.Atoi(os.Getenv("CRTOOLS_INIT_PID"))
	if err != nil {
		return false, fmt.Errorf("CRTOOLS_INIT_PID: %w", err)
	}
	a, err := dial(l.Socket())
	if err != nil {
		return false, err
	}
	var proceed bool
	err = a.again(context.Background(), func(ctx context.Context) error {
		answer, err := a.client.Hold(ctx, &agentv1.HoldRequest{ImageDir: dir, Stage: stage, InitPid: int32(pid)})
		proceed = answer.GetProceed()
		return err
	})
	return proceed, err
}

// imageDir resolves the directory of the images: runc hands it to CRIU as a descriptor, so
// CRIU names it as /proc/PID/fd/N.
func imageDir() (string, error) {
	dir, err := filepath.EvalSymlinks(os.Getenv("CRTOOLS_IMAGE_DIR"))
	if err != nil {
		return "", fmt.Errorf("CRTOOLS_IMAGE_DIR: %w", err)
	}
	return filepath.Abs(dir)
}

// stillness is how long a container's processes may take to stop. CRIU gives them as long.
const stillness = 10 * time.Second

// freeze stops the container whose images will be in dir, and marks that moment. CRIU would stop
// it a moment later, but looks only every 100 ms whether all of its processes have.
func freeze(dir string) error {
	var n struct {
		Init        process.Process `json:"init"`
		CgroupsPath string          `json:"cgroupsPath"`
	}
	if ok, err := layout.ReadNote(layout.PartNote(dir), &n); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("%s: what is dumped is not known; was it undone?", layout.PartNote(dir)))
	}
	groups, err := cgroup.Own()
	if err != nil {
		return err
	}
	group, err := groups.Container(n.Init.PID, n.CgroupsPath)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stillness)
	defer cancel()
	if err := group.Freeze(ctx); err != nil {
		return err
	}
	// The mark is only for the figure that is shown, so nothing fails over it.
	_ = os.WriteFile(filepath.Join(filepath.Dir(filepath.Dir(dir)), layout.FrozenFile), nil, 0o600)
	return nil
}
