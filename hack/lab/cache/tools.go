package cache

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// toolPackages are what boots kernels in virtual machines and unpacks them. The machine's own
// QEMU may be too old: 7.2 stumbled over code that changes itself in 2 runs of 3, 10.0 seldom.
var toolPackages = []string{"qemu-system-x86", "kmod", "xz-utils"}

// Tools are programs of Debian's that run where they lie in the cache, with their own libraries:
// nothing is installed on the machine.
type Tools struct{ dir string }

// toolsFormat changes when tools are unpacked differently.
const toolsFormat = "1"

// KernelTools makes sure that QEMU and what else kernels need is in the cache.
func KernelTools(ctx context.Context, report Report) (Tools, error) {
	if runtime.GOARCH != "amd64" {
		return Tools{}, fmt.Errorf("boot Debian's amd64 kernels: this machine is %s, and only amd64 is provided for", runtime.GOARCH)
	}
	e := entry{
		kind:  "tools",
		key:   release + "-" + digest(release, toolsFormat, strings.Join(toolPackages, ",")),
		about: "QEMU, about 1 min",
		build: func(ctx context.Context, dir string, report Report) error {
			work := filepath.Join(dir, "apt")
			apt, err := newApt(ctx, work, release)
			if err != nil {
				return err
			}
			debs, err := apt.fetch(ctx, toolPackages)
			if err != nil {
				return err
			}
			report("  unpacking %d packages", len(debs))
			for _, deb := range debs {
				if err := run(ctx, "dpkg-deb", "-x", deb, dir); err != nil {
					return err
				}
			}
			return os.RemoveAll(work)
		},
	}
	return Tools{e.path()}, e.have(ctx, report)
}

// Command is one of the programs, by its path in Debian.
func (t Tools) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	libraries := filepath.Join(t.dir, "usr/lib/x86_64-linux-gnu")
	loader := filepath.Join(t.dir, "usr/lib64/ld-linux-x86-64.so.2")
	cmd := exec.CommandContext(ctx, loader, append([]string{"--library-path", libraries, filepath.Join(t.dir, program)}, args...)...)
	cmd.Env = append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Join(libraries, "qemu"))
	return cmd
}

func (t Tools) run(ctx context.Context, program string, args ...string) error {
	if out, err := t.Command(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// QEMU is QEMU for machines like this one's architecture, amd64.
func (t Tools) QEMU(ctx context.Context, args ...string) *exec.Cmd {
	data := []string{"-L", filepath.Join(t.dir, "usr/share/qemu"), "-L", filepath.Join(t.dir, "usr/share/seabios")}
	return t.Command(ctx, "usr/bin/qemu-system-x86_64", append(data, args...)...)
}
