package cache

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	// kernelFormat changes when an entry is made differently from the same package.
	kernelFormat = "1"
	// kernelPackage is what Debian calls its newest kernel for virtual machines; it depends on
	// the kernel's own package, which has the version in its name.
	kernelPackage = "linux-image-cloud-amd64"
)

// Kernel is one of Debian's own kernels, unpacked.
type Kernel struct {
	Release string // as uname -r tells it
	Image   string // the file to boot
	Modules string // the directory to be mounted on /lib/modules/Release; nothing is compressed
}

// DebianKernel makes sure that the kernel of a release of Debian ("bookworm": 6.1, "trixie":
// 6.12) is in the cache.
func (t Tools) DebianKernel(ctx context.Context, release string, report Report) (Kernel, error) {
	e := entry{
		kind:  "kernel-" + release,
		key:   digest(release, kernelFormat, kernelPackage),
		about: "some seconds",
		build: func(ctx context.Context, dir string, report Report) error {
			return t.buildKernel(ctx, dir, release, report)
		},
	}
	if err := e.have(ctx, report); err != nil {
		return Kernel{}, err
	}
	found, err := filepath.Glob(filepath.Join(e.path(), "modules", "*"))
	if err != nil || len(found) != 1 {
		return Kernel{}, fmt.Errorf("find the kernel in %s: want modules of one, have %q: remove the directory to have it built again", e.path(), found)
	}
	name := filepath.Base(found[0])
	return Kernel{Release: name, Image: filepath.Join(e.path(), "vmlinuz"), Modules: found[0]}, nil
}

func (t Tools) buildKernel(ctx context.Context, dir, release string, report Report) error {
	work := filepath.Join(dir, "apt")
	apt, err := newApt(ctx, work, release)
	if err != nil {
		return err
	}
	deb, err := apt.fetchKernel(ctx)
	if err != nil {
		return err
	}
	report("  unpacking %s", filepath.Base(deb))
	root := filepath.Join(work, "root")
	if err := run(ctx, "dpkg-deb", "-x", deb, root); err != nil {
		return err
	}
	images, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if len(images) != 1 {
		return fmt.Errorf("%s: want one boot/vmlinuz-*, have %q", filepath.Base(deb), images)
	}
	name := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	modules := filepath.Join(root, "usr/lib/modules", name)
	if _, err := os.Stat(modules); err != nil { // before trixie
		modules = filepath.Join(root, "lib/modules", name)
	}
	// depmod wants them under lib/modules.
	base := filepath.Join(work, "depmod")
	there := filepath.Join(base, "lib/modules", name)
	if err := os.MkdirAll(filepath.Dir(there), 0o755); err != nil {
		return err
	}
	if err := os.Rename(modules, there); err != nil {
		return err
	}
	if err := t.decompress(ctx, there); err != nil {
		return err
	}
	if err := t.run(ctx, "usr/sbin/depmod", "-b", base, name); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(base, "lib/modules"), filepath.Join(dir, "modules")); err != nil {
		return err
	}
	if err := os.Rename(images[0], filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	return os.RemoveAll(work)
}

// decompress leaves no module compressed: that is faster where the processor is emulated.
func (t Tools) decompress(ctx context.Context, modules string) error {
	var packed []string
	err := filepath.WalkDir(modules, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko.xz") {
			packed = append(packed, path)
		}
		return err
	})
	if err != nil || len(packed) == 0 {
		return err
	}
	return t.run(ctx, "usr/bin/xz", append([]string{"-d"}, packed...)...)
}

// fetchKernel downloads the package that kernelPackage depends on, without what it depends on
// itself: tools to make it boot from a disk.
func (a apt) fetchKernel(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", a.args("depends", "--important", kernelPackage)...).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache depends %s: %w", kernelPackage, err)
	}
	_, name, _ := strings.Cut(string(out), "Depends: ")
	name, _, _ = strings.Cut(name, "\n")
	if !strings.HasPrefix(name, "linux-image-") {
		return "", fmt.Errorf("%s depends on %q: want linux-image-VERSION", kernelPackage, name)
	}
	cmd := exec.CommandContext(ctx, "apt-get", a.args("download", name)...)
	cmd.Dir = a.work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w\n%s", name, err, out)
	}
	debs, _ := filepath.Glob(filepath.Join(a.work, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s: want one file, have %q", name, debs)
	}
	return debs[0], nil
}

// RootDisk makes sure that the root file system of a lab's machine is in the cache as a disk, and
// gives the file: ext4, for virtual machines that keep what they write to themselves.
func RootDisk(ctx context.Context, report Report) (string, error) {
	root := rootfsEntry()
	if err := root.have(ctx, report); err != nil {
		return "", err
	}
	e := entry{
		kind:  "disk",
		key:   root.key + "-" + digest(diskFormat),
		about: "some seconds",
		build: func(ctx context.Context, dir string, _ Report) error {
			return Disk(ctx, root.path(), filepath.Join(dir, diskFile))
		},
	}
	if err := e.have(ctx, report); err != nil {
		return "", err
	}
	return filepath.Join(e.path(), diskFile), nil
}

const (
	diskFormat = "1"
	diskFile   = "root.ext4"
)

// Disk makes a file with an ext4 that holds a directory's content, with room for half as much again.
func Disk(ctx context.Context, dir, file string) error {
	out, err := exec.CommandContext(ctx, "du", "-s", "-k", "--apparent-size", dir).Output()
	if err != nil {
		return fmt.Errorf("measure %s: %w", dir, err)
	}
	var kib int
	if _, err := fmt.Sscan(string(out), &kib); err != nil {
		return fmt.Errorf("measure %s: %w", dir, err)
	}
	size := fmt.Sprintf("%dK", kib+kib/2+64*1024)
	return run(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", dir, file, size)
}

func run(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
