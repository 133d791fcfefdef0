package hosted

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/thread"
)

// Call runs a short command in the node's mount namespace and returns all that it wrote. It
// ends with ctx, and with the agent. To be used where losing the command does no harm.
func Call(ctx context.Context, args ...string) (string, error) {
	var out []byte
	err := InMounts(func() error {
		program, err := find(args[0])
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, program, args[1:]...)
		cmd.Env = environment
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return string(out), fmt.Errorf("run %q on the node: %w", args, err)
	}
	return string(out), nil
}

// InMounts calls f in the node's mount namespace, and returns what f does. f must not start
// goroutines that look at files: they would see the caller's.
func InMounts(f func() error) error {
	return thread.Apart(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the file system attributes: %w", err)
		}
		if err := join("mnt", unix.CLONE_NEWNS); err != nil {
			return err
		}
		return f()
	})
}

// find looks for a program in the node's directories, from a thread in its mount namespace:
// the caller's PATH is its container's and says nothing here.
func find(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if unix.Access(file, unix.X_OK) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("no program %q in %s", name, path)
}
