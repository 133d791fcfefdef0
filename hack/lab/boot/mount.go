package boot

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// privateSysctls are sysctls of the whole machine that kubelet sets. Each node gets private files
// over them that hold what kubelet wants, so that it finds them right and the machine keeps its own.
var privateSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// makeRoot gives the calling process, alone in new mount and pid namespaces, the node's root.
func makeRoot(s *Spec) error {
	root := filepath.Join(s.Dir, "root")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := mountOverlay(s, root); err != nil {
		return err
	}
	if err := mountKernel(root); err != nil {
		return err
	}
	for path, host := range s.Binds {
		if err := bind(host, filepath.Join(root, path)); err != nil {
			return err
		}
	}
	for path, image := range s.Disks {
		if err := mountDisk(image, filepath.Join(root, path)); err != nil {
			return err
		}
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root to %s: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := hideMachine(); err != nil {
		return err
	}
	// As systemd leaves it: kubelet's volumes with mountPropagation need a shared root.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	if err := unix.Sethostname([]byte(s.Node)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	return nil
}

func mountOverlay(s *Spec, root string) error {
	upper, work := filepath.Join(s.Dir, "upper"), filepath.Join(s.Dir, "work")
	for _, d := range []string{root, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make root file system: %w", err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(s.Lower, ":"), upper, work)
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay (%s) on %s: %w", options, root, err)
	}
	return nil
}

// mountKernel mounts what the kernel shows as files, below the new root.
func mountKernel(root string) error {
	type mount struct {
		source, path, kind string
		flags              uintptr
		data               string
	}
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []mount{
		{"proc", "proc", "proc", safe, ""},
		{"sysfs", "sys", "sysfs", safe, ""},
		{"/sys/fs/cgroup", "sys/fs/cgroup", "", unix.MS_BIND | unix.MS_REC, ""},
		{"/dev", "dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"shm", "dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"run", "run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmp", "tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		if err := unix.Mount(m.source, filepath.Join(root, m.path), m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on /%s: %w", m.source, m.path, err)
		}
	}
	// Where the kernel has no bpf file system, programs that pin find out by themselves.
	_ = unix.Mount("bpf", filepath.Join(root, "sys/fs/bpf"), "bpf", safe, "mode=700")
	return nil
}

func bind(host, path string) error {
	for _, d := range []string{host, path} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("bind %s on %s: %w", host, path, err)
		}
	}
	if err := unix.Mount(host, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", host, path, err)
	}
	return nil
}

// hideMachine puts private files over what /proc shows and sets for the whole machine, and gives
// the node a boot ID of its own: a node that is started again has booted.
func hideMachine() error {
	const dir = "/run/drover-lab"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("hide the machine's settings: %w", err)
	}
	files := map[string]string{"kernel/random/boot_id": newUUID()}
	for name, value := range privateSysctls {
		files[name] = value
	}
	for name, value := range files {
		target := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(target); err != nil {
			continue // this kernel does not have it, kubelet cannot set it either
		}
		source := filepath.Join(dir, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(source, []byte(value+"\n"), 0o644); err != nil {
			return fmt.Errorf("hide %s: %w", target, err)
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", target, err)
		}
	}
	return nil
}

// newUUID is a random UUID, version 4 (RFC 9562).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
