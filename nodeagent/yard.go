package nodeagent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/hosted"
)

// yard begins the names of the directories in which CRIU puts a container's mounts together
// (criu/mount.c, mnt_roots). It removes them itself, unless it is killed.
const yard = "/tmp/.criu.mntns."

// forgetYards unmounts what CRIUs that were killed have left in the node's mount namespace.
// No CRIU has a hand in a yard that was there before nobody ran.
func (a *agent) forgetYards() error {
	f, err := os.Open("/proc/1/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	left, err := yards(f)
	if err != nil || len(left) == 0 {
		return err
	}
	if runs, err := criuRuns("/proc"); runs || err != nil {
		return err
	}
	return hosted.InMounts(func() error {
		var errs []error
		for _, dir := range left {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s, which a CRIU that was killed has left: %w", dir, err))
				continue
			}
			errs = append(errs, os.Remove(dir))
		}
		return errors.Join(errs...)
	})
}

// yards lists the yards among the mounts (proc(5), mountinfo).
func yards(mountinfo io.Reader) ([]string, error) {
	var found []string
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) > 4 && strings.HasPrefix(f[4], yard) && !strings.Contains(strings.TrimPrefix(f[4], yard), "/") {
			found = append(found, f[4])
		}
	}
	return found, lines.Err()
}

// criuRuns tells whether any CRIU runs on the node, whoever started it.
func criuRuns(proc string) (bool, error) {
	names, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "comm"))
	if err != nil {
		return true, err
	}
	for _, f := range names {
		name, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return true, fmt.Errorf("look for a CRIU that runs: %w", err)
		}
		if strings.TrimSpace(string(name)) == "criu" {
			return true, nil
		}
	}
	return false, nil
}
