package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/test/kernels/features"
)

// featuresArgument makes the same program tell of the features, and end.
const featuresArgument = "features"

// Main is the program: process 1 of the machine. It does not return.
func Main() {
	if len(os.Args) > 1 && os.Args[1] == featuresArgument {
		TellFeatures(os.Stdout)
		os.Exit(0)
	}
	err := Boot()
	// The kernel's console is there even if the serial line of the results is not.
	fmt.Fprintln(os.Stderr, "guest:", err)
	unix.Sync()
	for {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
}

// Boot makes the machine a place like a node, and runs the plan.
func Boot() error {
	// The root file system does not have this program, and its features are tried in one of its own.
	self, err := os.ReadFile("/init")
	if err != nil {
		return err
	}
	if err := enterRoot(); err != nil {
		return err
	}
	line, err := os.OpenFile(Results, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	err = runPlan(line, self)
	if err != nil {
		fmt.Fprintf(line, "\n%s%v\n", MarkFailed, err)
	}
	fmt.Fprintf(line, "\n%s\n", MarkDone)
	return unix.IoctlSetInt(int(line.Fd()), unix.TCSBRK, 1) // drained
}

func runPlan(line io.Writer, self []byte) error {
	for key, value := range map[string]string{"PATH": "/usr/sbin:/usr/bin", "HOME": "/root", "TMPDIR": "/tmp"} {
		if err := os.Setenv(key, value); err != nil {
			return err
		}
	}
	data, err := os.ReadFile("/plan/plan.json")
	if err != nil {
		return err
	}
	var plan Plan
	if err := json.Unmarshal(data, &plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	release, err := features.Release()
	if err != nil {
		return err
	}
	if err := settle(release); err != nil {
		return err
	}
	if err := mountCgroups(plan.Layout); err != nil {
		return err
	}
	program := "/run/guest"
	if err := os.WriteFile(program, self, 0o755); err != nil {
		return err
	}
	if err := command(line, "/", program, featuresArgument).Run(); err != nil {
		return fmt.Errorf("try the features: %w", err)
	}
	for _, p := range plan.Packages {
		fmt.Fprintf(line, "\n%s%s\n", MarkBegin, p)
		began, failed := time.Now(), ""
		if err := runTests(line, plan, p); err != nil {
			failed = err.Error()
		}
		fmt.Fprintf(line, "\n%s%s\t%s\t%s\n", MarkEnd, p, time.Since(began).Round(100*time.Millisecond), failed)
	}
	return nil
}

func runTests(line io.Writer, plan Plan, p string) error {
	dir := filepath.Join("/plan/tests", p)
	cmd := command(line, dir, "./test", "-test.v", "-test.timeout=10m", "-test.run="+plan.Tests)
	if n := plan.Node; n != nil && n.Package == p {
		if out, err := exec.Command("cp", "-a", filepath.Join(dir, "root")+"/.", "/").CombinedOutput(); err != nil {
			return fmt.Errorf("copy what %s needs: %w: %s", p, err, out)
		}
		cmd = command(line, dir, "./test", append([]string{"-test.v", "-test.timeout=15m"}, n.Arguments...)...)
		cmd.Env = append(os.Environ(), n.Env...)
		return reapUntil(cmd)
	}
	return cmd.Run()
}

// reapUntil runs a command, and reaps what is orphaned meanwhile, as a node's process 1 does.
func reapUntil(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		switch got, err := unix.Wait4(-1, &status, 0, nil); {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case got == cmd.Process.Pid && status.ExitStatus() != 0:
			return fmt.Errorf("exit status %d (%v)", status.ExitStatus(), status.Signal())
		case got == cmd.Process.Pid:
			return nil
		}
	}
}

func command(out io.Writer, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	return cmd
}

// TellFeatures tries every feature, and tells of each in one line.
func TellFeatures(w io.Writer) {
	for _, f := range features.All() {
		detail, err := f.Try()
		answer := "yes"
		if err != nil {
			answer, detail = "no", err.Error()
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\n", MarkFeature, f.Name, answer, strings.Join(strings.Fields(detail), " "))
	}
}
