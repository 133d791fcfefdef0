package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mount mounts on a directory, which it makes if it is missing.
func mount(source, target, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

// loadModules loads what the disks need, in the order of the files' names.
func loadModules(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ko")) // sorted
	if err != nil {
		return err
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", file, err)
		}
	}
	return nil
}

// enterRoot makes the root disk the root of everything, the kernel's calls of modprobe too.
func enterRoot() error {
	const root = "/newroot"
	if err := errors.Join(
		mount("devtmpfs", "/dev", "devtmpfs", 0, ""),
		loadModules("/modules"),
	); err != nil {
		return err
	}
	if err := errors.Join(
		mount(rootDisk, root, "ext4", 0, ""),
		mount(planDisk, root+"/plan", "ext4", 0, ""),
		mount("/dev", root+"/dev", "", unix.MS_MOVE, ""),
		mount("proc", root+"/proc", "proc", 0, ""),
		mount("sysfs", root+"/sys", "sysfs", 0, ""),
	); err != nil {
		return err
	}
	if err := errors.Join(os.Chdir(root), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/")); err != nil {
		return fmt.Errorf("make %s the root: %w", rootDisk, err)
	}
	return errors.Join(
		mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"),
		mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777"),
		mount("devpts", "/dev/pts", "devpts", 0, "ptmxmode=666"),
		mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, ""),
		mount("bpf", "/sys/fs/bpf", "bpf", 0, ""),
	)
}

// settle does what else a node's start does: modules are found, lo is up.
func settle(release string) error {
	if err := mount("/plan/modules", "/usr/lib/modules/"+release, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"modprobe", "tun"}, // all others are loaded when they are asked for
		{"ip", "link", "set", "lo", "up"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

const cgroups = "/sys/fs/cgroup"

// together are v1 controllers that systemd mounts as one, and links under each name.
var together = map[string]string{"cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct",
	"net_cls": "net_cls,net_prio", "net_prio": "net_cls,net_prio"}

// mountCgroups mounts them as systemd does, and moves this process out of the root group.
func mountCgroups(layout Layout) error {
	if layout == V2 {
		if err := mount("cgroup2", cgroups, "cgroup2", 0, ""); err != nil {
			return err
		}
		if err := settleIn(cgroups); err != nil {
			return err
		}
		available, err := os.ReadFile(cgroups + "/cgroup.controllers")
		if err != nil {
			return err
		}
		for _, c := range strings.Fields(string(available)) {
			if err := os.WriteFile(cgroups+"/cgroup.subtree_control", []byte("+"+c), 0); err != nil {
				return fmt.Errorf("enable the controller %s: %w", c, err)
			}
		}
		return nil
	}
	if err := mount("tmpfs", cgroups, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	known, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(known)) {
		name, _, _ := strings.Cut(line, "\t")
		if strings.HasPrefix(line, "#") || !strings.HasSuffix(line, "\t1\n") {
			continue
		}
		if err := mountV1(name); err != nil {
			return err
		}
	}
	if err := mount("cgroup2", cgroups+"/unified", "cgroup2", 0, ""); err != nil {
		return err
	}
	return errors.Join(mount("cgroup", cgroups+"/systemd", "cgroup", 0, "none,name=systemd"), settleIn(cgroups+"/unified"))
}

func mountV1(controller string) error {
	options := controller
	if all, ok := together[controller]; ok {
		options = all
		if err := os.Symlink(all, filepath.Join(cgroups, controller)); err != nil {
			return err
		}
	}
	dir := filepath.Join(cgroups, options)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return mount("cgroup", dir, "cgroup", 0, options)
}

func settleIn(root string) error {
	own := root + "/init.scope"
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	return os.WriteFile(own+"/cgroup.procs", []byte("1"), 0)
}
