// Package checkpoint tries dump, hold, restore, abort and every kind of death in between
// on real runc and CRIU, with drover-runc as the runtime and the agent's own parts as the
// agent. It builds itself a node: namespaces and a root file system of its own.
package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stage tells a process of this test binary what it is: nothing: the test as called; init:
// process 1 of the node; node: the tests on the node.
const stage = "DROVER_TEST_STAGE"

func TestMain(m *testing.M) {
	switch os.Getenv(stage) {
	case "":
		os.Exit(outside(m))
	case "init":
		os.Exit(asInit())
	case "named":
		os.Exit(asNamed())
	}
	os.Exit(m.Run())
}

// outside makes the node, runs this binary on it with the same flags, and clears away.
func outside(m *testing.M) int {
	layers, why := rootLayers()
	if os.Getuid() != 0 {
		why = "needs root"
	}
	if why != "" {
		fmt.Println("skipped:", why)
		return 0
	}
	code, err := runNode(layers)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return code
}

// rootLayers finds a root file system with runc and CRIU: that of the lab's machines, or
// what DROVER_TEST_ROOTFS names.
func rootLayers() (dir, why string) {
	if dir := os.Getenv("DROVER_TEST_ROOTFS"); dir != "" {
		return dir, ""
	}
	cache := os.Getenv("DROVER_CACHE")
	if cache == "" {
		cache = "/var/cache/drover"
	}
	found, _ := filepath.Glob(filepath.Join(cache, "rootfs-*"))
	if len(found) == 0 {
		return "", "no root file system in " + cache + "; \"make lab-build\" makes one"
	}
	return found[len(found)-1], ""
}

func runNode(rootfs string) (code int, err error) {
	dir, err := os.MkdirTemp("", "drover-checkpoint-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	for out, pkg := range map[string]string{"drover-runc": "../../cmd/drover-runc", "counter": "./counter", "odd": "./odd", "scribe": "./scribe"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, out), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	group := fmt.Sprintf("/drover-checkpoint-%d", os.Getpid())
	defer func() { err = errors.Join(err, removeGroups(group)) }()
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, nodeFlags()...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stage+"=init", "NODE_DIR="+dir, "NODE_ROOTFS="+rootfs, "NODE_GROUP="+group)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Run()
	if cmd.ProcessState == nil {
		return 1, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// nodeFlags are this run's flags without those that name files outside of the node.
func nodeFlags() []string {
	return slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool {
		return strings.HasPrefix(a, "-test.testlogfile=")
	})
}

// asInit sets up the root file system, starts the tests, and reaps what is orphaned.
func asInit() int {
	if err := enterRoot(os.Getenv("NODE_ROOTFS"), os.Getenv("NODE_DIR")); err != nil {
		fmt.Println("set up the node:", err)
		return 1
	}
	os.Setenv(stage, "node")
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	pid, err := syscall.ForkExec("/drover/test", append([]string{"test"}, os.Args[1:]...), &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		fmt.Println("start the tests:", err)
		return 1
	}
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		if got == pid {
			return status.ExitStatus()
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return 1
		}
	}
}

// enterRoot makes an overlay over rootfs the root: pivoted, since CRIU refuses a chroot.
func enterRoot(rootfs, dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	base := filepath.Join(dir, "node")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	steps := [][]string{
		{"mkdir", "-p", base},
		{"mount", "-t", "tmpfs", "node", base},
		{"mkdir", base + "/upper", base + "/work", base + "/root"},
		{"mount", "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", rootfs, base, base), "node", base + "/root"},
		{"mount", "-t", "proc", "proc", base + "/root/proc"},
		{"mount", "-t", "sysfs", "sys", base + "/root/sys"},
		{"mount", "--rbind", "/sys/fs/cgroup", base + "/root/sys/fs/cgroup"},
		{"mount", "--rbind", "/dev", base + "/root/dev"},
		{"mount", "-t", "tmpfs", "run", base + "/root/run"},
		{"mount", "-t", "tmpfs", "tmp", base + "/root/tmp"},
		{"mkdir", "-p", base + "/root/drover", base + "/root/old", base + "/root/opt/drover/bin", base + "/root/var/lib"},
		{"cp", dir + "/drover-runc", base + "/root/opt/drover/bin/"},
		{"cp", dir + "/counter", dir + "/odd", dir + "/scribe", base + "/root/drover/"},
		{"cp", self, base + "/root/drover/test"},
		{"ip", "link", "set", "lo", "up"},
	}
	for _, s := range steps {
		if out, err := exec.Command(s[0], s[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(s, " "), err, out)
		}
	}
	if err := unix.PivotRoot(base+"/root", base+"/root/old"); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// removeGroups removes the control groups that the node made.
func removeGroups(group string) error {
	found, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
	if _, err := os.Stat("/sys/fs/cgroup" + group); err == nil {
		found = append(found, "/sys/fs/cgroup"+group)
	}
	var errs []error
	for _, root := range found {
		var dirs []string
		filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			errs = append(errs, os.Remove(dirs[i]))
		}
	}
	return errors.Join(errs...)
}
