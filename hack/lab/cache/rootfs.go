package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	// suite has the CRIU that kernels from 6.16 on need (4.2).
	suite = "sid"
	// rootfsFormat changes when a root file system is made differently from the same packages.
	rootfsFormat = "1"
)

// packages are what a lab's machines need beyond Debian's minbase.
var packages = []string{
	"ca-certificates", "iproute2", "iptables", "nftables", "kmod", "procps", "util-linux", "mount",
	"criu", "runc", "containerd", "containernetworking-plugins", "etcd-server", "etcd-client", "prometheus",
	"conntrack", "socat", "ethtool", "iputils-ping", "python3-minimal", "curl",
}

func rootfsEntry() entry {
	return entry{
		kind:  "rootfs",
		key:   suite + "-" + digest(suite, rootfsFormat, runtime.GOARCH, strings.Join(packages, ",")),
		about: "1 to 3 min",
		build: buildRootfs,
	}
}

func buildRootfs(ctx context.Context, dir string, report Report) error {
	if err := Prerequisites(ctx, report); err != nil {
		return err
	}
	a, err := machineArchive()
	if err != nil {
		return err
	}
	args := []string{"--variant=minbase", "--include=" + strings.Join(packages, ",")}
	if a.keyring != "" {
		args = append(args, "--keyring="+a.keyring)
	}
	report("  debootstrap %s from the machine's own mirror, %d packages", suite, len(packages))
	cmd := exec.CommandContext(ctx, "debootstrap", append(args, suite, dir, a.mirror)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := runCounting(cmd, "steps", report); err != nil {
		return fmt.Errorf("debootstrap %s: %w\n%s", suite, err, out)
	}
	return prune(dir)
}

// prune removes what no machine of a lab reads.
func prune(dir string) error {
	for _, p := range []string{"var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/log"} {
		if err := os.RemoveAll(filepath.Join(dir, p)); err != nil {
			return err
		}
	}
	for _, p := range []string{"var/log", "var/cache/apt"} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// archive is a Debian mirror and the key it is checked with ("": debootstrap's own).
type archive struct{ mirror, keyring string }

// machineArchive is the mirror that this machine's own apt uses.
func machineArchive() (archive, error) {
	for _, pattern := range []string{"/etc/apt/sources.list.d/*.sources", "/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return archive{}, err
		}
		for _, f := range files {
			content, err := os.ReadFile(f)
			if err != nil {
				return archive{}, fmt.Errorf("find the machine's Debian mirror: %w", err)
			}
			parse := parseSourcesList
			if strings.HasSuffix(f, ".sources") {
				parse = parseSources
			}
			if a, ok := parse(string(content)); ok {
				return a, nil
			}
		}
	}
	return archive{}, errors.New("no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d: the lab's root file system is made from the machine's own")
}

// isDebian tells whether a mirror holds Debian itself: the path of its URI is .../debian, which
// security updates and third parties' archives have not.
func isDebian(uri string) bool {
	return strings.HasSuffix(strings.TrimRight(uri, "/"), "/debian") &&
		(strings.HasPrefix(uri, "http://") || strings.HasPrefix(uri, "https://") || strings.HasPrefix(uri, "file:"))
}

// parseSources reads the deb822 format (sources.list(5)).
func parseSources(text string) (archive, bool) {
	for _, stanza := range strings.Split(text, "\n\n") {
		fields := map[string]string{}
		s := bufio.NewScanner(strings.NewReader(stanza))
		for s.Scan() {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && !strings.HasPrefix(k, "#") {
				fields[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
			}
		}
		if strings.EqualFold(fields["enabled"], "no") || !contains(fields["types"], "deb") || !contains(fields["components"], "main") {
			continue
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			if isDebian(uri) {
				return archive{uri, keyring(fields["signed-by"])}, true
			}
		}
	}
	return archive{}, false
}

// parseSourcesList reads the one-line format (sources.list(5)).
func parseSourcesList(text string) (archive, bool) {
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		line, options := strings.TrimSpace(s.Text()), ""
		if !strings.HasPrefix(line, "deb ") {
			continue
		}
		line = strings.TrimSpace(strings.TrimPrefix(line, "deb"))
		if strings.HasPrefix(line, "[") {
			options, line, _ = strings.Cut(line[1:], "]")
		}
		f := strings.Fields(line)
		if len(f) < 3 || !isDebian(f[0]) || !contains(strings.Join(f[2:], " "), "main") {
			continue
		}
		a := archive{mirror: f[0]}
		for _, o := range strings.Fields(options) {
			if v, ok := strings.CutPrefix(o, "signed-by="); ok {
				a.keyring = keyring(v)
			}
		}
		return a, true
	}
	return archive{}, false
}

func keyring(signedBy string) string {
	if filepath.IsAbs(signedBy) {
		return signedBy
	}
	return ""
}

func contains(words, word string) bool {
	for _, w := range strings.Fields(words) {
		if w == word {
			return true
		}
	}
	return false
}
