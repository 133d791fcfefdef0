// Package kernels runs the tests of everything that lives in the kernel, or reads it, under
// Debian's own kernels in virtual machines, and shows what each kernel has.
package kernels

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/hack/lab/cache"
	"github.com/drover-project/drover/test/kernels/features"
	"github.com/drover-project/drover/test/kernels/guest"
)

// boots are the machines: kernels by the release of Debian that has them. Linux 6.12 of Debian
// has no v1 memory and no v1 cpuset, so that no container runtime would use v1 with it.
var boots = []struct {
	release string
	layout  guest.Layout
}{
	{"bookworm", guest.V2},
	{"bookworm", guest.Hybrid},
	{"trixie", guest.V2},
}

// patience ends a machine that hangs; nothing is measured by it.
const patience = 40 * time.Minute

// readers are packages that read control groups and processes or speak to the kernel's firewall, beside
// all of bpf. Package address has the tunnel that carries an address.
var readers = []string{"./internal/cgroup", "./internal/netlock", "./internal/process", "./nodeagent/measure", "./nodeagent/address"}

const (
	source = "../.."
	module = "github.com/drover-project/drover/"
)

// For one who looks into a failure.
var (
	onlyPackages = flag.String("kernels.packages", "", "run the tests of these packages alone: a regular expression")
	onlyTests    = flag.String("kernels.tests", "", "run these tests alone: a regular expression")
	onlyMachine  = flag.String("kernels.machine", "", "boot these machines alone, by release and layout: a regular expression")
)

func TestKernels(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: it unpacks Debian packages, and tries the features of the running kernel")
	}
	tools, disk := parts(t)
	dir := t.TempDir()
	init, tests := filepath.Join(dir, "init"), filepath.Join(dir, "tests")
	goTool(t, "build", "-ldflags", "-s -w", "-o", init, "./test/kernels/guest/init")
	packages := buildTests(t, tests)
	if regexp.MustCompile(*onlyPackages).MatchString(nodePackage) {
		buildNode(t, tests)
		packages = append(packages, nodePackage)
	}

	shown := make([]column, len(boots))
	t.Run("boot", func(t *testing.T) { // ends when all machines have
		for i, b := range boots {
			if !regexp.MustCompile(*onlyMachine).MatchString(b.release + " " + string(b.layout)) {
				continue
			}
			k, err := tools.DebianKernel(t.Context(), b.release, t.Logf)
			if err != nil {
				t.Fatal(err)
			}
			c := &shown[i]
			c.title = fmt.Sprintf("%s %s", k.Release, b.layout)
			t.Run(strings.ReplaceAll(c.title, " ", "_"), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("not done after %s", patience))
				defer cancel()
				packages, node := withNode(b.layout, packages)
				m := machine{tools: tools, kernel: k, layout: b.layout, dir: t.TempDir(), rootDisk: disk, init: init, tests: tests, packages: packages, node: node, memory: "2G"}
				began := time.Now()
				got, err := m.boot(ctx, t.Logf)
				if err != nil {
					t.Error(err)
				}
				t.Logf("%s took %s", c.title, time.Since(began).Round(time.Second))
				judge(t, k.Release, b.layout, packages, got)
				c.results = got
			})
		}
	})
	ran := slices.DeleteFunc(shown, func(c column) bool { return c.features == nil })
	t.Log("\n" + table(packages, append(ran, here(t))))
}

// parts are what every machine is made of.
func parts(t *testing.T) (cache.Tools, string) {
	t.Helper()
	if err := cache.Prerequisites(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	tools, err := cache.KernelTools(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := cache.RootDisk(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return tools, disk
}

// here is the running kernel: its tests are those of "make test-unit".
func here(t *testing.T) column {
	t.Helper()
	release, err := features.Release()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	guest.TellFeatures(&b)
	got, err := read(&b)
	if err != nil {
		t.Fatal(err)
	}
	return column{release + " running", got}
}

func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // static: the guests have libraries of their own
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}

// buildTests makes a directory for each package that has tests, with its test program and its
// testdata, and gives the packages.
func buildTests(t *testing.T, dir string) []string {
	t.Helper()
	list := goTool(t, append([]string{"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./bpf/..."}, readers...)...)
	wanted := regexp.MustCompile(*onlyPackages)
	var packages []string
	for path := range strings.FieldsSeq(list) {
		p := strings.TrimPrefix(path, module)
		if !wanted.MatchString(p) {
			continue
		}
		packages = append(packages, p)
		to := filepath.Join(dir, p)
		goTool(t, "test", "-c", "-ldflags", "-s -w", "-o", filepath.Join(to, "test"), "./"+p)
		if data := filepath.Join(source, p, "testdata"); exists(data) {
			if err := os.CopyFS(filepath.Join(to, "testdata"), os.DirFS(data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return packages
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// judge wants every test of every package to have passed, and every feature that the kernel is
// new enough for to be there.
func judge(t *testing.T, release string, layout guest.Layout, packages []string, got results) {
	t.Helper()
	for _, p := range packages {
		o := got.packages[p]
		switch {
		case o == nil:
			t.Errorf("%s did not run", p)
		case o.failed != "":
			t.Errorf("%s: %s\n%s", p, o.failed, o.output.String())
		case o.passed == 0:
			t.Errorf("%s: no test ran\n%s", p, o.output.String())
		default:
			if *onlyTests != "" {
				t.Logf("%s:\n%s", p, o.output.String())
			}
			for _, name := range o.skipped {
				if !maySkip(layout, name) {
					t.Errorf("%s: %s was skipped\n%s", p, name, o.output.String())
				}
			}
		}
	}
	kernel, err := features.ParseVersion(release)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range features.All() {
		if a := got.features[f.Name]; !a.yes && !f.Optional && !kernel.Before(f.Since) {
			t.Errorf("%s: %s (Linux has it since %s)", f.Name, a.detail, f.Since)
		}
	}
}

// maySkip: a machine with cgroup v2 alone has nothing for the tests of v1.
func maySkip(layout guest.Layout, test string) bool {
	return layout == guest.V2 && slices.Contains(strings.Split(test, "/"), "v2=false")
}
