package runtimewrapper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/passthrough"
)

// hook is CRIU's action script (criu(8), --action-script). CRIU calls it at every stage and
// waits. At post-dump and pre-resume it asks the agent, for as long as it takes: nobody acts
// on a timeout. Its exit code counts at post-dump alone, where failure makes CRIU resume
// what it dumped; CRIU 4.2 resumes after a failed pre-resume all the same, so by then
// the agent has killed the copy.
func hook(l layout.Layout) int {
	stage := os.Getenv("CRTOOLS_SCRIPT_ACTION")
	if !passthrough.HookMatters(stage) {
		return 0
	}
	if stage == "network-lock" {
		noteFrozen()
		return 0
	}
	proceed, err := hold(l, stage)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s: %v\n", layout.Hook, stage, err)
		return 1
	}
	if !proceed {
		return 1
	}
	return 0
}

func hold(l layout.Layout, stage string) (bool, error) {
	dir, err := imageDir()
	if err != nil {
		return false, err
	}
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
func noteFrozen() {
	if dir, err := imageDir(); err == nil {
		_ = os.WriteFile(filepath.Join(filepath.Dir(dir), layout.FrozenFile), nil, 0o600)
	}
}
