package cache

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// hostPackages are the Debian packages that building the cache needs on the machine itself, and
// e2fsprogs for labs whose nodes have disks.
var hostPackages = []string{"debootstrap", "debian-archive-keyring", "e2fsprogs"}

// Missing lists the Debian packages that are needed on the machine and not installed.
func Missing() []string {
	var out []string
	for _, p := range hostPackages {
		status, err := exec.Command("dpkg-query", "-W", "-f", "${Status}", p).Output()
		if err != nil || !strings.HasSuffix(string(status), " installed") {
			out = append(out, p)
		}
	}
	return out
}

// Prerequisites installs what Missing lists, and says so before. With DROVER_NO_INSTALL=1 it is an
// error that lists them instead.
func Prerequisites(ctx context.Context, report Report) error {
	missing := Missing()
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if os.Getenv("DROVER_NO_INSTALL") == "1" {
		return fmt.Errorf("needed and not installed: %s (DROVER_NO_INSTALL=1 is set, so install them: apt-get install %s)", list, list)
	}
	report("installing Debian packages with apt-get: %s", list)
	if err := aptGet(ctx, append([]string{"install", "-y", "--no-install-recommends"}, missing...)); err == nil {
		return nil
	}
	// Package lists may be missing or old; only then are they fetched.
	if err := aptGet(ctx, []string{"update"}); err != nil {
		return err
	}
	return aptGet(ctx, append([]string{"install", "-y", "--no-install-recommends"}, missing...))
}

func aptGet(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
