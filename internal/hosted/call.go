package hosted

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Call runs a short command in the node's mount namespace and returns all that it wrote. It
// ends with ctx, and with the agent. To be used where losing the command does no harm.
func Call(ctx context.Context, args ...string) (string, error) {
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine and takes the namespace along.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- result{nil, fmt.Errorf("unshare the file system attributes: %w", err)}
			return
		}
		if err := join("mnt", unix.CLONE_NEWNS); err != nil {
			done <- result{nil, err}
			return
		}
		program, err := find(args[0])
		if err != nil {
			done <- result{nil, err}
			return
		}
		cmd := exec.CommandContext(ctx, program, args[1:]...)
		cmd.Env = environment
		out, err := cmd.CombinedOutput()
		done <- result{out, err}
	}()
	r := <-done
	if r.err != nil {
		return string(r.out), fmt.Errorf("run %q on the node: %w", args, r.err)
	}
	return string(r.out), nil
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
