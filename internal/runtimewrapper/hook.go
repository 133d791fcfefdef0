package runtimewrapper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/passthrough"
)

// hook is CRIU's action script (criu(8), --action-script). CRIU calls it at every stage and
// waits. At post-dump and pre-resume of Drover's own images it asks the agent, for as long
// as it takes: nobody acts on a timeout. Its exit code counts at post-dump alone, where
// failure makes CRIU resume what it dumped; CRIU 4.2 resumes after a failed pre-resume all
// the same, so by then the agent has killed the copy.
func hook(l layout.Layout) int {
	stage := os.Getenv("CRTOOLS_SCRIPT_ACTION")
	if !passthrough.HookMatters(stage) {
		return 0
	}
	if err := dieWithCRIU(); err != nil {
		return failed(stage, err)
	}
	dir, own, err := images(l)
	switch {
	case err == nil && !own:
		// Decided here: the agent may be away, and another's dump never waits for it.
		return 0
	case stage == "network-lock":
		if err == nil {
			noteFrozen(dir)
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

// noteFrozen marks the moment at which the processes have been stopped. The mark is only
// for the figure that is shown, so nothing fails over it.
func noteFrozen(dir string) {
	_ = os.WriteFile(filepath.Join(filepath.Dir(filepath.Dir(dir)), layout.FrozenFile), nil, 0o600)
}
