package kernels

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/drover-project/drover/hack/lab/cache"
	"github.com/drover-project/drover/test/kernels/guest"
)

// machine is a virtual machine that ends when its plan has been carried out.
type machine struct {
	tools    cache.Tools
	kernel   cache.Kernel
	layout   guest.Layout
	dir      string // of its files
	rootDisk string
	init     string // the guest's program
	tests    string // a directory with one for each package
	packages []string
	node     *guest.Node // of a package among them
	memory   string      // as QEMU takes it
}

// boot runs the machine, and again when the emulator was at fault.
func (m machine) boot(ctx context.Context, report cache.Report) (results, error) {
	if err := m.prepare(ctx); err != nil {
		return results{}, err
	}
	const attempts = 4
	for attempt := 1; ; attempt++ {
		all, err := m.run(ctx)
		if !errors.Is(err, errEmulator) || attempt == attempts {
			return all, err
		}
		report("attempt %d of %d: %s: %v", attempt, attempts, m.kernel.Release, errEmulator)
	}
}

// run boots the prepared machine and reads what it tells. An error of the machine tells the end
// of its console, and wraps errEmulator where that was at fault.
func (m machine) run(ctx context.Context) (results, error) {
	disk := func(file string) string { return "if=virtio,format=raw,snapshot=on,file=" + file }
	qemu := m.tools.QEMU(ctx, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", m.memory,
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", m.kernel.Image, "-initrd", m.file("initramfs"), "-append", "console=ttyS0 panic=-1 oops=panic softlockup_panic=1",
		"-drive", disk(m.rootDisk), "-drive", disk(m.file("plan.ext4")),
		"-serial", "file:"+m.file("console"), "-serial", "stdio")
	said, err := os.Create(m.file("qemu"))
	if err != nil {
		return results{}, err
	}
	defer said.Close()
	qemu.Stderr = said
	out, err := qemu.StdoutPipe()
	if err != nil {
		return results{}, err
	}
	if err := qemu.Start(); err != nil {
		return results{}, fmt.Errorf("start the virtual machine: %w", err)
	}
	all, err := read(out)
	_, _ = io.Copy(io.Discard, out)
	err = errors.Join(err, qemu.Wait())
	if err == nil && !all.done {
		err = errors.New("the machine ended before its tests")
	}
	if err != nil {
		console, _ := os.ReadFile(m.file("console"))
		own, _ := os.ReadFile(said.Name())
		if emulatorFault(console, own) {
			err = errEmulator
		}
		return all, fmt.Errorf("kernel %s: %w\n%s\n%s", m.kernel.Release, errors.Join(err, context.Cause(ctx)), own, tail(console, 20000))
	}
	return all, nil
}

var errEmulator = errors.New("the emulator failed")

// emulatorFault tells by the console, and by what QEMU itself said, that the machine ended because
// of QEMU. One of its own assertions may fail: that of its table of memory regions does now and
// then while a machine with two CPUs maps its devices. And attaching to a
// tracepoint makes the kernel put a breakpoint into its own code and take it out again
// (text_poke_bp). With a thread for each CPU, QEMU now and then translates the breakpoint while
// another CPU is taking it out, and keeps that: the kernel does not know it, or meets it for ever.
// One thread for all CPUs has no such race, and is five times as slow.
func emulatorFault(console, own []byte) bool {
	asserted := bytes.HasPrefix(own, []byte("qemu-system-")) && bytes.Contains(own, []byte("Assertion `"))
	met := bytes.Contains(console, []byte("int3: 0000 [#"))
	forEver := bytes.Contains(console, []byte("soft lockup")) && bytes.Contains(console, []byte("text_poke_bp_batch"))
	return asserted || met || forEver
}

func (m machine) file(name string) string { return filepath.Join(m.dir, name) }

func tail(b []byte, most int) []byte { return b[max(0, len(b)-most):] }

// prepare makes the initramfs, and the disk with modules, tests and the plan.
func (m machine) prepare(ctx context.Context) error {
	ram, err := initramfs(m.kernel, m.init)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.file("initramfs"), ram, 0o644); err != nil {
		return err
	}
	plan, err := json.Marshal(guest.Plan{Layout: m.layout, Packages: m.packages, Tests: *onlyTests, Node: m.node})
	if err != nil {
		return err
	}
	disk := m.file("plan")
	if err := os.Mkdir(disk, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(disk, "plan.json"), plan, 0o644); err != nil {
		return err
	}
	for from, to := range map[string]string{m.kernel.Modules: "modules", m.tests: "tests"} {
		if out, err := exec.CommandContext(ctx, "cp", "-a", from, filepath.Join(disk, to)).CombinedOutput(); err != nil {
			return fmt.Errorf("copy %s: %w: %s", from, err, out)
		}
	}
	return cache.Disk(ctx, disk, m.file("plan.ext4"))
}
