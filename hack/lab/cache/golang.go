package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/drover-project/drover/hack/image"
)

const module = "github.com/drover-project/drover"

// sourceDir is the checkout: around the working directory, or else where this file was compiled.
func sourceDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Dir}}").Output()
	if fields := strings.Fields(string(out)); err == nil && len(fields) == 2 && fields[0] == module {
		return fields[1], nil
	}
	_, file, _, ok := runtime.Caller(0)
	if dir := filepath.Join(filepath.Dir(file), "../../.."); ok && filepath.IsAbs(file) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("find Drover's source: run this inside a checkout of %s, with Go installed", module)
}

func goVersion() (string, error) {
	out, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("ask for Go's version: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// programs are the names Kubernetes' one binary is called by.
var programs = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"}

var kubeVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)`)

func kubeEntry(source string) (entry, error) {
	mod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return entry{}, err
	}
	version := kubeVersion.FindStringSubmatch(string(mod))
	if version == nil {
		return entry{}, errors.New("go.mod does not require k8s.io/kubernetes")
	}
	code, err := sources(filepath.Join(source, "hack/lab/kube"))
	if err != nil {
		return entry{}, err
	}
	goVersion, err := goVersion()
	if err != nil {
		return entry{}, err
	}
	return entry{
		kind:  "kube",
		key:   version[1] + "-" + digest(goVersion, runtime.GOARCH, kubeRequirements(string(mod)), code),
		about: "4 to 10 min the first time, 1 min when Go's build cache is warm",
		build: func(ctx context.Context, dir string, report Report) error {
			return buildKube(ctx, source, dir, version, report)
		},
	}, nil
}

// core are the modules that Kubernetes' programs are mostly made of.
var core = regexp.MustCompile(`^\s*(require )?k8s\.io/(kubernetes|api|apimachinery|apiserver|client-go|component-base) v\S+`)

// kubeRequirements are the lines of go.mod that decide what Kubernetes is built from. Not the whole
// of it: Drover's other requirements change often and do not change Kubernetes.
func kubeRequirements(mod string) string {
	var lines []string
	for _, line := range strings.Split(mod, "\n") {
		if core.MatchString(line) || strings.Contains(line, "k8s.io/") && strings.Contains(line, "=>") {
			line, _, _ = strings.Cut(line, "//")
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func buildKube(ctx context.Context, source, dir string, version []string, report Report) error {
	bin := filepath.Join(dir, "usr/local/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	const pkg = "k8s.io/component-base/version."
	ldflags := fmt.Sprintf("-s -w -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s", pkg, version[1], pkg, version[2], pkg, version[3])
	if err := goBuild(ctx, source, "./hack/lab/kube", filepath.Join(bin, "kube"), ldflags, report); err != nil {
		return err
	}
	for _, p := range programs {
		if err := os.Symlink("kube", filepath.Join(bin, p)); err != nil {
			return err
		}
	}
	return nil
}

// PauseImage is the image of pods' sandboxes in a lab, PauseName its name without a tag, and PauseTar
// where its tar lies in a lab's machine.
const (
	PauseName  = "localhost/drover-lab/pause"
	PauseImage = PauseName + ":1"
	PauseTar   = "/usr/local/share/drover-lab/pause.tar"
)

func pauseEntry(source string) (entry, error) {
	code, err := sources(filepath.Join(source, "hack/lab/pause"))
	if err != nil {
		return entry{}, err
	}
	return entry{
		kind:  "pause",
		key:   digest(code, PauseImage, PauseTar, runtime.GOARCH),
		about: "some seconds",
		build: func(ctx context.Context, dir string, report Report) error {
			program := filepath.Join(dir, "pause")
			if err := goBuild(ctx, source, "./hack/lab/pause", program, "-s -w", report); err != nil {
				return err
			}
			tar := filepath.Join(dir, PauseTar)
			if err := os.MkdirAll(filepath.Dir(tar), 0o755); err != nil {
				return err
			}
			if err := image.Write(tar, PauseImage, map[string]string{"/pause": program}, []string{"/pause"}); err != nil {
				return err
			}
			return os.Remove(program)
		},
	}, nil
}

// transient is what module proxies answer now and then and take back a moment later.
var transient = regexp.MustCompile(`\b(403|404|429|5\d\d)\b|timeout|connection reset`)

// goBuild builds a static program, with progress, and tries again when a download failed.
func goBuild(ctx context.Context, source, pkg, out, ldflags string, report Report) error {
	for attempt := 1; ; attempt++ {
		output, err := goBuildOnce(ctx, source, pkg, out, ldflags, report)
		if err == nil {
			return nil
		}
		if attempt == 3 || ctx.Err() != nil || !transient.MatchString(output) {
			return fmt.Errorf("go build %s: %w\n%s", pkg, err, output)
		}
		report("  go build %s failed while downloading, trying again", pkg)
	}
}

func goBuildOnce(ctx context.Context, source, pkg, out, ldflags string, report Report) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-ldflags", ldflags, "-o", out, pkg)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	return runCounting(cmd, "packages compiled", report)
}

// runCounting runs the command, reports every ten seconds how many lines it has written, and
// gives the last of them.
func runCounting(cmd *exec.Cmd, what string, report Report) (string, error) {
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	start := time.Now()
	lines := make(chan string)
	go func() {
		defer close(lines)
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			lines <- s.Text()
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	done := make(chan error, 1)
	go func() {
		err := cmd.Run()
		w.Close()
		done <- err
	}()
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	var tail []string
	count := 0
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return strings.Join(tail, "\n"), <-done
			}
			count++
			if tail = append(tail, line); len(tail) > 30 {
				tail = tail[1:]
			}
		case <-ticker.C:
			report("  %s: %d %s", time.Since(start).Round(time.Second), count, what)
		}
	}
}
