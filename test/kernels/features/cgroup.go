package features

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func v2Root() (string, error) {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
			return root, nil
		}
	}
	return "", errors.New("cgroup v2 is mounted neither on /sys/fs/cgroup nor on /sys/fs/cgroup/unified")
}

func psi() (string, error) {
	_, err := os.ReadFile("/proc/pressure/cpu")
	return "", err
}

func psiOfGroup() (string, error) {
	root, err := v2Root()
	if err != nil {
		return "", err
	}
	return inScratch(root, func(dir string) (string, error) {
		_, err := os.ReadFile(filepath.Join(dir, "cpu.pressure"))
		return "", err
	})
}

// psiTrigger asks to be woken after so many microseconds of stall in a window: of any length
// with CAP_SYS_RESOURCE, else of whole averaging periods, since Linux 6.4
// (Documentation/accounting/psi.rst).
func psiTrigger() (string, error) {
	ask := func(trigger string) error {
		f, err := os.OpenFile("/proc/pressure/cpu", os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(trigger + "\x00")
		return errors.Join(err, f.Close())
	}
	if ask("some 150000 1000000") == nil {
		return "any window", nil
	}
	return "2 s windows", ask("some 150000 2000000")
}

// v1 looks for a controller's file in a group of its hierarchy, where that is mounted.
func v1(controller, file string) func() (string, error) {
	return func() (string, error) {
		return inScratch(filepath.Join("/sys/fs/cgroup", controller), func(dir string) (string, error) {
			_, err := os.Stat(filepath.Join(dir, file))
			return "", err
		})
	}
}

func v2Freezer() (string, error) {
	root, err := v2Root()
	if err != nil {
		return "", err
	}
	return inScratch(root, func(dir string) (string, error) {
		for _, state := range []string{"1", "0"} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte(state), 0o644); err != nil {
				return "", err
			}
			events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
			if err != nil || !slices.Contains(strings.Split(string(events), "\n"), "frozen "+state) {
				return "", fmt.Errorf("cgroup.freeze is %s, but cgroup.events %q (%v)", state, events, err)
			}
		}
		return "", nil
	})
}
