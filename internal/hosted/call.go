package hosted

import (
	"context"
	"fmt"
	"os/exec"
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
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
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
